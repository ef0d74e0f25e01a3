"""Training: losses against closed forms, resuming bit for bit, and what a user sees when it goes wrong."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from tqdm import tqdm

from bnnlib import UserError, build, data, paths, studies
from bnnlib.paths import RESULTS
from bnnlib.runs.attempt import make_result
from bnnlib.runs.runner import train_anew, train_runs
from bnnlib.specs import ModelSpec, RunSpec, TrainSpec
from bnnlib.studies import STUDIES
from bnnlib.studies.results import load_result, load_results, result_path, write_result
from bnnlib.training.loop import Training, evaluate, train
from bnnlib.training.objective import LOSSES, bipolar_penalty, learning_rate, squared_hinge
from bnnlib.training.pretraining import float_run

BINARY = ModelSpec("lenet5", "bbbb", "bbb")
HYBRID = ModelSpec("lenet5", "tb8f", "tb4")
QUICK = TrainSpec("digits", 3, batch=50, augment="crop", pad=2, warmup=0.5, train_images=200)


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("BNN_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("BNN_CHECKPOINTS", str(tmp_path / "checkpoints"))


def test_squared_hinge_is_the_papers_sum():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(7, 10)), rng.integers(0, 10, 7)
    expected = 0.0
    for y, label in zip(logits, labels, strict=True):
        for c in range(10):
            expected += max(0.0, 1 - (1 if c == label else -1) * y[c]) ** 2 / 7
    assert squared_hinge(torch.tensor(logits), torch.tensor(labels)).item() == pytest.approx(expected, rel=1e-12)


def test_bipolar_gradient_is_minus_two_w():
    """The released code has -2 sign(w) here."""
    model = build(ModelSpec("lenet5", "bt8b", "bbb"))
    bipolar_penalty(model).backward()
    for name in ("conv1", "fc2"):
        w = getattr(model, name).weight
        torch.testing.assert_close(w.grad, -2 * w.detach())
    assert model.conv2.weight.grad is None and model.fc1.weight.grad is None


def test_bipolar_without_binary_layers_is_refused():
    with pytest.raises(UserError, match="bipolar"):
        train(RunSpec(ModelSpec("lenet5", "tttt", "bbb"), QUICK.but(bipolar=1e-6), 0))


def test_learning_rates():
    step = TrainSpec("mnist", 30, lr=0.1, schedule="step", milestones=(15, 25))
    assert [learning_rate(step, e * 10, 10) for e in (0, 14, 15, 24, 25)] == pytest.approx(
        [0.1, 0.1, 0.01, 0.01, 0.001]
    )
    assert learning_rate(step, 149, 10) == 0.1  # the last step of the fifteenth epoch
    cosine = TrainSpec("mnist", 10, lr=1.0, warmup=2)
    rates = [learning_rate(cosine, s, 100) for s in range(1000)]
    assert np.argmax(rates) in (199, 200) and max(rates) == pytest.approx(1.0, abs=0.01)
    assert all(np.diff(rates[:200]) > 0) and all(np.diff(rates[200:]) < 0) and 0 < rates[-1] < 1e-4


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("loss", list(LOSSES))
def test_every_optimizer_and_loss_learns(optimizer, loss):
    lr = 0.05 if optimizer == "sgd" else 3e-3
    spec = TrainSpec("digits", 4, batch=50, optimizer=optimizer, lr=lr, loss=loss, weight_decay=1e-5)
    outcome = train(RunSpec(BINARY, spec, 0))
    assert outcome.history[-1]["train_loss"] < outcome.history[0]["train_loss"]
    assert outcome.test_accuracy > 80


def test_latent_weights_stay_in_range_only_where_asked():
    for clip in (True, False):
        state = Training(RunSpec(HYBRID, QUICK.but(clip_latent=clip, optimizer="sgd", lr=1e3, schedule="step"), 0))
        state.epoch(tqdm(disable=True))
        largest = [w.abs().max().item() for w in state.clipped]
        assert len(largest) == 2 and (max(largest) <= 1) == clip


def test_the_best_epoch_is_what_is_tested():
    run = RunSpec(BINARY, QUICK.but(epochs=6), 1)
    outcome = train(run)
    accuracies = [row["val_accuracy"] for row in outcome.history]
    assert outcome.best_epoch == 1 + accuracies.index(max(accuracies))
    digits = data.load("digits", (1, 28, 28))
    assert evaluate(outcome.model, digits.val_x, digits.val_y, "cross_entropy")[1] == max(accuracies)
    assert evaluate(outcome.model, digits.test_x, digits.test_y, "cross_entropy")[1] == outcome.test_accuracy


def test_vggnet_trains():
    run = RunSpec(ModelSpec("vggnet7", "8bbbbbbbt", "bbbbbbbt"), TrainSpec("digits", 1, batch=16), 0)
    whole = data.load("digits", (3, 32, 32))
    few = data.Data(*(part[:32] for part in vars(whole).values()))
    outcome = train(run, data=few)
    assert np.isfinite(outcome.history[0]["train_loss"])


def test_seeds_matter_and_repeat():
    one, again, other = (train(RunSpec(BINARY, QUICK, s)).history for s in (1, 1, 2))
    assert one == again != other


@pytest.mark.parametrize("model", [BINARY, HYBRID])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_time_boxed_pieces_equal_one_run(tmp_path, model, optimizer):
    run = RunSpec(model, QUICK.but(optimizer=optimizer), 3)
    whole = train(run)
    checkpoint = tmp_path / "c.pt"
    state = Training(run)
    state.epoch(tqdm(disable=True))
    state.save(checkpoint)
    assert train(run, checkpoint=checkpoint, max_minutes=0) is None
    pieces = train(run, checkpoint=checkpoint)
    assert pieces.history == whole.history and pieces.test_accuracy == whole.test_accuracy
    for a, b in zip(whole.model.state_dict().values(), pieces.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)


PRETRAINED = RunSpec(HYBRID, QUICK.but(epochs=2, pretrain_epochs=2), 3)


def test_pretraining_starts_from_the_same_layers_in_float():
    first = train(float_run(PRETRAINED, PRETRAINED.train.pretraining()))
    assert all(m.weight_operand == "float" for m in first.model if hasattr(m, "weight_operand"))
    state = Training(PRETRAINED)
    state.start_from(first)
    latent, float_weights = state.model.state_dict(), first.model.state_dict()
    assert latent["conv1.weight"].equal(float_weights["conv1.weight"].clamp(-1, 1))  # ternary: kept in range
    assert latent["fc1.weight"].equal(float_weights["fc1.weight"])  # fixed8: as it was
    assert latent["norm1.running_var"].equal(float_weights["norm1.running_var"])
    history = train(PRETRAINED).history
    assert len(history) == 2 and history != train(PRETRAINED.but(train=QUICK.but(epochs=2))).history


def test_pretraining_goes_on_where_it_stopped(tmp_path):
    whole, checkpoint = train(PRETRAINED), tmp_path / "c.pt"
    before = checkpoint.with_suffix(".float.pt")
    state = Training(float_run(PRETRAINED, PRETRAINED.train.pretraining()))
    state.epoch(tqdm(disable=True))
    state.save(before)
    assert train(PRETRAINED, checkpoint=checkpoint, max_minutes=0) is None
    assert before.exists() and not checkpoint.exists()
    pieces = train(PRETRAINED, checkpoint=checkpoint)
    assert pieces.history == whole.history and pieces.test_accuracy == whole.test_accuracy
    assert checkpoint.exists() and not before.exists()


SLOW = RunSpec(BINARY, TrainSpec("digits", 6, batch=50, augment="crop"), 5, "killed", "binary-short")
CHILD = f"""
from bnnlib import ModelSpec, RunSpec, TrainSpec
from bnnlib.runs.runner import train_runs
train_runs([{SLOW!r}], "cpu")
"""


def without_times(path: Path) -> dict:
    return {k: v for k, v in json.loads(path.read_text()).items() if k not in ("seconds", "finished")}


def test_killed_and_resumed_gives_the_same_result_file(tmp_path, monkeypatch):
    train_runs([SLOW], "cpu", say=lambda line: None)
    expected = without_times(result_path(SLOW))
    # the child has to train with as many threads as this process: sums are ordered by thread
    environment = os.environ | {
        "BNN_RESULTS": str(tmp_path / "killed"),
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
    }
    checkpoints = tmp_path / "killed-checkpoints"
    environment["BNN_CHECKPOINTS"] = str(checkpoints)
    child = subprocess.Popen([sys.executable, "-c", CHILD], env=environment, cwd=paths.ROOT)
    deadline = time.monotonic() + 120
    while not list(checkpoints.glob("*.pt")) and time.monotonic() < deadline and child.poll() is None:
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL, "the child ended before it could be killed"
    assert list(checkpoints.glob("*.pt")) and not list((tmp_path / "killed").rglob("*.json"))
    monkeypatch.setenv("BNN_RESULTS", environment["BNN_RESULTS"])
    monkeypatch.setenv("BNN_CHECKPOINTS", str(checkpoints))
    train_runs([SLOW], "cpu", say=lambda line: None)
    assert without_times(result_path(SLOW)) == expected
    assert not list(checkpoints.glob("*.pt"))


@pytest.mark.parametrize("damage", ["truncated", "noise", "other spec", "missing key"])
def test_damaged_checkpoint_is_one_clear_line(tmp_path, damage):
    run, checkpoint = RunSpec(BINARY, QUICK, 0), tmp_path / "c.pt"
    Training(run).save(checkpoint)
    raw = checkpoint.read_bytes()
    if damage == "truncated":
        checkpoint.write_bytes(raw[: len(raw) // 2])
    elif damage == "noise":
        checkpoint.write_bytes(b"not a checkpoint")
    elif damage == "missing key":
        torch.save({"spec": run.hash}, checkpoint)
    else:
        Training(RunSpec(BINARY, QUICK, 1)).save(checkpoint)
    with pytest.raises(UserError, match=f"rm {checkpoint}") as caught:
        train(run, checkpoint=checkpoint)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_runs_no_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "owned"),))

    (tmp_path / "c.pt").write_bytes(pickle.dumps(Evil(), protocol=2))
    with pytest.raises(UserError, match="damaged"):
        train(RunSpec(BINARY, QUICK, 0), checkpoint=tmp_path / "c.pt")
    assert not (tmp_path / "owned").exists()


def test_divergence_and_impossible_sizes_are_named():
    for weights, acts in (("ffff", "fff"), ("8bbb", "bbb")):
        diverging = RunSpec(ModelSpec("lenet5", weights, acts, norm=False), QUICK.but(optimizer="sgd", lr=1e38), 0)
        with pytest.raises(UserError, match=r"(finite|NaN).*; try a lower lr than 1e\+38"):
            train(diverging)
    with pytest.raises(UserError, match="batch 5000"):
        train(RunSpec(BINARY, QUICK.but(batch=5000), 0))
    with pytest.raises(UserError, match="train_images 99999"):
        train(RunSpec(BINARY, QUICK.but(train_images=99999), 0))


def fake_study(monkeypatch, train_spec=QUICK):
    protocol = studies.Protocol(train_spec, train_spec, {"": 2})
    monkeypatch.setitem(studies.STUDIES, "tiny", studies.Study({"binary": BINARY}, {"short": protocol}))
    return studies.runs("tiny")


def test_results_round_trip_and_lock(monkeypatch):
    runs = fake_study(monkeypatch)
    train_runs(runs, "cpu", say=lambda line: None)
    table = load_results("tiny")
    assert list(table["seed"]) == [0, 1] and set(table["network"]) == {"binary"} and set(table["protocol"]) == {"short"}
    assert table["energy_uj"].tolist() == pytest.approx([0.0188, 0.0188], rel=0.005)
    before = result_path(runs[0]).read_bytes()
    lines = []
    train_runs(runs, "cpu", say=lines.append)
    assert result_path(runs[0]).read_bytes() == before and all("done already" in line for line in lines)
    train_runs(runs[:1], "cpu", overwrite=True, say=lines.append)
    assert without_times(result_path(runs[0])) == {
        k: v for k, v in json.loads(before).items() if k not in ("seconds", "finished")
    }


def test_result_of_a_changed_spec_is_refused_with_the_command(monkeypatch):
    (run, _) = fake_study(monkeypatch)
    write_result(run, make_result(run, train(run), "cpu"))
    (changed, _) = fake_study(monkeypatch, QUICK.but(lr=0.5))
    with pytest.raises(UserError, match="bnn train tiny --name binary-short --seed 0 --overwrite") as caught:
        load_result(changed)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="made with spec"):
        load_results("tiny")


def test_time_is_shared_by_the_runs(monkeypatch):
    runs = fake_study(monkeypatch)
    assert train_runs(runs, "cpu", max_minutes=0.0, say=lambda line: None) == 2


def test_committed_results_belong_to_their_specs(monkeypatch):
    monkeypatch.delenv("BNN_RESULTS")
    total = sum(len(load_results(study)) for study in STUDIES)
    assert total == len(list(RESULTS.rglob("*.json"))) > 0


def test_full_mode_trains_into_a_folder_of_its_own(monkeypatch, tmp_path):
    fake_study(monkeypatch, QUICK.but(epochs=1))
    monkeypatch.setattr("bnnlib.paths.BUILD", tmp_path / "build")
    train_anew("tiny", "short")
    assert len(list((tmp_path / "build/full/results/tiny").glob("*.json"))) == 2
    assert len(load_results("tiny")) == 2 and not (tmp_path / "results").exists()
