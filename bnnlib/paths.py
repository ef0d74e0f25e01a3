"""The only place that knows folders."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
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
