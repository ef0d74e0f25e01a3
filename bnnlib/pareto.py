"""The paper's result figure with our measurements in it: a panel of accuracy over energy.

Theirs are hollow, ours are filled with the standard deviation of the seeds as a bar; colours are families, grey is the
work of others. A thin line joins the two points of one network. A network that has not been trained here at full size
has an upright stroke at the energy that we compute, through the paper's point.
"""

import statistics

import pandas as pd
from matplotlib.axes import Axes

from bnnlib import claims, figures, studies

OURS = ["energy_uj", "mean", "sd", "n", "family"]
PAPER = ["network", "own", "energy_uj", "accuracy", "family", "our_uj"]


def family(network: str) -> str:
    """Family in ``figures.FAMILIES`` of a network of the studies, the comparators among them."""
    name = {"BC": "BC/BWN"}.get(network, network.partition("-1-")[0])  # DoReFa-1-2 is of the family DoReFa
    return name if name in figures.FAMILIES and name not in ("float", "binary") else studies.family(network)


def ours(dataset: str, protocol: str = "short") -> pd.DataFrame:
    """What was measured here: index ``network``, columns ``OURS``; percent, and NaN for the sd of a single seed."""
    rows = {
        name: [
            claims.network_uj(dataset, name),
            statistics.fmean(values),
            statistics.stdev(values) if len(values) > 1 else float("nan"),
            len(values),
            family(name),
        ]
        for name, values in claims.load_seeds(dataset, protocol).items()
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=OURS).rename_axis("network").sort_values("energy_uj")


def papers(dataset: str, ledger: pd.DataFrame) -> pd.DataFrame:
    """The plotted points of a panel, out of the ledger: index ``label`` (as in the figure), columns ``PAPER``.

    ``network`` has the candidates for the point; ``our_uj`` is the energy of the first of them.
    """
    rows = ledger[(ledger["dataset"] == dataset) & ledger["group"].str.match("Energies of|Accuracies of")]
    value = rows.set_index("id")["paper_value"].astype(float)
    found = []
    for row in rows[rows["kind"] == "accuracy"].to_dict("records"):
        label, own, first = row["claim"].split(" has ")[0], "own networks" in row["group"], row["network"].split(" or ")[0]
        energy = value[row["id"].removesuffix("accuracy") + "energy"]
        look = family(first) if own else label
        our_uj = claims.network_uj(dataset, first)
        found.append([label, row["network"], own, energy, value[row["id"]], look, our_uj])
    return pd.DataFrame(found, columns=["label", *PAPER]).set_index("label")


def panel(ax: Axes, theirs: pd.DataFrame, mine: pd.DataFrame) -> None:
    """Draw both, with labels, on a logarithmic energy axis; set the limits of the axes first.

    Args:
        ax: where; its limits decide where labels have room.
        theirs: of ``papers``.
        mine: of ``ours``; may be empty.
    """
    ax.set_xscale("log")
    hollow = {"facecolors": "white", "s": 42, "linewidths": 1.3, "zorder": 3}
    for label, point in theirs.iterrows():
        color, marker = figures.FAMILIES[point["family"]]
        ax.scatter(point["energy_uj"], point["accuracy"], marker=marker, edgecolors=color, **hollow)
        if point["network"] in mine.index and point["own"] | (label == point["network"]):
            other = mine.loc[point["network"]]
            ends = [point["energy_uj"], other["energy_uj"]], [point["accuracy"], other["mean"]]
            ax.plot(*ends, color=color, lw=0.9, alpha=0.45, zorder=1)
        elif not set(point["network"].split(" or ")) & set(mine.index):
            ax.plot(point["our_uj"], point["accuracy"], "|", color="black", ms=15, mew=0.9, zorder=2)
    for _, point in mine.iterrows():
        color, marker = figures.FAMILIES[point["family"]]
        bar = None if pd.isna(point["sd"]) else point["sd"]
        style = {"capsize": 2, "lw": 1.1, "ms": 7.5, "mec": "white", "mew": 0.6, "zorder": 4}
        ax.errorbar(point["energy_uj"], point["mean"], yerr=bar, color=color, marker=marker, **style)
    texts = [f"{name} ({point['n']})" for name, point in mine.iterrows()]
    named = theirs[[not own or not set(n.split(" or ")) & set(mine.index) for n, own in zip(theirs["network"], theirs["own"])]]
    texts += [name if theirs.loc[[name], "own"].all() else f"{name}, published" for name in named.index]
    spots = [*zip(mine["energy_uj"], mine["mean"]), *zip(named["energy_uj"], named["accuracy"])]
    figures.label_points(ax, *zip(*spots), texts, theirs[["energy_uj", "accuracy"]].to_numpy())
