"""The paper's result figure with our measurements in it: a panel of accuracy over energy.

Ours are filled, with the standard deviation of the seeds as a bar; theirs are hollow. Colours are families, grey is the
work of others. A thin line joins the two points of one network. Where no candidate for a point has been trained here at
full size, an upright stroke through it stands at the energy that we compute.
"""

import statistics

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bnnlib import figures, studies
from bnnlib.analysis import claims, claims_table
from bnnlib.studies import results

OURS = ["energy_uj", "mean", "sd", "n", "family"]
PAPER = ["network", "own", "energy_uj", "accuracy", "family", "our_uj"]
TICKS = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)
_KEY = {
    "float": "full precision",
    "binary": "all binary",
    "first/last": "8-bit first or last layer",
    "ternary": "ternary in chosen layers, or all",
    "width": "wider",
    "TBN": "work of others",
}


def family(dataset: str, network: str) -> str:
    """Family in ``figures.FAMILIES`` of a network of the studies; the comparators are families of their own."""
    name = {"BC": "BC/BWN"}.get(network, network.partition("-1-")[0])  # DoReFa-1-2 is of the family DoReFa
    return name if name in figures.FAMILIES else studies.family(claims_table.networks_of(dataset)[network])


def ours(dataset: str, protocol: str | None = None) -> pd.DataFrame:
    """What was measured here: index ``network``, columns ``OURS``; percent, and NaN for the sd of a single seed.

    Args:
        dataset: ``mnist`` or ``cifar10``.
        protocol: default that of ``claims.PROTOCOLS``.
    """
    rows = {}
    for name, values in claims.load_seeds(dataset, protocol or claims.PROTOCOLS[dataset]).items():
        sd = statistics.stdev(values) if len(values) > 1 else float("nan")
        rows[name] = [
            claims_table.network_uj(dataset, name),
            statistics.fmean(values),
            sd,
            len(values),
            family(dataset, name),
        ]
    return pd.DataFrame.from_dict(rows, orient="index", columns=OURS).rename_axis("network").sort_values("energy_uj")


def papers(dataset: str, ledger: pd.DataFrame) -> pd.DataFrame:
    """The plotted points of a panel, out of the ledger: index ``label`` (as in the figure), columns ``PAPER``.

    ``network`` has the candidates for the point, ``our_uj`` the energy of the first of them, NaN where the point is not
    comparable.
    """
    rows = ledger[(ledger["dataset"] == dataset) & (ledger["point"] != "")]
    energies = {row["id"]: row for row in rows.to_dict("records")}
    found = []
    for row in rows[rows["kind"] == "accuracy"].to_dict("records"):
        other = energies[row["id"].removesuffix("accuracy") + "energy"]
        label, own = row["point"], row["own"] == "yes"
        look = family(dataset, row["network"].split(" or ")[0]) if own else label
        our_uj = claims_table.network_uj(dataset, other["network"].split(" or ")[0])
        values = float(other["paper_value"]), float(row["paper_value"])
        found.append([label, row["network"], own, *values, look, float("nan") if row["not_comparable"] else our_uj])
    return pd.DataFrame(found, columns=["label", *PAPER]).set_index("label")


def beyond(dataset: str, protocol: str = "long") -> pd.DataFrame:
    """The same of the networks that were trained with methods beyond the paper, by the names of ``together-*``."""
    study = f"together-{dataset}"
    rows, found = results.load_results(study, protocol), {}
    for name, own in rows.groupby("network", sort=False):
        if name.startswith("together"):
            values = tuple(own["test_accuracy"])
            sd = statistics.stdev(values) if len(values) > 1 else float("nan")
            kind = "binary" if name == "together" else "ternary"
            found[name] = [own["energy_uj"].iloc[0], statistics.fmean(values), sd, len(values), kind]
    return pd.DataFrame.from_dict(found, orient="index", columns=OURS).rename_axis("network").sort_values("energy_uj")


def panel(ax: Axes, theirs: pd.DataFrame, mine: pd.DataFrame, best: pd.DataFrame | None = None) -> None:
    """Draw all with their labels on a logarithmic energy axis.

    Args:
        theirs: of ``papers``.
        mine: of ``ours``; may be empty.
        best: of ``beyond``, drawn larger and with a black edge.
    """
    best = mine[:0] if best is None else best
    plain, mine = mine.index, pd.concat([mine, best]) if len(best) else mine
    _limits(ax, theirs, mine)
    trained = [bool(set(names.split(" or ")) & set(mine.index)) for names in theirs["network"]]
    for (_, point), has_run in zip(theirs.iterrows(), trained, strict=True):
        x, y = point["energy_uj"], point["accuracy"]
        color, marker = figures.FAMILIES[point["family"]]
        ax.scatter(x, y, 46, facecolors="white", edgecolors=color, marker=marker, linewidths=1.3, zorder=3)
        comparable = not pd.isna(point["our_uj"])
        if comparable and point["network"] in mine.index:
            same = mine.loc[point["network"]]
            ax.plot((x, same["energy_uj"]), (y, same["mean"]), color=color, lw=0.9, alpha=0.45, zorder=1)
        elif comparable and not has_run:
            ax.plot(point["our_uj"], y, "|", color="black", ms=16, mew=0.9, zorder=2)
    for name, point in mine.iterrows():
        color, marker = figures.FAMILIES[point["family"]]
        bar = None if pd.isna(point["sd"]) else point["sd"]
        look = {"color": color, "marker": marker, "ms": 12 if marker == "*" else 8, "mec": "white", "mew": 0.6}
        if name not in plain:
            look |= {"ms": 12, "mec": "black", "mew": 1.4}
        ax.errorbar(
            point["energy_uj"], point["mean"], yerr=bar, capsize=2, lw=1.1, zorder=4 + (color != figures.GREY), **look
        )
    named = theirs[[not (own and has_run) for own, has_run in zip(theirs["own"], trained, strict=True)]]
    spots = [*zip(mine["energy_uj"], mine["mean"], strict=True), *named[["energy_uj", "accuracy"]].to_numpy()]
    texts = [f"{name} ({n})" for name, n in mine["n"].items()]
    texts += [name if own else f"{name}, published" for name, own in named["own"].items()]
    edge = 1.03 * min(x for x, _ in spots)
    left = [text for text, (x, _) in zip(texts, spots, strict=True) if x < edge]
    bars = [
        (x, y + sign * sd)
        for x, y, sd in mine[["energy_uj", "mean", "sd"]].dropna().to_numpy()
        for sign in (-1, -0.5, 0.5, 1)
    ]
    figures.label_points(
        ax, *zip(*spots, strict=True), texts, [*theirs[["energy_uj", "accuracy"]].to_numpy(), *bars], left
    )


def _limits(ax: Axes, theirs: pd.DataFrame, mine: pd.DataFrame) -> None:
    """Room for all points with their bars, and for labels at the sides."""
    energies = np.concatenate([theirs["energy_uj"], mine["energy_uj"].astype(float)])
    means, bars = mine["mean"].astype(float), mine["sd"].astype(float).fillna(0)
    heights = np.concatenate([theirs["accuracy"], means - bars, means + bars])
    margin = 0.08 * (heights.max() - heights.min())
    ax.set(xscale="log", xlim=(energies.min() / 1.7, energies.max() * 1.45))
    ax.set_ylim(heights.min() - margin, heights.max() + margin)
    ticks = [tick for tick in TICKS if ax.get_xlim()[0] < tick < ax.get_xlim()[1]]
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.set_xticks([], minor=True)
    ax.set(xlabel="energy of the multiply-accumulates (µJ per classification)", ylabel="test accuracy (%)")


def saving(ax: Axes, start: tuple[float, float], to_uj: float, text: str) -> None:
    """The paper's arrow, low in the panel: from under the point ``start`` to a dashed line at a lower energy."""
    (bottom, top), (from_uj, accuracy) = ax.get_ylim(), start
    low = bottom + 0.06 * (top - bottom)
    ax.plot((from_uj, from_uj), (accuracy, low), color="black", lw=0.8, ls=":", zorder=0)
    ax.axvline(to_uj, color="black", lw=0.9, ls=(0, (5, 4)), zorder=0)
    arrow = {"arrowstyle": "-|>", "color": "black", "lw": 0.9, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", (to_uj, low), (from_uj, low), arrowprops=arrow, zorder=2)
    box = {"facecolor": "white", "edgecolor": "none", "pad": 2}
    ax.text((from_uj * to_uj) ** 0.5, low, text, ha="center", va="center", fontsize=10.5, bbox=box, zorder=3)


def key(fig: Figure, beyond: bool = False) -> None:
    """What colours and markers mean, below the panels; ``beyond``: with the points of that function."""
    marks = {name: figures.FAMILIES[name] for name in _KEY}
    handles = [Line2D([], [], ls="", color=c, marker=m, ms=8, label=_KEY[name]) for name, (c, m) in marks.items()]
    hollow = {"ls": "", "marker": "o", "ms": 7.5, "mfc": "white", "color": figures.GREY}
    edged = {"ls": "", "marker": "o", "ms": 11, "mec": "black", "mew": 1.4, "color": figures.GREY}
    handles += [
        Line2D(
            [], [], marker="o", ms=7.5, lw=1.1, color=figures.GREY, label="filled: measured here, mean ± sd (seeds)"
        ),
        Line2D([], [], label="hollow: the paper's figure", **hollow),
        *([Line2D([], [], label="black edge: trained beyond the paper", **edged)] if beyond else []),
        Line2D([], [], ls="", marker="|", ms=15, color="black", label="energy computed here"),
    ]
    fig.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
