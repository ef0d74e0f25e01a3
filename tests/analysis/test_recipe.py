"""The walk of the recipe on made-up networks: what it may never do, and an oracle that tries every candidate."""

import math
from itertools import pairwise
from statistics import fmean

import pytest
from helpers import welch
from hypothesis import given
from hypothesis import strategies as st

from bnnlib.analysis import intervals
from bnnlib.analysis.recipe import OVER, START, STEP, Measured, joint, round_up, walk
from bnnlib.specs import ModelSpec

BINARY = ModelSpec("lenet5", "bbbb", "bbb")


@st.composite
def tables(draw):
    """Up to eight networks beside the binary one; energies and accuracies collide often."""
    networks = {}
    for i in range(draw(st.integers(1, 9))):
        name = f"n{i}" if i else START
        energy = 1.0 if i == 0 else draw(st.integers(2, 40)) / 2
        middle = draw(st.integers(0, 8)) / 10
        # different in every seed and network: the oracle's scipy refuses samples without spread
        noise = [draw(st.integers(1, 12)) / 100 * (-1) ** k + 1e-4 * (k + i) for k in range(draw(st.integers(1, 4)))]
        values = tuple(99 + middle + e for e in noise)
        networks[name] = Measured(BINARY, energy, values, values[::-1])
    return networks


budgets = st.floats(1.0, 25.0)


def mean(networks, name):
    return fmean(networks[name].validation)


def outcome(networks, budget, **options):
    return walk(networks, budget, **options)[-1].current


@given(tables(), budgets, st.booleans())
def test_never_over_the_budget_and_each_step_gains(networks, budget, together):
    steps = walk(networks, budget, together=together)
    path = [step.current for step in steps]
    assert path[0] == START and steps[-1].chosen is None and [s.chosen for s in steps[:-1]] == path[1:]
    assert all(networks[name].energy_uj <= budget for name in path)
    for a, b in pairwise(path):
        assert networks[b].energy_uj >= networks[a].energy_uj and mean(networks, b) > mean(networks, a)
        assert len(networks[b].validation) > 1
    for step in steps:
        assert (step.candidates.loc[step.candidates["energy_uj"] > budget, "verdict"] == OVER).all()
        assert (step.candidates["verdict"] == STEP).sum() == (step.chosen is not None)


@given(tables(), budgets, budgets, st.booleans())
def test_a_larger_budget_is_never_worse(networks, one, other, together):
    small, large = sorted((one, other))
    a, b = (outcome(networks, budget, together=together) for budget in (small, large))
    assert mean(networks, a) <= mean(networks, b) and networks[a].energy_uj <= networks[b].energy_uj


def shown(networks, a, b, confidence=0.95):
    """Whether Welch's interval of a - b is above zero."""
    values = networks[a].validation, networks[b].validation
    return min(map(len, values)) > 1 and welch(*values, confidence)[0] > 0


@given(tables(), budgets)
def test_a_dominated_network_is_never_recommended(networks, budget):
    name = outcome(networks, budget)
    for other in networks:
        cheaper = networks[other].energy_uj <= networks[name].energy_uj
        better = mean(networks, other) > mean(networks, name)
        assert not (cheaper and better and shown(networks, other, START))


def oracle(networks, budget):
    """The greedy walk again, by trying all: candidates are the undominated networks shown to gain over the start."""
    energy = {name: network.energy_uj for name, network in networks.items()}
    good = [
        name for name in networks if name != START and energy[name] >= energy[START] and shown(networks, name, START)
    ]
    front = [
        a
        for a in good
        if not any(
            energy[b] <= energy[a]
            and mean(networks, b) >= mean(networks, a)
            and (energy[b], mean(networks, b)) != (energy[a], mean(networks, a))
            for b in good
        )
    ]
    path = [START]
    while True:
        now = path[-1]
        gain = {name: mean(networks, name) - mean(networks, now) for name in front}
        extra = {name: energy[name] - energy[now] for name in front}
        steps = {
            name: (gain[name] / extra[name] if extra[name] else math.inf, gain[name])
            for name in front
            if extra[name] >= 0 and energy[name] <= budget and shown(networks, name, now)
        }
        if not steps:
            return path
        path.append(max(steps, key=steps.get))


@given(tables(), budgets)
def test_the_walk_is_that_of_an_oracle(networks, budget):
    path = [step.current for step in walk(networks, budget)]
    # of two networks that are equal in energy and accuracy either may be taken
    seen = [(networks[name].energy_uj, round(mean(networks, name), 9)) for name in path]
    assert seen == [(networks[name].energy_uj, round(mean(networks, name), 9)) for name in oracle(networks, budget)]


def made(**networks):
    """name=(energy, middle accuracy, seeds): the seeds lie 0.01 around the middle."""
    offsets = {1: (0,), 2: (-0.01, 0.01), 3: (-0.01, 0, 0.01)}
    values = {name: tuple(a + o for o in offsets[n]) for name, (_, a, n) in networks.items()}
    return {name: Measured(BINARY, e, values[name], values[name]) for name, (e, _, _) in networks.items()}


def test_the_best_price_goes_first_and_a_dominated_network_never():
    networks = made(
        binary=(1, 99, 3), cheap=(2, 99.2, 3), dear=(8, 99.5, 3), beaten=(9, 99.4, 3), single=(1.1, 99.9, 1)
    )  # fmt: skip
    steps = walk(networks, 20)
    assert [step.current for step in steps] == ["binary", "cheap", "dear"]
    verdicts = steps[0].candidates["verdict"]
    assert verdicts["beaten"] == "dominated by dear" and verdicts["single"] == intervals.NO_SPREAD
    assert outcome(networks, 5) == "cheap" and outcome(networks, 1.5) == START
    assert walk(networks, 5)[0].candidates.loc["dear", "verdict"] == OVER


def test_a_gain_for_nothing_is_taken():
    assert outcome(made(binary=(1, 99, 3), free=(1, 99.5, 3)), 1) == "free"


def test_together_asks_more():
    networks = made(binary=(1, 99, 3), a=(2, 99.025, 3), **{f"b{i}": (3, 98, 3) for i in range(9)}, one=(3, 98, 1))
    assert joint(networks, 0.95) == pytest.approx(1 - 0.05 / 10)
    assert outcome(networks, 9) == "a" and outcome(networks, 9, together=True) == START


def test_either_accuracy_may_decide():
    networks = made(binary=(1, 99, 3), a=(2, 99.5, 3))
    networks["b"] = Measured(BINARY, 2, (98.0, 98.1), (99.9, 99.91))
    assert outcome(networks, 9) == "a" and outcome(networks, 9, by="test") == "b"


@given(st.floats(1e-6, 1e3))
def test_the_least_budget_is_enough(uj):
    assert uj <= round_up(uj) <= uj * 1.002
