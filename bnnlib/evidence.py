"""Is one network better than another, or are these only other seeds? Differences of means with Welch's interval.

B. L. Welch, "The generalization of 'Student's' problem when several different population variances are involved",
Biometrika 34, 1947, doi 10.1093/biomet/34.1-2.28.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev

import pandas as pd
from scipy import stats

from bnnlib import results, studies
from bnnlib.energy import Table, energy_uj
from bnnlib.errors import UserError

ACCURACIES = {"validation": "val_accuracy", "test": "test_accuracy"}
BASELINES = {"tuning-mnist": "lenet-mnist", "tuning-cifar10": "vggnet-cifar10"}
DECISIONS = {
    "CBAP": "layer order", "identity": "estimator", "bireal": "estimator", "swish": "estimator",
    "SGD": "optimizer, loss", "hinge": "optimizer, loss", "no-clip": "latent weights", "bipolar": "latent weights",
    "PTRELU": "start", "binary-image": "image",
}  # fmt: skip
NO_SPREAD, BETTER, WORSE, NOISE, NOT_RUN = "n = 1, no spread", "better", "worse", "within the noise", "not yet run"


def difference(a: Sequence[float], b: Sequence[float], confidence: float = 0.95) -> tuple[float, float, float]:
    """Mean of ``a`` minus mean of ``b``, and the ends of its interval.

    The ends are NaN where there is no spread to judge by: one of them has fewer than two values, or none varies.

    Raises:
        UserError: ``confidence`` is not between 0 and 1.
    """
    check_confidence(confidence)
    gain = fmean(a) - fmean(b)
    if min(len(a), len(b)) < 2:
        return gain, float("nan"), float("nan")
    of_means = [stdev(x) ** 2 / len(x) for x in (a, b)]
    if sum(of_means) == 0:
        return gain, float("nan"), float("nan")
    freedom = sum(of_means) ** 2 / sum(v**2 / (len(x) - 1) for v, x in zip(of_means, (a, b), strict=True))
    half = float(stats.t.ppf((1 + confidence) / 2, freedom)) * sum(of_means) ** 0.5
    return gain, gain - half, gain + half


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
    """A row a network, held against the baseline: ``n``, ``gain`` in points, ``low``, ``high`` and ``verdict``.

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


def decision(network: str) -> str:
    """The decision that a network of a tuning study is about, for example ``latent weights`` of ``bipolar-1e-5``."""
    return DECISIONS.get(network) or DECISIONS[network.split("-")[0]]


def decisions(study: str = "tuning-mnist", protocol: str = "short", table: Table | str = "icmla2020") -> pd.DataFrame:
    """Every network of a tuning study against the all-binary network it differs from in one decision.

    Returns:
        A row a network of the study, trained or not: its ``decision``, the columns of ``against`` for the validation
        images, ``validation`` and ``test`` as ``spread`` writes them, ``extra_uj`` (energy above the baseline's) and
        ``command``, which makes it. The first row, ``binary``, is the baseline; then decision
        by decision, in the order of ``DECISIONS``.

    Raises:
        UserError: the study has no baseline, or the baseline no result.
    """
    if study not in BASELINES:
        raise UserError(f"study {study!r} tunes no network; use one of {', '.join(BASELINES)}")
    base = studies.runs(BASELINES[study], "binary", protocol)[0]
    models = {run.name.removesuffix(f"-{protocol}"): run.model for run in studies.runs(study, protocol=protocol)}
    own, capacity = (results.load_results(name, protocol) for name in (study, base.study))
    seeds = {
        accuracy: {"binary": by_network(capacity, accuracy).get("binary", ())} | by_network(own, accuracy)
        for accuracy in ACCURACIES
    }
    if not seeds["validation"]["binary"]:
        raise UserError(f"{base.study} has no result of {base.name}; make one: {results.train_command(base)}")
    networks = ["binary", *models]
    rows = against({name: seeds["validation"].get(name, ()) for name in networks}, seeds["validation"]["binary"])
    rows.loc["binary", ["gain", "low", "high", "verdict"]] = [float("nan")] * 3 + ["baseline"]
    rows.insert(0, "decision", ["", *(decision(name) for name in models)])
    for accuracy, values in seeds.items():
        rows[accuracy] = [spread(values.get(name, ())) for name in networks]
    rows["extra_uj"] = [
        energy_uj(model, table) - energy_uj(base.model, table) for model in [base.model, *models.values()]
    ]
    rows["command"] = [f"bnn train {base.study if n == 'binary' else study} --name {n}-{protocol}" for n in networks]
    order = ["", *dict.fromkeys(DECISIONS.values())]
    return rows.sort_values("decision", key=lambda column: column.map(order.index), kind="stable")
