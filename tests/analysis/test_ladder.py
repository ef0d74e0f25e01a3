"""The ladder of methods: paired intervals against scipy, and rows from made results."""

import math

import numpy as np
import pytest
from helpers import student
from hypothesis import given
from hypothesis import strategies as st

from bnnlib import UserError, studies
from bnnlib.analysis import intervals, ladder
from bnnlib.files import write_json
from bnnlib.studies.results import result_path

by_seed = st.dictionaries(st.integers(0, 9), st.floats(97, 99), min_size=3, max_size=8)


@given(a=by_seed, b=by_seed, confidence=st.sampled_from([0.5, 0.95]))
def test_a_paired_interval_is_students_of_the_differences(a, b, confidence):
    both = sorted(set(a) & set(b))
    n, gain, low, high = intervals.paired(a, b, confidence)
    assert n == len(both)
    if n == 0:
        assert math.isnan(gain)
        return
    x, y = [a[s] for s in both], [b[s] for s in both]
    assert gain == pytest.approx(np.mean(x) - np.mean(y), abs=1e-9)
    if n > 1 and np.std(np.subtract(x, y)) > 1e-6:
        assert (low, high) == pytest.approx(student(np.subtract(x, y), confidence), abs=1e-6)
    elif n == 1:
        assert math.isnan(low) and math.isnan(high)


def test_the_same_gain_in_every_seed_has_no_spread():
    """99.1 - 99.0 and 99.2 - 99.1 differ as floats."""
    n, gain, low, high = intervals.paired({0: 99.1, 1: 99.2}, {0: 99.0, 1: 99.1})
    assert (n, gain) == (2, 0.1) and math.isnan(low) and math.isnan(high)


def test_confidence_is_a_share():
    with pytest.raises(UserError, match="95 is not possible"):
        intervals.paired({0: 1}, {0: 2}, 95)


def made(study: str, name: str, seed: int, accuracy: float, protocol: str = "short") -> None:
    """A result file with these accuracies."""
    (run,) = studies.runs(study, f"{name}-{protocol}", seed=seed)
    content = {
        "study": study, "name": run.name, "seed": seed, "spec_hash": run.hash, "spec": run.as_dict(), "best_epoch": 1,
        "val_accuracy": accuracy, "test_accuracy": accuracy - 1, "history": {}, "device": "made",
    }  # fmt: skip
    write_json(result_path(run), content)


def test_a_ladder_compares_within_seeds(monkeypatch, tmp_path):
    monkeypatch.setenv("BNN_RESULTS", str(tmp_path))
    with pytest.raises(UserError, match="bnn train lenet-mnist --name binary-short"):
        ladder.ladder("beyond-mnist")
    for seed, base in enumerate((98.0, 98.6, 97.5, 99.0)):
        made("lenet-mnist", "binary", seed, base)
    for seed, base in enumerate((98.0, 98.6, 97.5)):  # far apart, and yet the gain of each seed is the same
        made("beyond-mnist", "distill", seed, base + 0.2 + 0.01 * seed)
        made("tuning-mnist", "bireal", seed, base - 0.3 - 0.01 * seed)
    made("beyond-mnist", "ede", 1, 98.7)
    rows = ladder.ladder("beyond-mnist")
    assert list(rows.index[:3]) == ["distill", "ede", "bireal"]
    assert rows.loc["distill", ["n", "verdict"]].tolist() == [3, intervals.BETTER]
    assert rows.loc["distill", "gain"] == pytest.approx(0.21) == rows.loc["distill", "test gain"]
    assert rows.loc["bireal", "verdict"] == intervals.WORSE
    assert rows.loc["ede", ["n", "verdict"]].tolist() == [1, intervals.NO_SPREAD]
    assert rows.loc["bop", ["n", "verdict", "test"]].tolist() == [0, intervals.NOT_RUN, intervals.NOT_RUN]
    assert rows.loc["bop", "command"] == "bnn train beyond-mnist --name bop-short"
    assert rows.loc["bireal", "command"] == "bnn train tuning-mnist --name bireal-short"


def test_a_reduced_ladder_has_a_baseline_of_its_own_width(monkeypatch, tmp_path):
    monkeypatch.setenv("BNN_RESULTS", str(tmp_path))
    for seed in range(3):
        made("vggnet-cifar10", "binary", seed, 90.0, "reduced")
    with pytest.raises(UserError, match="bnn train beyond-cifar10 --name binary-reduced"):
        ladder.ladder("beyond-cifar10", "reduced")
    for seed in range(3):
        made("beyond-cifar10", "binary", seed, 60.0 + seed, "reduced")
        made("beyond-cifar10", "bireal", seed, 61.0 + seed, "reduced")
    rows = ladder.ladder("beyond-cifar10", "reduced")
    assert rows.loc["bireal", ["n", "gain"]].tolist() == [3, 1.0]
    assert rows.loc["bireal", "command"] == "bnn train beyond-cifar10 --name bireal-reduced"


@pytest.mark.parametrize(
    "study, protocol", [(s, p) for s in ladder.studies_of_methods() for p in studies.STUDIES[s].protocols]
)
def test_every_method_of_the_studies_is_described_and_trains_the_same_network(study, protocol):
    homes = ladder.homes_of(study, protocol)
    assert set(homes) - {"binary"} == set(studies.get_study(study).methods)
    (base,) = studies.runs(homes["binary"], f"binary-{protocol}", seed=0)
    for name in set(homes) - {"binary"}:
        (run,) = studies.runs(homes[name], f"{name}-{protocol}", seed=0)
        executed = {f: getattr(run.model, f) for f in ("arch", "weights", "acts", "width", "order", "image")}
        assert executed == {f: getattr(base.model, f) for f in executed}
        assert run.train.epochs == base.train.epochs and (run.model, run.train) != (base.model, base.train)


def test_a_study_without_ladder_is_named():
    with pytest.raises(UserError, match="'lenet-mnist' has no ladder of methods; use one of beyond-mnist"):
        ladder.ladder("lenet-mnist")
    with pytest.raises(UserError, match="protocol 'paper' is unknown; beyond-mnist has short"):
        ladder.ladder("beyond-mnist", "paper")
