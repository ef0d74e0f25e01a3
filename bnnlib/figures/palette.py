"""The look of the figures: sizes, colours, markers and labels.

Colours: Okabe and Ito, "Color universal design", 2008, told apart with any common colour vision; every family also has
a marker of its own, for print in grey.
"""

import itertools
from collections.abc import Iterable

import matplotlib.pyplot as plt
from cycler import cycler
from matplotlib.axes import Axes

from bnnlib.errors import UserError

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
