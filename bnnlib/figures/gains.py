"""The panel of what methods of training gain, each against the same baseline."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from bnnlib.analysis.intervals import BETTER, WORSE
from bnnlib.figures.palette import GREEN, VERMILLION


def panel(ax: Axes, rungs: pd.DataFrame) -> None:
    """Draw what ``ladder`` found: a gain with its interval, filled if clear of zero; the test gain is a stroke.

    The frame is made for the gain in the middle; a gain beyond it is written at its edge, over its interval.
    """
    run = rungs[rungs["n"] > 0]
    reach = 6 * float(run["gain"].abs().median())
    places = -np.arange(len(run))
    for place, (_, row) in zip(places, run.iterrows(), strict=True):
        color = GREEN if row["gain"] > 0 else VERMILLION
        ends = None if np.isnan(row["low"]) else [[row["gain"] - row["low"]], [row["high"] - row["gain"]]]
        face = color if row["verdict"] in (BETTER, WORSE) else "white"
        ax.errorbar(row["gain"], place, xerr=ends, fmt="o", color=color, capsize=3, mfc=face)
        ax.plot(row["test gain"], place, "|", color="black", ms=11)
        if abs(row["gain"]) > reach:
            edge, side = (0.01, "left") if row["gain"] < 0 else (0.99, "right")
            text = f"{row['gain']:+.2f} ({row['low']:+.2f} to {row['high']:+.2f})"
            ax.text(edge, place + 0.32, text, transform=ax.get_yaxis_transform(), ha=side, va="center", color=color)
    ax.axvline(0, color="black", lw=1)
    ax.set_yticks(places, [f"{name} ({row['n']})" for name, row in run.iterrows()])
    ax.set(xlim=(-reach, reach), xlabel="difference to the binary baseline (points)")
    ax.set_title(
        "One method added: validation accuracy with 95 % interval (pairs of seeds)\n"
        "filled: clear of zero; stroke: test accuracy"
    )
