"""The report site: README, notebooks with their outputs and a page of all figures, as files that need no server.

Sphinx with MyST-NB builds it from a copy of the repository's pages, in the repository's own layout, so that every
relative link keeps its meaning: to a page as a page, to any other file as a download. Jupyter Book 2 was tried: it
fetches its theme from the network, and its pages need a web server. nbconvert has neither navigation nor search.

Nothing on a page comes from the network: formulas are MathML, fonts are those of the reader's system.
"""

import base64
import html
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote

from bnnlib import paths
from bnnlib.errors import UserError
from bnnlib.files import read_json, write_atomic
from bnnlib.report import explorer, notebooks
from bnnlib.report.refresh import WIDGET

PAGES = (
    "CONTRIBUTING.md", "CHANGELOG.md", "bnnlib/README.md", "bnnlib/training/README.md", "data/README.md",
    "data/energy/README.md",
)  # fmt: skip
MARK = "searchindex.js"  # every site has it
STATIC = Path(__file__).parent / "static"
LINK = re.compile(r"\]\(([^)#?\s]+)[^)]*\)")
FIGURES = """# Figures

Every figure of the notebooks, with what it was drawn from. A sidecar lists these files with their SHA-256;
`make test` finds a figure that no longer agrees with them.
"""
CONTENTS = """
```{toctree}
:hidden:
:caption: Notebooks

NOTEBOOKS
```

```{toctree}
:hidden:
:caption: Look up

explorer
figures
Data <data/README>
data/energy/README
bnnlib/README
bnnlib/training/README
CONTRIBUTING
CHANGELOG
```
"""
SETTINGS = {
    "project": "Efficient binary neural networks",
    "extensions": ["myst_nb", "bnnlib.report.mathml"],
    "nb_execution_mode": "off",
    "myst_enable_extensions": ["dollarmath"],
    "myst_heading_anchors": 4,
    "myst_all_links_external": False,
    "html_theme": "furo",
    "html_title": "Efficient binary neural networks",
    "html_math_renderer": "mathml",
    "html_static_path": ["_static"],
    "html_css_files": ["site.css", "explorer.css"],
    "html_copy_source": False,
    "html_show_sourcelink": False,
    "html_show_search_summary": False,  # it is fetched, which browsers refuse for files
    "html_show_sphinx": False,
    "html_show_copyright": False,
    "show_warning_types": True,
}


def build(executed: Iterable[Path] = (), out: Path | str | None = None) -> Path:
    """Write the site and give its front page, ``index.html``.

    Args:
        executed: copies that a batch has executed; any other notebook is shown as it was committed.
        out: folder of the site, default ``build/html``. An earlier site there is replaced when the new one is whole;
            any other folder has to be empty.

    Raises:
        UserError: a page links to what does not exist, a figure's source is missing, or the folder cannot be written.
    """
    out = Path(out or paths.BUILD / "html").absolute()
    with tempfile.TemporaryDirectory() as folder:
        source, built = Path(folder, "source"), Path(folder, "html")
        _collect(source, {copy.name: copy for copy in executed})
        _sphinx(source, built, Path(folder, "doctrees"))
        _replace(out, built)
    return out / "index.html"


def _replace(out: Path, built: Path) -> None:
    """Puts ``built`` in the place of ``out``, which holds a site, nothing, or is not there yet."""
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / MARK).exists())):
        raise UserError(f"{out} holds something that is no report; name an empty folder with --out")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))  # on the same disk: moved at once
        try:
            shutil.copytree(built, fresh / "site")
            if out.exists():
                out.rename(fresh / "old")
            (fresh / "site").rename(out)
        finally:
            shutil.rmtree(fresh)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}; name another folder with --out") from error


def _collect(source: Path, executed: dict[str, Path]) -> None:
    """The pages and all files that they link to, in the layout of the repository."""
    figures = {sidecar["alt"]: sidecar for sidecar in map(read_json, sorted(paths.FIGURES.glob("*.json")))}
    texts = {name: (paths.ROOT / name).read_text() for name in ("README.md", *PAGES)}
    texts["explorer.md"] = explorer.page()
    texts["figures.md"] = FIGURES + "".join(_figure(sidecar) for sidecar in figures.values())
    titles = []
    for path in notebooks.find():
        made = _notebook(notebooks.read(executed.get(path.name, path)), path.stem, source, figures)
        texts[f"notebooks/{path.name}"] = json.dumps(made)
        titles.append(f"{path.stem[:2]} {_title(made)} <notebooks/{path.stem}>")
    for name, text in texts.items():
        for link in set(LINK.findall(text)):
            _copy_linked(source, Path(name).parent / unquote(link), texts)
    index = texts.pop("README.md") + CONTENTS.replace("NOTEBOOKS", "\n".join(titles))
    for name, text in {"index.md": index, **texts}.items():
        text = text.replace("../README.md", "../index.md") if name != "index.md" else text
        write_atomic(source / name, text)
    shutil.copytree(STATIC, source / "_static", dirs_exist_ok=True)
    write_atomic(source / "_static" / "explorer-data.js", explorer.script())


def _title(notebook: dict) -> str:
    """The short form of a heading: what stands before its colon."""
    return notebook["cells"][0]["source"].splitlines()[0].lstrip("# ").partition(":")[0]


def _copy_linked(source: Path, link: Path, pages: Iterable[str]) -> None:
    """Copies a file that a page links to and that is no page; what does not exist is Sphinx's to report."""
    file = (paths.ROOT / link).resolve()
    if file.is_file() and file.is_relative_to(paths.ROOT) and str(file.relative_to(paths.ROOT)) not in pages:
        copy = source / file.relative_to(paths.ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)


def _figure(sidecar: dict) -> str:
    """A section of the page of figures."""
    name, notebook = sidecar["figure"], sidecar["made_by"]
    sources = [one["path"] for one in sidecar["sources"]]
    listed = ", ".join(f"[{path}]({path})" for path in sources)
    if len(sources) > 4:
        listed = f"\n<details><summary>{len(sources)} files</summary>\n\n{listed}\n\n</details>\n"
    return f"""
## {name}

![{sidecar["alt"]}](figures/{name}.png)

{sidecar["alt"]}

- made by [{notebook}](notebooks/{notebook}.ipynb); again: `bnn reproduce --only {notebook[:2]}`
- files: [PNG](figures/{name}.png), [PDF](figures/{name}.pdf), [sidecar](figures/{name}.json)
- drawn from {listed}
"""


def _notebook(notebook: dict, stem: str, source: Path, figures: dict[str, dict]) -> dict:
    """The notebook for the site: pictures with their texts, and under each figure where its data are.

    Args:
        notebook: as ``notebooks.read`` gives it.
        stem: its name, which the files of its pictures begin with.
        source: the folder that they are written to.
        figures: sidecars by the text of the picture.
    """
    cells = []
    for i, cell in enumerate(notebook["cells"]):
        cells.append(cell)
        for j, output in enumerate(cell.get("outputs", [])):
            data = output.get("data", {})
            data.pop(WIDGET, None)
            picture = data.pop("image/png", None)
            if picture is None:
                continue
            alt = output.get("metadata", {}).get("image/png", {}).get("alt", "")
            file = f"_static/cells/{stem}-{i}-{j}.png"
            write_atomic(source / file, base64.b64decode("".join(picture)))
            shown = f'<a href="../{file}"><img src="../{file}" alt="{html.escape(alt)}"></a>'
            output["data"] = {"text/html": shown}
            if alt in figures:
                cells.append(_caption(figures[alt], f"caption-{i}-{j}"))
    notebook["cells"] = cells
    return notebook


def _caption(sidecar: dict, cell_id: str) -> dict:
    name, number = sidecar["figure"], sidecar["made_by"][:2]
    text = f"*Figure [{name}](../figures.md#{name}): its data and its PDF. Again: `bnn reproduce --only {number}`.*"
    return {"cell_type": "markdown", "id": cell_id, "metadata": {}, "source": text}


def _sphinx(source: Path, out: Path, doctrees: Path) -> None:
    """Runs Sphinx, in a process of its own since it leaves traces in the one it runs in; a warning is an error."""
    settings = "".join(f"{name} = {value!r}\n" for name, value in SETTINGS.items())
    write_atomic(source / "conf.py", f"import sys\nsys.path.insert(0, {str(paths.ROOT)!r})\n{settings}")
    command = [sys.executable, "-m", "sphinx", "-q", "--no-color", "-d", doctrees, source, out]
    run = subprocess.run(command, capture_output=True, text=True)
    lines = [line for line in run.stderr.splitlines() if line.strip()]
    if lines or run.returncode:
        first = (lines or ["Sphinx stopped"])[0].replace(f"{source}/", "")
        raise UserError(f"the report cannot be built, {len(lines)} mistakes; the first: {first}")
