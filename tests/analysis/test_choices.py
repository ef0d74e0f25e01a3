"""All choices of binary and ternary: fronts by brute force, the greedy recipe on made landscapes, effects got back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnnlib import UserError, studies
from bnnlib.analysis.choices import Effects, best_within, energies, front, greedy, neighbours, operands
from bnnlib.energy import energy_uj
from bnnlib.studies.designs import choices, designed_choices

FIVE = choices(5)
accuracies = st.lists(st.integers(9800, 9999), min_size=32, max_size=32).map(
    lambda v: {c: a / 100 for c, a in zip(FIVE, v, strict=True)}
)
prices = st.lists(st.integers(1, 50), min_size=5, max_size=5).map(
    lambda p: {c: 100 + sum(price for price, letter in zip(p, c, strict=True) if letter == "t") for c in FIVE}
)


def test_choices_are_all_and_neighbours_add_one():
    assert len(set(choices(7))) == 128 and choices(7)[0] == "bbbbbbb"
    assert neighbours("btb") == ["ttb", "btt"] and neighbours("tt") == []


@pytest.mark.parametrize("table", ["icmla2020", "horowitz45"])
def test_energies_are_those_of_the_networks(table):
    for study in ("choices-mnist", "choices-cifar10"):
        networks = {name.replace("-", ""): spec for name, spec in studies.STUDIES[study].networks.items()}
        some = dict(list(networks.items())[::5])
        arch = next(iter(some.values())).arch
        assert energies(arch, list(some), table) == pytest.approx({c: energy_uj(s, table) for c, s in some.items()})


def test_each_letter_has_its_operand():
    assert operands("lenet5") == [
        "conv1 weights", "conv2 weights", "fc1 weights", "fc2 weights", "conv2 inputs", "fc1 inputs", "fc2 inputs"
    ]  # fmt: skip
    assert len(operands("vggnet7")) == 17


@given(energy=prices, accuracy=accuracies)
def test_the_front_is_what_nothing_beats(energy, accuracy):
    found = front(energy, accuracy)
    for choice in FIVE:
        beaten = any(
            energy[o] <= energy[choice]
            and accuracy[o] >= accuracy[choice]
            and (energy[o], accuracy[o]) != (energy[choice], accuracy[choice])
            for o in FIVE
        )
        if beaten:
            assert choice not in found
        else:
            same = [c for c in found if (energy[c], accuracy[c]) == (energy[choice], accuracy[choice])]
            assert len(same) == 1


@given(energy=prices, accuracy=accuracies)
def test_the_recipe_goes_uphill_and_trains_only_neighbours(energy, accuracy):
    path = greedy(energy, accuracy)
    assert path.steps[0] == "bbbbb" and len(path.trained) == len(set(path.trained)) <= 1 + 5 + 4 + 3 + 2 + 1
    for a, b in zip(path.steps, path.steps[1:], strict=False):
        assert b in neighbours(a) and accuracy[b] > accuracy[a]
        for other in neighbours(a):
            slope = (accuracy[other] - accuracy[a]) / (energy[other] - energy[a])
            assert slope <= (accuracy[b] - accuracy[a]) / (energy[b] - energy[a]) + 1e-12
    assert all(accuracy[c] <= accuracy[path.steps[-1]] for c in neighbours(path.steps[-1]))
    assert set(path.trained) == {"bbbbb"} | {c for step in path.steps for c in neighbours(step)}


def test_where_every_operand_has_its_own_gain_the_recipe_finds_the_front():
    gains, price = [0.2, 0.05, 0.1, 0.4, 0.01], [10, 1, 8, 10, 5]
    accuracy = {c: 98 + sum(g for g, letter in zip(gains, c, strict=True) if letter == "t") for c in FIVE}
    energy = {c: 100.0 + sum(p for p, letter in zip(price, c, strict=True) if letter == "t") for c in FIVE}
    steps = greedy(energy, accuracy).steps
    assert steps == ["bbbbb", "btbbb", "btbtb", "ttbtb", "ttttb", "ttttt"]
    assert set(steps) <= set(front(energy, accuracy))


def test_a_pair_that_only_helps_together_is_missed():
    accuracy = {c: 98.0 + (c[:2] == "tt") for c in FIVE}
    energy = {c: 100.0 + c.count("t") for c in FIVE}
    assert greedy(energy, accuracy).steps == ["bbbbb"]
    assert front(energy, accuracy) == ["bbbbb", "ttbbb"]


@given(energy=prices, accuracy=accuracies, budget=st.integers(90, 400))
def test_the_best_within_a_budget(energy, accuracy, budget):
    if budget < 100:
        with pytest.raises(UserError, match=f"budget {budget} uJ is too small"):
            best_within(energy, accuracy, FIVE, budget)
    else:
        best = best_within(energy, accuracy, FIVE, budget)
        assert energy[best] <= budget
        assert accuracy[best] == max(accuracy[c] for c in FIVE if energy[c] <= budget)


@pytest.mark.parametrize("pairs", [False, True])
def test_effects_are_got_back_with_their_errors(pairs):
    rng = np.random.default_rng(0)
    single, double = rng.normal(0, 0.2, 7), rng.normal(0, 0.1, (7, 7)) * pairs
    everything = choices(7)
    t = np.array([[letter == "t" for letter in c] for c in everything], float)
    exact = 98 + t @ single + np.einsum("ni,ij,nj->n", t, np.triu(double, 1), t)
    fitted = Effects(dict(zip(everything, exact, strict=True)), pairs)
    np.testing.assert_allclose(list(fitted.predict(everything).values()), exact, atol=1e-9)
    assert fitted.residual < 1e-9
    noisy = dict(zip(everything, exact + rng.normal(0, 0.1, 128), strict=True))
    fitted = Effects(noisy, pairs)
    planted = {(): 98.0, **{(i,): single[i] for i in range(7)}}
    planted |= {(i, j): double[i, j] for i in range(7) for j in range(i + 1, 7)} if pairs else {}
    off = (fitted.coefficients - [planted[names] for names in fitted.names]) / fitted.errors
    assert np.abs(off).max() < 3.5 and fitted.residual == pytest.approx(0.1, rel=0.2)


def test_left_out_is_a_prediction_of_each_from_the_others():
    rng = np.random.default_rng(1)
    accuracy = {c: 98 + rng.normal() for c in choices(4)}
    errors = []
    for choice, value in accuracy.items():
        others = {c: a for c, a in accuracy.items() if c != choice}
        errors.append(value - Effects(others).predict([choice])[choice])
    assert Effects(accuracy).left_out == pytest.approx(np.sqrt(np.mean(np.square(errors))))


def test_too_few_choices_are_refused():
    with pytest.raises(UserError, match="2 choices do not determine 6 effects"):
        Effects({"bbbbb": 98.0, "ttttt": 99.0})
    with pytest.raises(UserError, match="16 choices do not determine 6 effects"):  # the last operand never changes
        Effects({c: 98.0 for c in FIVE if c[-1] == "b"})


@given(length=st.integers(2, 20), seed=st.integers(0, 50))
def test_the_design_separates_the_effects(length, seed):
    sample, others = designed_choices(length, seed, 0 if length < 5 else 2)
    x = np.array([[1 if letter == "t" else -1 for letter in c] for c in sample])
    assert np.array_equal(x.T @ x, len(sample) * np.eye(length)) and not x.sum(0).any()
    pairs = (x[:, :, None] * x[:, None, :]).reshape(len(x), -1)
    assert not (x.T @ pairs).any()
    assert not set(sample) & set(others) and len(set(others)) == len(others)


def test_a_sample_of_all_leaves_none_to_hold_out():
    with pytest.raises(UserError, match="held_out 1 is too many; 0 choices of 2"):
        designed_choices(2, held_out=1)


def test_the_studies_of_choices_are_these():
    lenet, vggnet = (studies.get_study(f"choices-{d}").networks for d in ("mnist", "cifar10"))
    assert {name.replace("-", "") for name in lenet} == set(choices(7))
    sample, others = designed_choices(17)
    assert [name.replace("-", "") for name in vggnet] == sample + others
    assert energy_uj(lenet["tbbb-bbb"]) == energy_uj(studies.get_study("lenet-mnist").networks["L1T"])
