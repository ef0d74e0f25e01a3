"""Is one network better than another, or are these only other seeds? Differences of means with their intervals.

B. L. Welch, "The generalization of 'Student's' problem when several different population variances are involved",
Biometrika 34, 1947, doi 10.1093/biomet/34.1-2.28.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, stdev

import pandas as pd
from scipy import stats

from bnnlib.errors import UserError

ACCURACIES = {"validation": "val_accuracy", "test": "test_accuracy"}
NO_SPREAD, BETTER, WORSE, NOISE, NOT_RUN = "n = 1, no spread", "better", "worse", "within the noise", "not yet run"


def difference(a: Sequence[float], b: Sequence[float], confidence: float = 0.95) -> tuple[float, float, float]:
    """Mean of ``a`` minus mean of ``b``, and the ends of its interval.

    The ends are NaN where there is no spread to judge by: one of them has fewer than two values, or none varies.

    Raises:
        UserError: ``confidence`` is not between 0 and 1.
    """
    check_confidence(confidence)
    gain = fmean(a) - fmean(b)
    if min(len(a), len(b)) < 2 or len(set(a)) == len(set(b)) == 1:
        return gain, float("nan"), float("nan")
    return gain, *_ends(lambda: stats.ttest_ind(a, b, equal_var=False), confidence)


def paired(a: Mapping[int, float], b: Mapping[int, float], confidence: float = 0.95) -> tuple[int, float, float, float]:
    """Mean of a - b over the seeds that both have: n, the mean, and the ends of its interval (NaN for n < 2).

    Args:
        a, b: accuracies by seed.
        confidence: of the interval.
    """
    check_confidence(confidence)
    gains = [round(a[seed] - b[seed], 9) for seed in sorted(set(a) & set(b))]
    if not gains:
        return 0, float("nan"), float("nan"), float("nan")
    n = len(gains)
    if len(set(gains)) == 1:
        return n, gains[0], float("nan"), float("nan")
    return n, fmean(gains), *_ends(lambda: stats.ttest_1samp(gains, 0), confidence)


def _ends(test: Callable, confidence: float) -> tuple[float, float]:
    """The ends of the interval of a test of scipy, which warns where one side does not vary."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        interval = test().confidence_interval(confidence)
    return float(interval.low), float(interval.high)


def check_confidence(confidence: float) -> None:
    """Raise UserError unless it lies between 0 and 1."""
    if not 0 < confidence < 1:
        raise UserError(f"confidence {confidence!r} is not possible; use a number between 0 and 1, such as 0.95")


def verdict(gain: float, low: float, high: float) -> str:
    """What an interval says: ``BETTER`` or ``WORSE`` if it is clear of zero, else ``NOISE``; ``NO_SPREAD`` without."""
    if low != low:
        return NO_SPREAD
    return BETTER if low > 0 else WORSE if high < 0 else NOISE


def spread(values: Sequence[float]) -> str:
    """``99.28 ± 0.06 (5)``: mean, standard deviation (n - 1) and number of seeds."""
    if not len(values):
        return NOT_RUN
    return f"{fmean(values):.2f} ± " + (f"{stdev(values):.2f}" if len(values) > 1 else "?") + f" ({len(values)})"


def by_network(rows: pd.DataFrame, accuracy: str = "validation") -> dict[str, tuple[float, ...]]:
    """The accuracies of the seeds of each network, in percent, of what ``results.load_results`` gave."""
    column = _column(accuracy)
    return {network: tuple(group[column]) for network, group in rows.groupby("network", sort=False)}


def _column(accuracy: str) -> str:
    if accuracy not in ACCURACIES:
        raise UserError(f"accuracy {accuracy!r} is unknown; use one of {', '.join(ACCURACIES)}")
    return ACCURACIES[accuracy]


def against(
    accuracies: Mapping[str, Sequence[float]], baseline: Sequence[float], confidence: float = 0.95
) -> pd.DataFrame:
    """A row per network, held against the baseline: ``n``, ``gain`` in points, ``low``, ``high`` and ``verdict``.

    A network without accuracies is a row with n = 0 and the verdict ``NOT_RUN``.
    """
    rows = {}
    for network, values in accuracies.items():
        if len(values):
            found = difference(values, baseline, confidence)
            rows[network] = [len(values), *found, verdict(*found)]
        else:
            rows[network] = [0, *[float("nan")] * 3, NOT_RUN]
    return pd.DataFrame.from_dict(rows, orient="index", columns=["n", "gain", "low", "high", "verdict"])
