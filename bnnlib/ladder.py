"""Which methods of training are real on these networks? Each against the same baseline, seed by seed.

A seed is the same initial weights and the same order of the images on both sides, so that differences are taken within
a seed, and their interval is Student's of those differences.
"""

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from scipy import stats

from bnnlib import figures, results, studies
from bnnlib.errors import UserError
from bnnlib.evidence import ACCURACIES, BETTER, NOT_RUN, WORSE, check_confidence, spread, verdict

# where the results of a network are that a study has no seeds of
HOMES = {
    "beyond-mnist": {"binary": "lenet-mnist", "bireal": "tuning-mnist"},
    "beyond-cifar10": {"binary": "vggnet-cifar10", "bireal": "tuning-cifar10"},
}
# what a method changes, and where it is from
METHODS = {
    "bireal": ("estimator", "ApproxSign of Bi-Real Net, arXiv 1808.00278"),
    "ede": ("estimator, annealed", "EDE of IR-Net, arXiv 1909.10788"),
    "reste": ("estimator, annealed", "ReSTE, arXiv 2308.06689"),
    "balance": ("latent weights", "IR-Net, arXiv 1909.10788"),
    "bop": ("latent weights", "Bop, arXiv 1906.02107"),
    "average": ("latent weights", "averaging, arXiv 1803.05407"),
    "distill": ("loss", "distillation, arXiv 1503.02531"),
    "smooth": ("loss", "label smoothing, arXiv 1512.00567"),
    "logit-scale": ("loss", "sharper outputs"),
    "acts-first": ("stages", "activations before weights, arXiv 1904.05868"),
    "bits": ("stages", "widths in steps, arXiv 1711.00205"),
    "linear": ("schedule", "linear decay"),
    "affine": ("images", "turned and scaled"),
    "alt-flip-crop": ("images", "alternating flip, arXiv 2404.00498"),
    "cutout": ("images", "cutout, arXiv 1708.04552"),
}


def paired(a: Mapping[int, float], b: Mapping[int, float], confidence: float = 0.95) -> tuple[int, float, float, float]:
    """Mean of a - b over the seeds that both have: n, the mean, and the ends of its interval (NaN for n < 2).

    Args:
        a, b: accuracies by seed.
        confidence: of the interval.
    """
    check_confidence(confidence)
    gains = [a[seed] - b[seed] for seed in sorted(set(a) & set(b))]
    if not gains:
        return 0, float("nan"), float("nan"), float("nan")
    mean, n = fmean(gains), len(gains)
    if n < 2 or stdev(gains) == 0:
        return n, mean, float("nan"), float("nan")
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * stdev(gains) / n**0.5
    return n, mean, mean - half, mean + half


def by_seed(study: str, protocol: str, accuracy: str) -> dict[str, dict[int, float]]:
    """Accuracies in percent of what was trained, by network and seed."""
    rows = results.load_results(study, protocol)
    column = ACCURACIES[accuracy]
    return {
        network: dict(zip(group["seed"], group[column], strict=True))
        for network, group in rows.groupby("network", sort=False)
    }


def homes_of(study: str, protocol: str) -> dict[str, str]:
    """The study that has the results of each network of a ladder."""
    planned = studies.get_protocol(study, protocol).planned_seeds(studies.get_study(study).networks)
    return {name: study if seeds else HOMES[study][name] for name, seeds in planned.items()}


def ladder(study: str, protocol: str = "short", confidence: float = 0.95) -> pd.DataFrame:
    """Every method of a study alone against ``binary`` under the same protocol.

    Returns:
        A row a method: ``changes``, ``source``, ``n`` pairs of seeds, ``gain`` in points of validation accuracy with
        ``low`` and ``high``, ``verdict``, ``test gain``, ``validation`` and ``test`` as ``spread`` writes them, and
        ``command``. The best gain is first, what was not run last.

    Raises:
        UserError: the study has no such ladder or protocol, or the baseline no result.
    """
    if study not in HOMES:
        raise UserError(f"study {study!r} has no ladder of methods; use one of {', '.join(HOMES)}")
    homes = homes_of(study, protocol)
    of = {(home, acc): by_seed(home, protocol, acc) for home in set(homes.values()) for acc in ACCURACIES}
    base = {accuracy: of[homes["binary"], accuracy].get("binary", {}) for accuracy in ACCURACIES}
    if not base["validation"]:
        home = homes["binary"]
        raise UserError(
            f"{home} has no result of binary-{protocol}; make one: bnn train {home} --name binary-{protocol}"
        )
    rows = {}
    for name in [name for name in METHODS if name in homes]:
        own = {accuracy: of[homes[name], accuracy].get(name, {}) for accuracy in ACCURACIES}
        n, *gain = paired(own["validation"], base["validation"], confidence)
        rows[name] = [
            *METHODS[name], n, *gain, verdict(*gain) if n else NOT_RUN,
            paired(own["test"], base["test"])[1], *(spread(list(v.values())) for v in own.values()),
            f"bnn train {homes[name]} --name {name}-{protocol}",
        ]  # fmt: skip
    columns = ["changes", "source", "n", "gain", "low", "high", "verdict", "test gain", *ACCURACIES, "command"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).sort_values("gain", ascending=False)


def panel(ax: Axes, rungs: pd.DataFrame) -> None:
    """Draw ``ladder``: a gain with its interval, filled if that is clear of zero, and the test gain as a stroke.

    The frame is made for the gain in the middle; a gain beyond it is written at its edge.
    """
    run = rungs[rungs["n"] > 0]
    reach = 6 * float(run["gain"].abs().median())
    places = -np.arange(len(run))
    for place, (_, row) in zip(places, run.iterrows(), strict=True):
        color = figures.GREEN if row["gain"] > 0 else figures.VERMILLION
        ends = None if np.isnan(row["low"]) else [[row["gain"] - row["low"]], [row["high"] - row["gain"]]]
        face = color if row["verdict"] in (BETTER, WORSE) else "white"
        ax.errorbar(row["gain"], place, xerr=ends, fmt="o", color=color, capsize=3, mfc=face)
        ax.plot(row["test gain"], place, "|", color="black", ms=11)
        if abs(row["gain"]) > reach:
            edge, side = (0.01, "left") if row["gain"] < 0 else (0.99, "right")
            text = f"{row['gain']:+.2f} ({row['low']:+.2f} to {row['high']:+.2f})"
            ax.text(edge, place, text, transform=ax.get_yaxis_transform(), ha=side, va="center", color=color)
    ax.axvline(0, color="black", lw=1)
    ax.set_yticks(places, [f"{name} ({row['n']})" for name, row in run.iterrows()])
    ax.set(xlim=(-reach, reach), xlabel="difference to the binary baseline (points)")
    ax.set_title(
        "One method added: validation accuracy with 95 % interval (pairs of seeds)\n"
        "filled: clear of zero; stroke: test accuracy"
    )


def files(study: str, protocol: str = "short") -> list[Path]:
    """The result files that ``ladder`` is made from."""
    own = results.result_files(study, protocol)
    for name, home in homes_of(study, protocol).items():
        if home != study:
            own += [f for f in results.result_files(home, protocol) if f.name.startswith(f"{name}-{protocol}-")]
    return own
