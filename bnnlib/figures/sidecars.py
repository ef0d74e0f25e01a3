"""Figures are saved together with what they were drawn from.

A figure is three files: NAME.png, NAME.pdf and NAME.json, its sidecar. The sidecar lists every source with its hash, so
that ``check_sidecars`` can say which figure no longer agrees with the data. Pictures are written without dates and
program versions: the same data gives the same bytes.
"""

import hashlib
import io
import os
from collections.abc import Iterable
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from bnnlib import paths
from bnnlib.errors import UserError
from bnnlib.files import read_json, sha256, write_atomic, write_json

_DPI = 200  # of the PNG: 6.4 inches become 1280 pixels
_CLEAN = {"png": {"Software": None}, "pdf": {"CreationDate": None, "Creator": None, "Producer": None}}


def figures_dir() -> Path:
    """Folder of the figures: ``$BNN_FIGURES`` (relative to the repository) if set, else ``figures``."""
    return paths.ROOT / Path(os.environ.get("BNN_FIGURES") or paths.FIGURES).expanduser()


def save(fig: Figure, name: str, sources: Iterable[Path | str], alt: str, made_by: str) -> None:
    """Write NAME.png, NAME.pdf and the sidecar NAME.json, and show the figure when a notebook runs.

    In a notebook the figure is shown once, here, with ``alt`` as its text for those who cannot see it, and closed.
    Elsewhere it stays open.

    Args:
        sources: the files the figure was drawn from; a folder stands for all files in it. Relative paths start at the
            repository.
        alt: one or two sentences that say what the picture shows.
        made_by: the notebook (``05_lenet_mnist``) or command that makes the figure anew.

    Raises:
        UserError: no source, a missing source, no text, or the folder cannot be written.
    """
    if not alt.strip() or not made_by.strip():
        raise UserError(f"figure {name} needs a text for those who cannot see it, and the notebook that makes it")
    files = sorted({_portable(source) for source in sources})
    if not files:
        raise UserError(f"figure {name} names no source; pass the results and tables it was drawn from")
    listed = [{"path": file, "sha256": _hash(file)} for file in files]
    folder = figures_dir()
    for kind, metadata in _CLEAN.items():
        picture = io.BytesIO()
        fig.savefig(picture, format=kind, dpi=_DPI, bbox_inches="tight", metadata=metadata)
        write_atomic(folder / f"{name}.{kind}", picture.getvalue())
    write_json(
        folder / f"{name}.json", {"figure": name, "made_by": made_by, "alt": " ".join(alt.split()), "sources": listed}
    )
    if _in_notebook():
        from IPython.display import display

        display(fig, metadata={"image/png": {"alt": " ".join(alt.split())}})
        plt.close(fig)  # or the end of the cell would show it a second time


def check_sidecars(folder: Path | None = None) -> list[str]:
    """Say which figures no longer agree with their sources: one line each, none if all is well."""
    folder = folder or figures_dir()
    stale = []
    for sidecar in sorted(folder.glob("*.json")):
        for kind in _CLEAN:
            if not sidecar.with_suffix(f".{kind}").exists():
                stale.append(f"{sidecar.stem}: {sidecar.stem}.{kind} is missing")
        content = read_json(sidecar)
        for source in content["sources"]:
            try:
                if _hash(source["path"]) != source["sha256"]:
                    stale.append(f"{sidecar.stem}: {source['path']} has changed; run {content['made_by']} again")
            except UserError as error:
                stale.append(f"{sidecar.stem}: {error}")
    for picture in sorted([*folder.glob("*.png"), *folder.glob("*.pdf")]):
        if not picture.with_suffix(".json").exists():
            stale.append(f"{picture.stem}: {picture.name} has no sidecar that says what it was drawn from")
    return stale


def _portable(source: Path | str) -> str:
    """The path relative to the repository, with / as separator; outside of it (smoke results) the whole path."""
    path = Path(os.path.abspath(paths.ROOT / source))
    inside = path.is_relative_to(paths.ROOT)
    if not inside and figures_dir().resolve() == paths.FIGURES.resolve():
        raise UserError(f"source {source} lies outside the repository; for a trial set BNN_FIGURES=build/figures")
    return path.relative_to(paths.ROOT).as_posix() if inside else path.as_posix()


def _hash(source: str) -> str:
    """SHA-256 of a file, or of the sorted list of (name, hash) of all files below a folder."""
    path = paths.ROOT / source
    if path.is_file():
        return sha256(path)
    if not path.is_dir():
        raise UserError(f"source {source} does not exist; make it, or restore it with git checkout")
    files = sorted(f for f in path.rglob("*") if f.is_file() and not f.name.startswith("."))
    lines = [f"{file.relative_to(path).as_posix()} {sha256(file)}\n" for file in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _in_notebook() -> bool:
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    shell = get_ipython()
    return shell is not None and hasattr(shell, "kernel")
