"""Evidence for a decision, and the recipe on results: made-up ones, the committed ones, and the command line."""

import json
import math
import re
import sys
from statistics import fmean

import numpy as np
import pytest
from helpers import student, welch
from hypothesis import given
from hypothesis import strategies as st

from bnnlib import UserError, paths, studies
from bnnlib.analysis import intervals, recommendation, tuning
from bnnlib.analysis.recipe import START, round_up
from bnnlib.analysis.recommendation import STUDY, recommend
from bnnlib.cli import commands
from bnnlib.energy import energy_uj
from bnnlib.files import read_json, write_json
from bnnlib.specs import ModelSpec, TrainSpec
from bnnlib.studies import results

BINARY = ModelSpec("lenet5", "bbbb", "bbb")

# --- intervals -------------------------------------------------------------------------------------------------------

accuracies = st.lists(st.integers(9000, 9999).map(lambda a: a / 100), min_size=2, max_size=6)


@given(accuracies, accuracies, st.sampled_from([0.5, 0.95, 0.999]))
def test_the_interval_is_that_of_welch(a, b, confidence):
    if len(set(a)) == 1 or len(set(b)) == 1:
        a, b = [*a, a[0] + 1], [*b, b[0] + 2]
    gain, low, high = intervals.difference(a, b, confidence)
    assert gain == pytest.approx(np.mean(a) - np.mean(b), abs=1e-9)
    assert (low, high) == pytest.approx(welch(a, b, confidence), abs=1e-6)


@pytest.mark.filterwarnings("error")
def test_one_side_without_spread_still_has_an_interval():
    assert intervals.difference([99.0] * 3, [98.0, 98.1, 98.2])[1:] == pytest.approx(
        [-x for x in reversed(student(np.array([98.0, 98.1, 98.2]) - 99.0))]
    )


@pytest.mark.parametrize("a, b", [([99.0], [98.0, 98.1]), ([99.0, 99.1], [98.0]), ([99.0, 99.0], [98.0, 98.0])])
def test_without_spread_nothing_is_shown(a, b):
    gain, low, high = intervals.difference(a, b)
    assert gain > 0.9 and math.isnan(low) and math.isnan(high)
    assert intervals.verdict(gain, low, high) == intervals.NO_SPREAD


def test_confidence_is_a_share():
    with pytest.raises(UserError, match="95 is not possible"):
        intervals.difference([1, 2], [1, 2], 95)


def test_what_was_not_run_is_said_so():
    rows = intervals.against({"a": (), "b": (99.0,), "c": (99.9, 99.8), "d": (98.0, 98.1)}, (99.0, 99.02))
    assert list(rows["verdict"]) == [intervals.NOT_RUN, intervals.NO_SPREAD, intervals.BETTER, intervals.WORSE]
    assert list(rows["n"]) == [0, 1, 2, 2]


def test_a_tuning_run_differs_from_the_baseline_in_its_decision_alone():
    for study in ("tuning-mnist", "tuning-cifar10"):
        (base,) = studies.runs(studies.get_study(study).homes["binary"], "binary", "short", 0)
        for run in studies.runs(study, protocol="short", seed=0):
            other = {
                key
                for part in ("model", "train")
                for key, value in vars(getattr(run, part)).items()
                if value != getattr(getattr(base, part), key)
            }
            assert len(other) == 1 or (run.name == "SGD-short" and other <= {"optimizer", "lr", "momentum"}), run.name


def test_decisions_cope_with_no_result_and_with_some(monkeypatch, tmp_path):
    monkeypatch.setenv("BNN_RESULTS", str(tmp_path))
    with pytest.raises(UserError, match=r"bnn train lenet-mnist --name binary-short --seed 0"):
        tuning.decisions("tuning-mnist")
    for seed, accuracy in enumerate((99.2, 99.3)):
        put("lenet-mnist", "binary", seed, accuracy)
        put("tuning-mnist", "CBAP", seed, accuracy - 1)
    put("tuning-mnist", "SGD", 0, 99.0)
    rows = tuning.decisions("tuning-mnist")
    assert rows.index[0] == "binary" and set(rows.index[1:]) == set(studies.get_study("tuning-mnist").networks)
    described = studies.get_study("tuning-mnist").methods
    assert set(described) == set(rows.index[1:]), "a decision is not described"
    assert list(rows["decision"].drop_duplicates()) == ["", *dict.fromkeys(m.changes for m in described.values())]
    assert (rows["decision"] != rows["decision"].shift()).sum() == rows["decision"].nunique(), "a group is torn apart"
    verdicts = rows["verdict"]
    assert verdicts["CBAP"] == intervals.WORSE and verdicts["SGD"] == intervals.NO_SPREAD
    assert verdicts["swish"] == intervals.NOT_RUN and rows.loc["swish", "validation"] == intervals.NOT_RUN
    assert rows.loc["CBAP", "validation"] == "98.25 ± 0.07 (2)"
    assert rows.loc["binary-image", "extra_uj"] < 0 == rows.loc["CBAP", "extra_uj"]
    assert rows.loc["bipolar-1e-5", "decision"] == rows.loc["no-clip", "decision"] == "latent weights"
    assert rows.loc["swish", "command"] == "bnn train tuning-mnist --name swish-short"


def put(study: str, network: str, seed: int, validation: float, test: float | None = None, protocol: str = "short"):
    """A result file made up for a test: the fields that reading needs."""
    (run,) = studies.runs(study, network, protocol, seed)
    made = {
        "spec_hash": run.hash,
        "spec": run.as_dict(),
        "history": {},
        "device": "none",
        "best_epoch": 1,
        "seed": seed,
    }
    accuracy = {"val_accuracy": validation, "test_accuracy": validation if test is None else test}
    write_json(results.result_path(run), made | accuracy | {"study": study, "name": run.name})


# --- on results -------------------------------------------------------------------------------------------------------


@pytest.fixture
def own(monkeypatch, tmp_path):
    """Results of the test's own, none to begin with."""
    monkeypatch.setenv("BNN_RESULTS", str(tmp_path))
    return tmp_path


def test_the_committed_mnist_results_give_a_network_within_the_budget():
    before = 0.0
    for budget in (0.019, 0.025, 0.05, 0.2, 1):
        found = recommend("lenet5", budget)
        one = found.describe(found.network)
        assert one["energy_uj"] <= budget and one["validation_mean"] >= before
        assert one["energy_uj"] == pytest.approx(
            energy_uj(ModelSpec("lenet5", *(one[k] for k in ("weights", "acts", "width"))))
        )
        before = one["validation_mean"]
    assert before > fmean(found.networks[START].validation), "nothing is shown to gain over the binary network"
    assert recommend("lenet5", found.networks[START].energy_uj).network == START


def test_energies_are_those_of_the_table():
    table = recommend("lenet5", 1, table="horowitz45")
    assert table.networks["L1T"].energy_uj == pytest.approx(energy_uj(ModelSpec("lenet5", "tbbb", "bbb"), "horowitz45"))
    assert "--table horowitz45" in table.commands("L1T")["cost"]


def test_json_has_the_promised_keys_and_no_nan(bnn):
    status, out, _ = bnn("recommend", "lenet5", "--budget-uj", "0.2", "--json")
    answer = json.loads(out, parse_constant=lambda constant: pytest.fail(constant))
    assert status == 0 and set(answer) == {
        "arch", "study", "protocol", "label", "table", "budget_uj", "by", "confidence", "together", "steps", "stop",
        "beyond_budget", "recommended",
    }  # fmt: skip
    assert answer["label"] == "full size" and answer["steps"][-1]["to"] is None
    assert answer["steps"][-1]["from"] == answer["recommended"]["network"]
    assert set(answer["recommended"]) == {
        "network", "weights", "acts", "width", "energy_uj", "n", "validation_mean", "validation_sd", "test_mean",
        "test_sd", "commands",
    }  # fmt: skip
    keys = {"network", "energy_uj", "extra_uj", "n", "gain", "low", "high", "points_per_uj", "verdict"}
    assert all(set(row) == keys for step in answer["steps"] for row in step["candidates"])


def test_the_text_names_every_network_and_its_commands_work(bnn, monkeypatch, capsys):
    status, out, _ = bnn("recommend", "lenet5", "--budget-uj", "0.06")
    assert status == 0
    listed = [line.split()[0] for line in out.split("step 1")[0].splitlines()[4:] if line]
    found = recommend("lenet5", 0.06)
    assert listed == sorted(found.networks, key=lambda name: found.networks[name].energy_uj)
    assert f"recommended: {found.network}, full size" in out
    command = found.commands(found.network)["cost"]
    assert f"  {command}\n" in out
    monkeypatch.setattr(sys, "argv", [*command.split(), "--json"])
    commands.main()
    assert json.loads(capsys.readouterr().out)["total_uj"] == pytest.approx(found.networks[found.network].energy_uj)


def test_reduced_networks_are_labelled_and_have_their_own_energy(bnn, own, monkeypatch, capsys):
    """1/8 of the width is never a silent substitute for the full size."""
    for seed in range(3):
        put("vggnet-cifar10", "binary", seed, 60 + seed / 10, protocol="reduced")
        put("vggnet-cifar10", "WIDEN2", seed, 66 + seed / 10, protocol="reduced")
    status, _, err = bnn("recommend", "vggnet7", "--budget-uj", "0.9")
    assert status == 2 and len(err.splitlines()) == 1
    assert "bnn train vggnet-cifar10 --protocol short" in err
    assert "--protocol reduced has results of reduced networks" in err
    status, out, _ = bnn("recommend", "vggnet7", "--budget-uj", "0.9", "--protocol", "reduced")
    assert status == 0 and "REDUCED" in out and "recommended: WIDEN2, reduced" in out
    assert "--width 0.25" in out
    status, out, _ = bnn("recommend", "vggnet7", "--budget-uj", "0.9", "--protocol", "reduced", "--json")
    answer = json.loads(out)
    assert answer["label"] == "reduced" and answer["recommended"]["width"] == 0.25
    full = ModelSpec("vggnet7", "b" * 9, "b" * 8)
    assert answer["recommended"]["energy_uj"] == pytest.approx(energy_uj(full.but(width=0.25)))
    monkeypatch.setattr(sys, "argv", [*answer["recommended"]["commands"]["cost"].split(), "--json"])
    commands.main()
    assert json.loads(capsys.readouterr().out)["total_uj"] == pytest.approx(answer["recommended"]["energy_uj"])


def test_the_train_command_names_a_run(own):
    put("lenet-mnist", "binary", 0, 99.0)
    found = recommend("lenet5", 1)
    words = found.commands(found.network)["train"].split()
    assert found.network == START and studies.runs(words[2], words[4])
    assert found.stop.startswith("no measured network"), "one seed of the binary network and nothing else"


LEAST = round_up(energy_uj(BINARY))
MISTAKES = {
    "too small a budget": (["lenet5", "--budget-uj", "0.01"], f"needs {LEAST} uJ"),
    "no budget": (["lenet5"], "--budget-uj"),
    "budget that is no number": (["lenet5", "--budget-uj", "much"], "'much' is not a valid float"),
    "negative budget": (["lenet5", "--budget-uj", "-1"], "budget -1.0 uJ is not possible"),
    "nan": (["lenet5", "--budget-uj", "nan"], "budget nan uJ is not possible"),
    "no end": (["lenet5", "--budget-uj", "inf"], "budget inf uJ is not possible"),
    "architecture": (["resnet", "--budget-uj", "1"], "'resnet' is unknown; use one of lenet5, vggnet7"),
    "study of another": (["lenet5", "--budget-uj", "1", "--study", "vggnet-cifar10"], "vggnet-cifar10"),
    "study without a start": (["lenet5", "--budget-uj", "1", "--study", "tuning-mnist"], "no network 'binary'"),
    "unknown study": (["lenet5", "--budget-uj", "1", "--study", "imagenet"], "'imagenet' is unknown"),
    "unknown protocol": (["lenet5", "--budget-uj", "1", "--protocol", "long"], "protocol 'long' is unknown"),
    "unknown table": (["lenet5", "--budget-uj", "1", "--table", "intel4"], "intel4"),
    "unknown accuracy": (["lenet5", "--budget-uj", "1", "--by", "training"], "training"),
    "confidence in percent": (["lenet5", "--budget-uj", "1", "--confidence", "95"], "confidence 95.0"),
    "not yet run": (["lenet5", "--budget-uj", "1", "--protocol", "paper"], "bnn train lenet-mnist --protocol paper"),
}


@pytest.mark.parametrize("arguments, named", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line_and_status_2(bnn, arguments, named):
    status, out, err = bnn("recommend", *arguments)
    assert status == 2 and out == ""
    assert len(err.splitlines()) == 1 and err.startswith("bnn: ") and named in err


def test_the_named_budget_is_enough(bnn):
    assert bnn("recommend", "lenet5", "--budget-uj", str(LEAST))[0] == 0


def test_without_the_binary_network_there_is_no_start(bnn, own):
    put("lenet-mnist", "L1T", 0, 99.0)
    status, _, err = bnn("recommend", "lenet5", "--budget-uj", "1")
    assert status == 2 and "bnn train lenet-mnist --name binary-short" in err


def test_a_result_of_another_spec_is_refused(bnn, own):
    put("lenet-mnist", "binary", 0, 99.0)
    (run,) = studies.runs("lenet-mnist", "binary", "short", 0)
    path = results.result_path(run)
    write_json(path, read_json(path) | {"spec_hash": "0" * 12})
    status, _, err = bnn("recommend", "lenet5", "--budget-uj", "1")
    assert status == 2 and len(err.splitlines()) == 1 and "--overwrite" in err


def test_every_architecture_has_its_study(monkeypatch):
    for arch, study in STUDY.items():
        assert studies.get_study(study).networks[START].arch == arch
    train = TrainSpec("digits", 2)
    floats = studies.Study(
        {START: BINARY, "float": BINARY.but(weights="ffff", acts="fff")},
        {"short": studies.Protocol(train, train, {"": 1})},
    )
    monkeypatch.setitem(studies.STUDIES, "two", floats)
    monkeypatch.setattr(
        results, "load_result", lambda run: {"seed": run.seed, "val_accuracy": 99.0, "test_accuracy": 98.0}
    )
    assert list(recommendation.measured("two")) == [START], "the float network is no step of a binary one"


def test_the_readme_shows_what_the_command_ends_with(bnn):
    (shown,) = re.findall(r"```\n(recommended: .*?)```", (paths.ROOT / "README.md").read_text(), re.S)
    status, printed, _ = bnn("recommend", "lenet5", "--budget-uj", "0.05", "--together")
    assert status == 0 and printed.endswith(shown)
