"""For authors: execute the committed notebooks in place, and check that they keep the rules of this project.

A refreshed notebook holds its outputs and nothing that changes from run to run: no timings, no widget state, no version
of the interpreter. Refreshing twice gives the same bytes, cells tagged ``nbval-ignore-output`` aside.
"""

import ast
import json
import re
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from bnnlib.errors import UserError
from bnnlib.files import write_atomic
from bnnlib.report.notebooks import Outcome, execute, find, parameters_of, read, tags

WIDGET = "application/vnd.jupyter.widget-view+json"  # means something to a running kernel only
LONGEST_DEFINITION = 15  # lines; longer ones belong in the library
_KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
_LANGUAGE = {"file_extension": ".py", "mimetype": "text/x-python", "name": "python", "pygments_lexer": "ipython3"}
_NOT_PORTABLE = {
    "an absolute path": r"(?<![\w.<:/)])/(?:[\w.@+-]+/)+[\w.@+-]*|\b[A-Z]:\\",
    "a web address": r"\b(?:https?|ftp|file)://",
    "a memory address": r"\b0x[0-9a-f]{6,}",
}


def refresh(names: Iterable[str] | None = None, folder: Path | None = None, progress: bool = True) -> list[Outcome]:
    """Execute notebooks with their default parameters and write the outputs into them; a failed one stays as it is."""
    outcomes = []
    for path in find(names, folder):
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as scratch:
            copy = Path(scratch) / path.name
            error = execute(path, copy, {}, bar=progress)
            if not error:
                fresh = clean(read(copy))
                error = "; ".join(_outputs_not_portable(fresh))
                text = json.dumps(fresh, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
                if not error and text != path.read_text():
                    write_atomic(path, text)
        outcomes.append(Outcome(path.stem, "failed" if error else "done", (time.monotonic() - start) / 60, error))
        if progress:
            print(outcomes[-1], flush=True)
    return outcomes


def clean(notebook: dict) -> dict:
    """The notebook without what changes from run to run or machine to machine; texts as lists of lines."""
    for cell in notebook["cells"]:
        kept = cell["metadata"].items()
        cell["metadata"] = {key: value for key, value in kept if value and key not in ("execution", "papermill")}
        cell["source"] = cell["source"].splitlines(keepends=True)
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(WIDGET, None)
    notebook["metadata"] = {"kernelspec": _KERNEL, "language_info": _LANGUAGE}
    return notebook


def check(path: Path) -> list[str]:
    """Say where a notebook breaks the rules: one line each, none if all is well."""
    notebook = read(path)
    cells = notebook["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    wrong = _opening(path, cells) + _ending(path, cells, code) + _outputs_not_portable(notebook)
    counts = [cell["execution_count"] for cell in code]
    if counts != list(range(1, len(code) + 1)):
        wrong.append(f"code cells were executed in the order {counts}; run `bnn refresh {path.stem}`")
    for i, cell in enumerate(cells, 1):
        if cell["cell_type"] == "code":
            wrong += [f"cell {i}: {text}" for text in _long_definitions(cell["source"])]
        else:
            wrong += [f"cell {i}: {text}" for text in _dead_links(path, cell["source"])]
        if {"execution", "papermill"} & set(cell["metadata"]):
            wrong.append(f"cell {i}: timings in its metadata; run `bnn refresh {path.stem}`")
    if notebook["metadata"] != {"kernelspec": _KERNEL, "language_info": _LANGUAGE}:
        wrong.append(f"metadata of another tool; run `bnn refresh {path.stem}`")
    return [f"{path.stem}: {text}" for text in wrong]


def _opening(path: Path, cells: list[dict]) -> list[str]:
    wrong = []
    first = cells[0]["source"] if cells and cells[0]["cell_type"] == "markdown" else ""
    if not first.startswith("# "):
        wrong.append("the first cell is not a title")
    if not re.search(r"\bReproduces\b.*\b(figures?|tables?|sections?|outline)\b", first, re.I | re.S):
        wrong.append("the first cell does not say `Reproduces ...`: which figure, table or section of the paper")
    if sum("parameters" in tags(cell) for cell in cells) != 1:
        wrong.append("there is not exactly one cell tagged parameters")
    try:
        declared = parameters_of(path)
        if "mode" not in declared or (declared["mode"].type, declared["mode"].default) != ("str", "quick"):
            wrong.append('the parameters lack `mode: str = "quick"  # quick or full`')
        wrong += [f"parameter {name} lacks a comment" for name, one in declared.items() if not one.help]
    except UserError as error:
        wrong.append(str(error))
    return wrong


def _ending(path: Path, cells: list[dict], code: list[dict]) -> list[str]:
    """Claims asserted, versions, links: the last cells, in this order."""
    wrong = []
    if len(code) < 2 or not any(isinstance(node, ast.Assert) for node in ast.walk(_parse(code[-2]["source"]))):
        wrong.append("the last code cell but one does not assert the claims")
    if not code or "versions()" not in code[-1]["source"] or "nbval-ignore-output" not in tags(code[-1]):
        wrong.append("the last code cell does not print versions(), tagged nbval-ignore-output")
    last = cells[-1]["source"] if cells and cells[-1]["cell_type"] == "markdown" else ""
    every = find(folder=path.parent)
    here = every.index(path) if path in every else 0
    for word, there in (("previous", here - 1), ("next", here + 1)):
        if 0 <= there < len(every) and every[there].name not in last:
            wrong.append(f"the last cell does not link to the {word} notebook, {every[there].name}")
    return wrong


def _outputs_not_portable(notebook: dict) -> list[str]:
    """Outputs that would differ elsewhere, or that no reader should see."""
    wrong = []
    for i, cell in enumerate(notebook["cells"], 1):
        for output in cell.get("outputs", []):
            if output["output_type"] == "error":
                wrong.append(f"cell {i}: an error as output")
            if output.get("name") == "stderr":
                wrong.append(f"cell {i}: output on stderr: {_text(output['text']).strip()[:80]!r}")
            data = output.get("data", {})
            if any("widget" in kind for kind in data):
                wrong.append(f"cell {i}: a widget, which no static page can show")
            texts = [output.get("text", ""), *(value for kind, value in data.items() if kind.startswith("text/"))]
            for what, pattern in _NOT_PORTABLE.items():
                found = re.search(pattern, "\n".join(map(_text, texts)))
                if found:
                    wrong.append(f"cell {i}: {what} in the output: {found[0][:80]!r}")
    return wrong


def _long_definitions(source: str) -> list[str]:
    wrong = []
    for node in ast.walk(_parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            lines = node.end_lineno - node.lineno + 1
            if lines > LONGEST_DEFINITION:
                wrong.append(f"{node.name} has {lines} lines; more than {LONGEST_DEFINITION} belong in bnnlib")
    return wrong


def _dead_links(path: Path, source: str) -> list[str]:
    targets = re.findall(r"\]\(([^)\s#:]+)(?:#[^)\s]*)?\)", source)
    return [f"the link to {target} leads nowhere" for target in targets if not (path.parent / target).exists()]


def _parse(source: str) -> ast.Module:
    """The Python of a cell; lines of IPython (%, !) count as empty."""
    return ast.parse("\n".join("" if line.lstrip().startswith(("%", "!")) else line for line in source.splitlines()))


def _text(text: str | list[str]) -> str:
    return text if isinstance(text, str) else "".join(text)
