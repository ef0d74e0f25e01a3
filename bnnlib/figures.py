"""The look of the figures, and saving them together with what they were drawn from.

A figure is three files: NAME.png, NAME.pdf and NAME.json, its sidecar. The sidecar lists every source with its hash, so
that ``check_sidecars`` can say which figure no longer agrees with the data. Pictures are written without dates and
program versions: the same data gives the same bytes.

Colours: Okabe and Ito, "Color universal design", 2008, told apart with any common colour vision; every family also has
a marker of its own, for print in grey.
"""

import hashlib
import io
import itertools
import os
from collections.abc import Iterable
from pathlib import Path

import matplotlib.pyplot as plt
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bnnlib import paths
from bnnlib.errors import UserError
from bnnlib.files import read_json, sha256, write_atomic, write_json

BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILLION, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
GREY = "#7F7F7F"  # the work of others: told apart by the marker
PALETTE = (BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY, BLACK)  # yellow is too pale for lines on white

# family -> colour, marker. The families of the paper's result figure, own networks first.
FAMILIES = {
    "float": (BLACK, "s"),
    "fixed": (SKY, "h"),
    "binary": (BLUE, "o"),
    "ternary": (ORANGE, "^"),
    "first/last": (GREEN, "D"),
    "width": (VERMILLION, "v"),
    "BNN": (GREY, "o"),
    "TBN": (GREY, "^"),
    "HORQ": (GREY, "P"),
    "BC/BWN": (GREY, "X"),
    "XNOR-Net": (GREY, "*"),
    "DoReFa": (GREY, "p"),
}
PAPER_FAMILIES = {"FP": "float", "Arch.": "width", "Tern.": "ternary", "First/Last": "first/last"}

_DPI = 200  # of the PNG: 6.4 inches become 1280 pixels
_CLEAN = {"png": {"Software": None}, "pdf": {"CreationDate": None, "Creator": None, "Producer": None}}


def style() -> None:
    """Set the theme of all figures: readable sizes, light grid, colours that everybody can tell apart."""
    import seaborn as sns  # slow to import, and saving a figure does not need it

    sns.set_theme(context="notebook", style="whitegrid", palette=PALETTE)
    plt.rcParams.update(
        {
            "font.family": "sans-serif",
            "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: the same letters on every machine
            "axes.prop_cycle": cycler(color=PALETTE),
            "axes.titlesize": 12,
            "axes.labelsize": 11,
            "legend.fontsize": 10,
            "xtick.labelsize": 10,
            "ytick.labelsize": 10,
            "lines.markersize": 7,
            "grid.linewidth": 0.6,
            "grid.color": "#D9D9D9",
            "figure.figsize": (6.4, 4.2),
            "figure.dpi": 100,
            "figure.constrained_layout.use": True,
        }
    )


def look(family: str) -> dict[str, str]:
    """Colour, marker and label of a family, as keywords of ``Axes.plot``: ``ax.plot(x, y, **look("ternary"))``.

    The names that the paper's figure uses (``FP``, ``Arch.``, ``Tern.``, ``First/Last``) are understood too.

    Raises:
        UserError: the family is unknown.
    """
    name = PAPER_FAMILIES.get(family, family)
    if name not in FAMILIES:
        raise UserError(f"family {family!r} is unknown; use one of {', '.join([*FAMILIES, *PAPER_FAMILIES])}")
    color, marker = FAMILIES[name]
    return {"color": color, "marker": marker, "label": name}


def label_points(
    ax: Axes,
    x: Iterable[float],
    y: Iterable[float],
    labels: Iterable[str],
    avoid: Iterable[tuple[float, float]] = (),
    left: Iterable[str] = (),
) -> None:
    """Write a label beside each point, as near as it covers nothing, with a hair line to its point.

    Call it last: it works on the limits and the size that the axes have now.

    Args:
        avoid: further points (x, y) that no label may cover.
        left: labels that rather stand on the left of their point.
    """
    leftward = set(left)
    ax.figure.canvas.draw()  # constrained layout settles the transforms
    point = 72 / ax.figure.dpi  # of a pixel; a picture is saved with other pixels, but the same points
    height = 1.25 * 8.5 / point  # of a line of text, in pixels
    own = list(zip(x, y, strict=True))
    marks = ax.transData.transform([*own, *avoid])
    placed = [(px - 6, px + 6, py) for px, py in marks]
    frame = ax.bbox
    for (px, py), label in sorted(zip(marks[: len(own)], labels, strict=True), key=lambda p: -p[0][1]):
        width = 0.55 * height * len(label)
        sides = (-1, 1) if label in leftward else (1, -1)
        for step, side in itertools.product(range(int(frame.height)), sides):
            middle = py + (step // 2 if step % 2 else -(step // 2))
            left, right = sorted((px + side * 14, px + side * (14 + width)))
            covers = any(left < r and right > a and abs(middle - m) < height for a, r, m in placed)
            if not covers and left > frame.x0 and right < frame.x1 and frame.y0 < middle < frame.y1:
                break
        placed.append((left, right, middle))
        ax.annotate(
            label, ax.transData.inverted().transform((px, py)), (side * 14 * point, (middle - py) * point),
            textcoords="offset points", fontsize=8.5, va="center", ha="left" if side > 0 else "right",
            arrowprops={"arrowstyle": "-", "lw": 0.5, "color": GREY, "shrinkA": 0, "shrinkB": 4},
        )  # fmt: skip


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
