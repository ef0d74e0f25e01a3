"""The only place that knows folders."""

import os
from pathlib import Path

from bnnlib.errors import UserError


def find_root(package: Path, working: Path) -> Path:
    """The checkout that holds the tables, results and notebooks.

    Args:
        package: the folder of ``bnnlib``. It lies in a checkout, or was installed as a copy: then the checkout is the
            working folder or one above it.
        working: the working folder.
    """
    for folder in (package.parent, working, *working.parents):
        if (folder / "data" / "energy").is_dir():
            return folder
    return package.parent


def check_root() -> None:
    """Raises UserError if there is no checkout."""
    if not ENERGY.is_dir():
        raise UserError(f"{ROOT} has no data/energy; run bnn in a checkout of the repository, which has the tables")


ROOT = find_root(Path(__file__).resolve().parent, Path.cwd())
DATA = ROOT / "data"
ENERGY = DATA / "energy"
RESULTS = DATA / "results"
FIGURES = ROOT / "figures"
NOTEBOOKS = ROOT / "notebooks"
BUILD = ROOT / "build"


def datasets_dir() -> Path:
    """Folder of the downloaded data sets: ``$BNN_DATA`` if set, else ``data/downloads``."""
    return Path(os.environ.get("BNN_DATA") or DATA / "downloads").expanduser()


def results_dir() -> Path:
    """Folder of the results: ``$BNN_RESULTS`` if set, else the committed ``data/results``."""
    return Path(os.environ.get("BNN_RESULTS") or RESULTS).expanduser()


def checkpoints_dir() -> Path:
    """Folder of unfinished trainings: ``$BNN_CHECKPOINTS`` if set, else ``build/checkpoints``."""
    return Path(os.environ.get("BNN_CHECKPOINTS") or BUILD / "checkpoints").expanduser()


def packed_dir() -> Path:
    """Folder of the packed networks: ``$BNN_PACKED`` if set, else the committed ``data/pretrained``."""
    return Path(os.environ.get("BNN_PACKED") or DATA / "pretrained").expanduser()
