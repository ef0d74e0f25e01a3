"""Which network for so many microjoules? Steps by marginal accuracy an energy, along networks that were measured.

From the all-binary network the walk goes to the measured network that gains most points per microjoule over the present
one, as long as its gain is clear of zero by Welch's interval and it fits the budget. Networks that another one beats at
no higher cost are no steps. So a larger budget never ends at a less accurate network: what the walk may step on is
ordered by energy and by accuracy alike.

The validation images decide, as they decide the epoch; the test accuracy of the outcome then is no part of the choice.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from bnnlib.analysis.intervals import BETTER, against
from bnnlib.errors import UserError
from bnnlib.specs import ModelSpec

START = "binary"
STEP, OPEN, OVER = "the step", "a gain, dearer a point", "over the budget"


@dataclass(frozen=True)
class Measured:
    """A trained network: its spec, its microjoules per classification, and its accuracies in percent, one per seed."""

    model: ModelSpec
    energy_uj: float
    validation: tuple[float, ...]
    test: tuple[float, ...]


@dataclass(frozen=True)
class Step:
    """One decision of the walk.

    Args:
        current: the network it starts from.
        candidates: those that cost at least as much, a row each: ``energy_uj``, ``extra_uj``, ``n``, ``gain``, ``low``,
            ``high``, ``points_per_uj``, ``verdict``.
        chosen: the next network, or None: the walk ends.
    """

    current: str
    candidates: pd.DataFrame
    chosen: str | None


def walk(
    networks: Mapping[str, Measured], budget_uj: float, by: str = "validation", confidence: float = 0.95,
    together: bool = False,
) -> list[Step]:  # fmt: skip
    """The steps within a budget; the last one chooses nothing and its ``current`` is the recommended network.

    Args:
        networks: by name, ``START`` among them.
        budget_uj: microjoules per classification.
        by: the accuracy that decides, ``validation`` or ``test``.
        confidence: of the intervals.
        together: let ``confidence`` hold for all compared networks at once (Bonferroni), not for each.

    Raises:
        UserError: the budget is no number of microjoules, or below what ``START`` needs.
    """
    least = networks[START].energy_uj
    if not 0 < budget_uj < math.inf:
        raise UserError(f"budget {budget_uj!r} uJ is not possible; use a positive number, at least {round_up(least)}")
    if budget_uj < least:
        raise UserError(f"budget {budget_uj:g} uJ is too small; the all-binary network needs {round_up(least)} uJ")
    confidence = joint(networks, confidence) if together else confidence
    accuracy = {name: getattr(network, by) for name, network in networks.items()}
    dominated = _dominated(networks, accuracy, confidence)
    steps, current = [], START
    while current is not None:
        rows = _candidates(networks, accuracy, current, confidence)
        for name in rows.index:
            if rows.loc[name, "energy_uj"] > budget_uj:
                rows.loc[name, "verdict"] = OVER
            elif rows.loc[name, "verdict"] == BETTER:
                rows.loc[name, "verdict"] = f"dominated by {dominated[name]}" if name in dominated else OPEN
        left = rows[rows["verdict"] == OPEN].sort_values(["points_per_uj", "gain"], ascending=False)
        chosen = left.index[0] if len(left) else None
        if chosen is not None:
            rows.loc[chosen, "verdict"] = STEP
        steps.append(Step(current, rows, chosen))
        current = chosen
    return steps


def joint(networks: Mapping[str, Measured], confidence: float = 0.95) -> float:
    """The confidence that each interval needs so that ``confidence`` holds for all at once (Bonferroni)."""
    compared = sum(len(network.test) > 1 for name, network in networks.items() if name != START)
    return 1 - (1 - confidence) / max(compared, 1)


def _candidates(
    networks: Mapping[str, Measured], accuracy: Mapping[str, tuple], current: str, confidence: float
) -> pd.DataFrame:
    """What costs at least as much as the present network, held against it."""
    energy = pd.Series({name: network.energy_uj for name, network in networks.items()}, dtype=float).drop(current)
    energy = energy[energy >= networks[current].energy_uj].sort_values()
    rows = against({name: accuracy[name] for name in energy.index}, accuracy[current], confidence)
    rows.insert(0, "energy_uj", energy)
    rows.insert(1, "extra_uj", energy - networks[current].energy_uj)
    with_price = [
        g / e if e else math.copysign(math.inf, g) for g, e in zip(rows["gain"], rows["extra_uj"], strict=True)
    ]
    rows.insert(len(rows.columns) - 1, "points_per_uj", with_price)
    return rows


def _dominated(networks: Mapping[str, Measured], accuracy: Mapping[str, tuple], confidence: float) -> dict[str, str]:
    """By which network each is beaten: one no dearer, no worse in the mean, and itself shown to gain over ``START``."""
    rows = _candidates(networks, accuracy, START, confidence)
    shown = rows[rows["verdict"] == BETTER].sort_values(["energy_uj", "gain"], ascending=[True, False])
    beaten = {}
    for name, row in rows.iterrows():
        better = shown[(shown["energy_uj"] <= row["energy_uj"]) & (shown["gain"] >= row["gain"])]
        better = better[(better["energy_uj"] < row["energy_uj"]) | (better["gain"] > row["gain"])]
        if len(better):
            beaten[name] = better.index[0]
    return beaten


def round_up(uj: float) -> float:
    """Microjoules with four digits, never less than ``uj``: a budget that is enough."""
    scale = 10.0 ** (4 - math.ceil(math.log10(uj)))
    whole = math.ceil(uj * scale)
    return whole / scale if whole / scale >= uj else (whole + 1) / scale
