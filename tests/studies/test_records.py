"""What a result carries beside its accuracies: predictions, the command and commit that made it, changed weights."""

import base64
import json
import subprocess

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tqdm import tqdm

from bnnlib import ModelSpec, RunSpec, TrainSpec, UserError, data, studies
from bnnlib.runs.attempt import make_result
from bnnlib.runs.provenance import instructions, source_commit
from bnnlib.runs.runner import train_runs
from bnnlib.studies.predictions import check_predictions, decode, encode
from bnnlib.studies.results import load_history, load_result, result_path, train_command, write_result
from bnnlib.training.loop import Training, train

BINARY = ModelSpec("lenet5", "bbbb", "bbb")
HYBRID = ModelSpec("lenet5", "tb8f", "tb4")
QUICK = TrainSpec("digits", 3, batch=50, train_images=200)
PLAIN = {"device": "cpu", "kernels": False}  # nothing to compile in each child
DIGITS = data.load("digits", (1, 28, 28))


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("BNN_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("BNN_CHECKPOINTS", str(tmp_path / "checkpoints"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def tiny(monkeypatch) -> list[RunSpec]:
    protocol = studies.Protocol(QUICK, QUICK, {"": 2})
    monkeypatch.setitem(studies.STUDIES, "tiny", studies.Study({"binary": BINARY}, {"short": protocol}))
    return studies.runs("tiny")


@given(classes=st.lists(st.integers(0, 15), max_size=30))
def test_classes_survive_in_half_a_byte_each(classes):
    kept = json.loads(json.dumps(encode(np.array(classes, dtype=np.int64))))
    raw = base64.b64decode(kept["classes"])
    assert len(raw) == (len(classes) + 1) // 2
    assert [raw[i // 2] >> 4 * (i % 2) & 15 for i in range(len(classes))] == classes
    assert decode(kept).tolist() == classes and kept["count"] == len(classes)


@pytest.mark.parametrize("classes", [[3, 16], [-1, 3]])
def test_classes_without_a_code_are_refused(classes):
    with pytest.raises(ValueError, match="do not fit into 4 bits"):
        encode(np.array(classes))


@pytest.mark.parametrize(
    "change",
    [{"count": 5}, {"count": 1}, {"classes": "!!!!"}, {"classes": None}, {"count": None}, {"classes": "IfM="}],
    ids=["more", "fewer", "noise", "no text", "no count", "a value behind the last"],
)
def test_damaged_predictions_are_refused(change):
    with pytest.raises(UserError, match="predictions are damaged") as caught:
        decode(encode(np.array([1, 2, 3])) | change)
    assert "\n" not in str(caught.value)


def test_predictions_are_those_of_the_model_that_is_kept():
    outcome = train(RunSpec(BINARY, QUICK.but(epochs=5), 1))
    for part, x in (("val", DIGITS.val_x), ("test", DIGITS.test_x)):
        assert torch.equal(outcome.predictions[part], outcome.model(x).argmax(1))
    hits = (outcome.predictions["val"] == DIGITS.val_y).sum().item()
    assert 100 * hits / len(DIGITS.val_y) == max(row["val_accuracy"] for row in outcome.history)


@pytest.mark.parametrize("jobs", [1, 2])
def test_results_agree_with_the_labels_wherever_they_were_made(tiny, jobs):
    train_runs(tiny, jobs=jobs, options=PLAIN, say=lambda line: None)
    for run in tiny:
        result = load_result(run)
        check_predictions(result, DIGITS)
        hits = decode(result["predictions"]["test"]) == DIGITS.test_y.numpy()
        assert 100 * hits.mean() == pytest.approx(result["test_accuracy"], abs=1e-9)
        assert len(result["history"]["weights_changed"]) == 3
        assert (result["commit"], result["instructions"]) == (source_commit(), instructions("cpu"))


def test_predictions_that_contradict_the_result_are_refused(tiny):
    run = tiny[0]
    result = make_result(run, train(run), "cpu")
    right = decode(result["predictions"]["test"]).astype(int)
    wrong = right.copy()
    wrong[0] = (wrong[0] + 1) % 10
    shorter = result["predictions"] | {"test": encode(right[1:])}
    for change, message in (
        ({"predictions": result["predictions"] | {"test": encode(wrong)}}, "of test; its predictions have"),
        ({"val_accuracy": result["val_accuracy"] + 0.5}, "of val; its predictions have"),
        ({"predictions": shorter}, "has 299 test predictions; the data have 300 images"),
        ({"data_sha256": "0"}, "other data"),
    ):
        with pytest.raises(UserError, match=message):
            check_predictions(result | change, DIGITS)
    with pytest.raises(UserError, match="before predictions were kept"):
        check_predictions({key: value for key, value in result.items() if key != "predictions"}, DIGITS)


def test_the_command_of_a_result_makes_it_again(tiny, bnn):
    train_runs(tiny[:1], options=PLAIN, say=lambda line: None)
    first = load_result(tiny[0])
    assert first["command"] == "bnn train tiny --name binary-short --seed 0 --device cpu -x kernels=off"
    result_path(tiny[0]).unlink()
    status, _, error = bnn(*first["command"].split()[1:])
    assert (status, error) == (0, "")
    again, times = load_result(tiny[0]), ("seconds", "finished")
    assert {k: v for k, v in again.items() if k not in times} == {k: v for k, v in first.items() if k not in times}


def test_what_nobody_chose_is_not_in_the_command(tiny):
    assert train_command(tiny[1], {"device": None}) == train_command(tiny[1])
    assert train_command(tiny[1]) == "bnn train tiny --name binary-short --seed 1"


def values(state: Training) -> list[np.ndarray]:
    """The binary and ternary weights of conv1 and conv2 of HYBRID, by their definitions."""
    first, second = (getattr(state.model, name).weight.detach().numpy().copy() for name in ("conv1", "conv2"))
    limit = 0.7 * np.abs(first).mean()
    return [np.where(first > limit, 1, np.where(first < -limit, -1, 0)), np.where(second >= 0, 1, -1)]


@pytest.mark.parametrize("stages", ["none", "acts-first"])
def test_changed_weights_are_counted_from_epoch_to_epoch(stages):
    state = Training(RunSpec(HYBRID, QUICK.but(lr=0.01, stages=stages), 3))
    before = values(state)
    for _ in range(2):
        state.epoch(tqdm(disable=True))
        after = values(state)
        changed = sum((a != b).sum() for a, b in zip(before, after, strict=True))
        expected = 100 * changed / sum(a.size for a in before)
        assert state.history[-1]["weights_changed"] == pytest.approx(expected, abs=0.01) and expected > 0.5
        before = after


def test_a_stuck_training_shows_it_and_float_networks_have_nothing_to_change():
    stuck = train(RunSpec(BINARY, QUICK.but(lr=0), 0))
    assert [row["weights_changed"] for row in stuck.history] == [0, 0, 0]
    real = train(RunSpec(ModelSpec("lenet5", "f8ff", "fff"), QUICK, 0))
    assert not any("weights_changed" in row for row in real.history)


def test_older_results_and_checkpoints_are_read_as_they_are(tiny, tmp_path):
    one, other = tiny
    state = Training(one)
    state.epoch(tqdm(disable=True))
    del state.history[0]["weights_changed"]
    state.save(tmp_path / "c.pt")
    resumed = make_result(one, train(one, checkpoint=tmp_path / "c.pt"), "cpu")
    assert set(resumed["history"]) == {"train_loss", "train_accuracy", "val_loss", "val_accuracy"}
    for new in ("predictions", "command", "commit", "instructions"):
        del resumed[new]
    for run, result in ((one, resumed), (other, make_result(other, train(other), "cpu"))):
        write_result(run, result)
    history = load_history("tiny", "binary-short")
    assert history.groupby("seed")["weights_changed"].count().to_dict() == {0: 0, 1: 3}
    assert history["val_accuracy"].count() == 6


def git(folder, *arguments: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    done = subprocess.run(["git", "-C", str(folder), *who, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_commit_of_the_source(tmp_path, monkeypatch):
    ask = source_commit.__wrapped__
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a.py").write_text("a = 1\n")
    assert ask(tmp_path / "source") is None, "there is no checkout yet"
    git(tmp_path, "init", "-q")
    assert ask(tmp_path / "source") is None, "there is no commit yet"
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "a")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert ask(tmp_path / "source") == commit[:12]
    (tmp_path / "result.json").write_text("{}")  # a new result is no change of the source
    (tmp_path / "installed").mkdir()
    assert ask(tmp_path / "source") == commit[:12]
    assert ask(tmp_path / "installed") is None, "what is installed in a checkout is not of it"
    (tmp_path / "source" / "b.py").write_text("b = 1\n")
    assert ask(tmp_path / "source") == f"{commit[:12]}-dirty"
    (tmp_path / "source" / "b.py").unlink()
    (tmp_path / "source" / "a.py").write_text("a = 2\n")
    assert ask(tmp_path / "source") == f"{commit[:12]}-dirty"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert ask(tmp_path / "source") is None, "there is no git"


@pytest.mark.parametrize(
    "capability, flags, name",
    [
        ("AVX2", "avx2", "AVX2"),
        ("AVX512", "avx2 avx512f", "AVX-512"),
        ("AVX512", "avx512f avx512_vnni", "AVX-512 VNNI"),
        ("DEFAULT", "neon", "DEFAULT"),
    ],
)
def test_the_instructions_are_those_of_the_processor(tmp_path, monkeypatch, capability, flags, name):
    (tmp_path / "cpuinfo").write_text(f"flags\t\t: fpu {flags}\n")
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: capability)
    monkeypatch.setattr("bnnlib.runs.provenance.CPUINFO", tmp_path / "cpuinfo")
    assert instructions("cpu") == name
