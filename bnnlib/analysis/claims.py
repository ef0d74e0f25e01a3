"""The paper's claims against what was measured here: ``data/claims.csv``, and a verdict for each of its rows.

Nothing here is filled in by hand. What is ours comes from the result files and the energy tables, each time anew:

============  ==================================================  =====================================
kind          ours                                                ``network`` of the table
============  ==================================================  =====================================
``accuracy``  mean test accuracy of the seeds                     ``L1T``
``curve``     mean validation accuracy of the protocol's epochs   ``binary``
``gap``       difference of two mean test accuracies              ``float - binary``
``energy``    microjoules, table ``icmla2020``                    ``L1T``
``ratio``     ratio of two energies                               ``float / binary``
``rank``      kind of the network that leads ``ranking``          none: all of the study
============  ==================================================  =====================================

Where the paper does not say which network a point is, ``network`` lists the candidates: ``L1FP or L1NFP``. A ratio
and a gap of one group are said of one network, so both are judged for the same candidate: the one whose worse of the
two deviations, as a share of its tolerance, is smaller.

The accuracies of this project come from its own protocols (``PROTOCOLS``), of 8 epochs on MNIST and 16 on CIFAR-10
where the paper trains for 500; so a miss says that a network trained here differs from the paper's number, be it for
the network or for the training. Only ``curve`` is trained exactly as the paper trains.

Verdicts:

- *holds*: ours is no further from the paper's number than the tolerance; of several candidates one suffices, and the
  detail says what becomes of each.
- *misses*: it is further away; the detail says in which direction and by how much.
- *undecided*: ours lies within the tolerance, but seeds are so few that the tolerance is wider than ``MARGINS``, or
  there is no second seed of any network, and so no tolerance at all; the detail says how far off ours is.
- *not comparable*: the paper's number belongs to another network, as the column ``not_comparable`` says.
- *not yet run at full size*: no result of that protocol yet. A protocol that narrows the networks (``reduced``)
  answers no claim.

Tolerances. An energy or a ratio has no spread: the tolerance is ``reading_error``, which the table justifies. Whether
an accuracy of the paper is one training, a mean or the best of 5 is not known (the best of 5 lies 1.2 standard
deviations over the mean, on average), so it is taken for one more training: the tolerance is ``reading_error`` plus
half the 95 % prediction interval, t s sqrt(1 + 1/n) for n seeds of ours. s is the standard deviation of a seed,
pooled over all networks of the data set with that protocol, since three seeds of one network give no usable estimate
of their own; t is Student's, with the degrees of freedom of s. A gap has both networks under the root.
"""

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import pandas as pd
from scipy import stats

from bnnlib import studies
from bnnlib.analysis.claims_table import OF_ENERGY, OPERATORS, STUDIES, network_uj, networks_of, read
from bnnlib.studies import results

PROTOCOLS = {"mnist": "short", "cifar10": "sitting"}  # under which most networks of full size are trained here
# points within which two accuracies count as equal, of a data set on which the paper's own networks span 0.5 and 4.8
MARGINS = {"mnist": 0.2, "cifar10": 1.0}
MEASURES = {  # of a result, by kind
    "accuracy": lambda result: result["test_accuracy"],
    "gap": lambda result: result["test_accuracy"],
    "rank": lambda result: result["test_accuracy"],
    "curve": lambda result: statistics.fmean(result["history"]["val_accuracy"]),
}
HOLDS, MISSES, UNDECIDED = "holds", "misses", "undecided"
NOT_COMPARABLE, NOT_RUN = "not comparable", "not yet run at full size"

Seeds = dict[str, list[float]]  # of each network that has results: its measure, seed by seed


def load_seeds(dataset: str, protocol: str, kind: str = "accuracy") -> Seeds:
    """What the finished runs of a data set measured, by network, a number per seed (percent).

    Args:
        dataset: ``mnist`` or ``cifar10``.
        protocol: for example ``short``.
        kind: ``accuracy`` (test) or ``curve`` (validation, mean over the epochs).
    """
    found: Seeds = {}
    for study in STUDIES[dataset]:
        for run in studies.runs(study, protocol=protocol) if protocol in studies.STUDIES[study].protocols else []:
            result = results.load_result(run)
            if result is not None:
                found.setdefault(run.network, []).append(MEASURES[kind](result))
    return found


def spread(seeds: Seeds) -> tuple[float, int]:
    """Standard deviation of a seed, pooled over the networks, and its degrees of freedom (0: nothing is known)."""
    several = [values for values in seeds.values() if len(values) > 1]
    freedom = sum(len(values) - 1 for values in several)
    squares = sum(statistics.variance(values) * (len(values) - 1) for values in several)
    return (math.sqrt(squares / freedom), freedom) if freedom else (math.nan, 0)


@dataclass(frozen=True)
class Measured:
    """One candidate of a claim, measured: ours, the spread of the seeds, how many, and how far off still holds.

    Without any spread, ``tolerance`` is infinite: nothing could miss.
    """

    network: str
    ours: float
    tolerance: float
    sd: float | None = None
    n: int | None = None


def _measure(row: dict, candidate: str, load: Callable[[str, str, str], Seeds]) -> Measured | None:
    """Measure a candidate, or None if a result is missing."""
    names, error = candidate.split(OPERATORS.get(row["kind"], " or ")), float(row["reading_error"])
    if row["kind"] in OF_ENERGY:
        energies = [network_uj(row["dataset"], name) for name in names]
        return Measured(candidate, energies[0] / energies[1] if len(names) > 1 else energies[0], error)
    seeds = load(row["dataset"], row["protocol"], row["kind"])
    if any(name not in seeds for name in names):
        return None
    groups, interval = [seeds[name] for name in names], math.inf
    means = [statistics.fmean(values) for values in groups]
    sd, freedom = spread(seeds)
    if freedom:
        interval = stats.t.ppf(0.975, freedom) * sd * math.sqrt(sum(1 + 1 / len(values) for values in groups))
    own = [statistics.variance(values) for values in groups if len(values) > 1]
    own_sd = math.sqrt(sum(own)) if len(own) == len(groups) else None
    ours = means[0] - means[1] if len(names) > 1 else means[0]
    return Measured(candidate, ours, error + interval, own_sd, min(map(len, groups)))


def judge(claims: pd.DataFrame | None = None) -> pd.DataFrame:
    """Every claim with what was measured here and its verdict.

    Args:
        claims: rows of the ledger; default all of them.

    Returns:
        The rows with ``measured`` (which candidate: the nearest), ``ours``, ``sd`` (of a seed of this network), ``n``
        (seeds, the fewer of two networks), ``difference`` (ours less the paper's), ``tolerance``, ``verdict`` and
        ``detail``.
    """
    claims, load = read() if claims is None else claims, cache(load_seeds)
    rows = claims.to_dict("records")
    shared = _shared_candidates(rows, load)
    return pd.DataFrame([row | _judged(row | {"network": shared.get(row["id"], row["network"])}, load) for row in rows])


def _judged(row: dict, load: Callable[[str, str, str], Seeds]) -> dict:
    return _judge_rank(row, load) if row["kind"] == "rank" else _judge(row, load)


def _shared_candidates(rows: list[dict], load: Callable[[str, str, str], Seeds]) -> dict[str, str]:
    """The candidate of each claim, by id, of groups in which several claims are about one and the same network."""
    groups: dict[tuple[str, str, int], list[dict]] = {}
    for row in rows:
        if row["kind"] in OPERATORS and " or " in row["network"]:
            groups.setdefault((row["dataset"], row["group"], row["network"].count(" or ")), []).append(row)
    chosen = {}
    for members in groups.values():
        if len(members) < 2:
            continue
        candidates = [row["network"].split(" or ") for row in members]
        worst = []
        for same in zip(*candidates, strict=True):
            measured = [_measure(row, name, load) for row, name in zip(members, same, strict=True)]
            if None not in measured:
                off = [abs(m.ours - float(row["paper_value"])) for m, row in zip(measured, members, strict=True)]
                shares = [d / max(m.tolerance, 1e-9) for d, m in zip(off, measured, strict=True)]  # it may be 0
                worst.append((max(shares), same))
        if worst:
            best = min(worst)[1]
            chosen |= {row["id"]: name for row, name in zip(members, best, strict=True)}
    return chosen


def _answer(verdict: str, detail: str = "", measured: Measured | None = None, difference: float | None = None) -> dict:
    values = measured or Measured("", math.nan, math.nan)
    return {
        "measured": values.network, "ours": None if measured is None else values.ours, "sd": values.sd, "n": values.n,
        "difference": difference, "tolerance": values.tolerance if math.isfinite(values.tolerance) else None,
        "verdict": verdict, "detail": detail,
    }  # fmt: skip


def _judge(row: dict, load: Callable[[str, str, str], Seeds]) -> dict:
    candidates, paper = row["network"].split(" or "), float(row["paper_value"])
    measured = {name: _measure(row, name, load) for name in candidates}
    off = {name: m.ours - paper for name, m in measured.items() if m}
    nearest = min(off, key=lambda name: abs(off[name]), default=None)
    shown = (measured.get(nearest), off.get(nearest))
    if row["not_comparable"]:
        return _answer(NOT_COMPARABLE, row["not_comparable"], *shown)
    if nearest is None:
        return _answer(NOT_RUN, f"no result yet: {', '.join(_needs(candidates, row['kind']))}")
    verdicts = {name: _compare(off[name], measured[name].tolerance, row) for name in off}
    verdict = next(word for word in (HOLDS, UNDECIDED, MISSES) if word in verdicts.values())
    said = []
    for name in candidates:
        if name not in off:
            text = "not yet run"
        elif verdicts[name] == HOLDS:
            text = "agrees" if len(candidates) > 1 else ""
        else:
            text = off_by(off[name], row["kind"])
            if verdicts[name] == UNDECIDED:
                text += f", {_why_undecided(measured[name].tolerance)}"
        said.append(f"as {name}: {text}" if len(candidates) > 1 else text)
    return _answer(verdict, "; ".join(said), *shown)


def _compare(difference: float, tolerance: float, row: dict) -> str:
    """The verdict on one candidate."""
    if abs(difference) > tolerance + 1e-9:  # 1e-9: binary fractions
        return MISSES
    return UNDECIDED if row["kind"] in MEASURES and tolerance > MARGINS[row["dataset"]] else HOLDS


def _why_undecided(tolerance: float) -> str:
    return f"within {tolerance:.2f}" if math.isfinite(tolerance) else "and no network has a second seed"


def _needs(candidates: list[str], kind: str) -> list[str]:
    return list(dict.fromkeys(name for c in candidates for name in c.split(OPERATORS.get(kind, " or "))))


def off_by(difference: float, kind: str) -> str:
    """``higher here by 0.12 points``, for example."""
    sizes = {"energy": f"{abs(difference):.2g} uJ", "ratio": f"{abs(difference):.2g}"}
    size = sizes.get(kind, f"{abs(difference):.2f} points")
    return f"{'higher' if difference > 0 else 'lower'} here by {size}"


def kind_of(network: str, dataset: str) -> str:
    """``layer-wise ternary`` (ternary operands, but not all), ``all ternary``, or the family of the paper's figure."""
    model = networks_of(dataset)[network]
    family = studies.family(model)
    if family != "ternary":
        return family
    return "all ternary" if set(model.weights + model.acts) == {"t"} else "layer-wise ternary"


def ranking(dataset: str, protocol: str | None = None, load: Callable = load_seeds) -> pd.DataFrame:
    """What each of the paper's augmentations gains over the binary network for the energy that it adds.

    Sorted by ``points_per_uj``, those whose gain is ``shown`` first: its interval (pooled spread; 95 % for all networks
    together, after Bonferroni, because the best of many is looked for) lies above zero. Without that condition a change
    that costs nearly nothing would lead by chance.

    Args:
        dataset: ``mnist`` or ``cifar10``.
        protocol: default that of ``PROTOCOLS``.
        load: ``load_seeds``.

    Returns:
        Index ``network``; ``kind``, ``n``, ``gain`` and ``low`` (points), ``more_uj``, ``points_per_uj``, ``shown``.
        Empty without a binary network, or where no network has two seeds.
    """
    seeds = load(dataset, protocol or PROTOCOLS[dataset], "accuracy")
    own = studies.STUDIES[STUDIES[dataset][0]].networks
    names = [name for name in own if name in seeds and name not in ("float", "binary")]
    sd, freedom = spread(seeds)
    rows = {}
    for name in names if "binary" in seeds and freedom else []:
        gain = statistics.fmean(seeds[name]) - statistics.fmean(seeds["binary"])
        error = sd * math.sqrt(1 / len(seeds[name]) + 1 / len(seeds["binary"]))
        low = gain - stats.t.ppf(1 - 0.025 / len(names), freedom) * error
        more = network_uj(dataset, name) - network_uj(dataset, "binary")
        rows[name] = [kind_of(name, dataset), len(seeds[name]), gain, low, more, gain / more, low > 0]
    columns = ["kind", "n", "gain", "low", "more_uj", "points_per_uj", "shown"]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("network")
    return table.sort_values(["shown", "points_per_uj"], ascending=False)


def _nj(uj: float) -> str:
    return f"{1000 * uj:.2g} nJ" if uj < 0.01 else f"{1000 * uj:,.0f} nJ"


def _judge_rank(row: dict, load: Callable[[str, str, str], Seeds]) -> dict:
    """Who leads the ranking; it needs a network of every family, else the winner would be who was trained first."""
    table = ranking(row["dataset"], row["protocol"], load)
    if not {"layer-wise ternary", "first/last", "width"} <= set(table["kind"]):
        return _answer(NOT_RUN, "a ranking needs binary, ternary, first/last and wider networks")
    best, lead = table.index[0], table.iloc[0]
    if not lead["shown"]:
        return _answer(MISSES, "no gain over the binary network has been shown")
    said = f"{best} gains {lead['gain']:.2f} points for {_nj(lead['more_uj'])}"
    others = table[table["shown"] & (table["kind"] != lead["kind"])]
    for name, other in others.iloc[:1].iterrows():
        said += f"; the best other, {name} ({other['kind']}), {other['gain']:.2f} for {_nj(other['more_uj'])}"
    later = [name for name, other in table.iterrows() if other["points_per_uj"] > lead["points_per_uj"]]
    said += f"; more for their energy, but not shown: {', '.join(later)}" if later else ""
    answer = _answer(HOLDS if lead["kind"] == row["paper_value"] else MISSES, said)
    return answer | {"measured": best, "ours": lead["kind"], "n": int(lead["n"])}
