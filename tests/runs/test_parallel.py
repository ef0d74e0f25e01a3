"""Several runs at once: the same results as one after another, whatever happens to the processes."""

import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from multiprocessing import active_children

import pytest
from helpers import epochs_in, wait_for

from bnnlib import UserError, studies
from bnnlib.paths import ROOT
from bnnlib.runs import parallel, runner
from bnnlib.runs.attempt import Task, checkpoint_path
from bnnlib.runs.lock import locked
from bnnlib.runs.runner import RunsFailedError, train_runs
from bnnlib.specs import ModelSpec, RunSpec, TrainSpec
from bnnlib.studies.results import load_result, result_path
from bnnlib.training.loop import Training

BINARY = ModelSpec("lenet5", "bbbb", "bbb")
QUICK = TrainSpec("digits", 2, batch=50, train_images=100)
PLAIN = {"device": "cpu", "kernels": False}  # nothing to compile in each child


def run(seed: int, epochs: int = 2, **changes: object) -> RunSpec:
    return RunSpec(BINARY, QUICK.but(epochs=epochs, **changes), seed, "tiny", f"binary{epochs}-short")


DIVERGING = RunSpec(
    ModelSpec("lenet5", "ffff", "fff", norm=False), QUICK.but(optimizer="sgd", lr=1e38), 0, "tiny", "float-short"
)


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("BNN_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("BNN_CHECKPOINTS", str(tmp_path / "checkpoints"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as many as this process has: sums are ordered by thread


def lasting(run: RunSpec) -> dict:
    """A result without what differs each time."""
    return {k: v for k, v in load_result(run).items() if k not in ("seconds", "finished")}


def test_a_killed_and_a_diverging_run_stop_no_other_and_results_equal_those_one_by_one(tmp_path, monkeypatch, capsys):
    long, other = run(0, epochs=12), run(1)

    def kill() -> None:
        wait_for(checkpoint_path(long).exists)
        os.kill(min(child.pid for child in active_children()), signal.SIGKILL)  # the first child has the first run

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(RunsFailedError, match="binary12-short seed 0") as caught:
        train_runs([long, DIVERGING, other], jobs=2, options=PLAIN)
    killer.join()
    said = capsys.readouterr()
    assert set(caught.value.failed) == {long, DIVERGING} and caught.value.left == 0
    assert len(said.err.splitlines()) == 2 and len(said.out.splitlines()) == 1
    (killed,) = [line for line in said.err.splitlines() if line.startswith("binary12-short seed 0 failed: ")]
    assert "SIGKILL" in killed and killed.endswith("; again: bnn train tiny --name binary12-short --seed 0")
    assert "float-short seed 0 failed: " in said.err and "try a lower lr" in said.err
    assert not result_path(long).exists() and not result_path(DIVERGING).exists()
    assert not active_children()

    # the same command goes on from the checkpoint
    before, trained, epoch = epochs_in(checkpoint_path(long)), [], Training.epoch
    monkeypatch.setattr(Training, "epoch", lambda self, bar: (trained.append(1), epoch(self, bar)))
    train_runs([long, other], say=lambda line: None, options=PLAIN)
    assert 1 <= before < 12 and len(trained) == 12 - before
    assert not list((tmp_path / "checkpoints").iterdir())  # no checkpoint, no lock, no half file

    at_once = [lasting(r) for r in (long, other)]
    monkeypatch.setenv("BNN_RESULTS", str(tmp_path / "again"))
    train_runs([long, other], say=lambda line: None, options=PLAIN)
    assert [lasting(r) for r in (long, other)] == at_once


def test_when_the_time_is_up_nothing_more_begins():
    soon = time.time() + 1  # over before the child is up
    ends = list(parallel.ends([Task(run(seed), PLAIN, soon) for seed in range(3)], 1))
    assert [end.left for end in ends] == [True] and not active_children()


CHILD = f"""
import functools, signal, sys
from bnnlib import ModelSpec, TrainSpec, cli, studies
from bnnlib.runs import runner
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts what is in its background deaf to it
runner.train_runs = functools.partial(runner.train_runs, options={PLAIN!r})
endless = {QUICK.but(epochs=100_000)!r}
protocol = studies.Protocol(endless, endless, {{"": 3}})
studies.STUDIES["tiny"] = studies.Study({{"binary": {BINARY!r}}}, {{"short": protocol}})
sys.argv = ["bnn", "train", "tiny", "--jobs", "2"]
cli.main()
"""


@pytest.mark.slow
def test_ctrl_c_leaves_checkpoints_and_no_process(tmp_path):
    checkpoints = tmp_path / "checkpoints"
    bnn = subprocess.Popen(
        [sys.executable, "-c", CHILD], cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        wait_for(lambda: len(list(checkpoints.glob("*.pt"))) == 2 or bnn.poll() is not None)
        os.killpg(bnn.pid, signal.SIGINT)  # as a terminal does
        _, err = bnn.communicate(timeout=60)
        wait_for(lambda: not group_exists(bnn.pid))
    finally:
        if group_exists(bnn.pid):
            os.killpg(bnn.pid, signal.SIGKILL)
        bnn.wait()
    line = "bnn: interrupted; the same command goes on (a batch of notebooks with --resume)"
    assert bnn.returncode == 130 and err.strip() == line  # click ends the terminal's own ^C with an empty line
    assert sorted(path.suffix for path in checkpoints.iterdir()) == [".pt", ".pt"]
    assert all(epochs_in(path) >= 1 for path in checkpoints.iterdir())


def group_exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_two_processes_never_train_the_same_run(tmp_path):
    lock = tmp_path / "folder" / "run.lock"
    with locked(lock), pytest.raises(UserError, match=str(lock)), locked(lock, patience=0):
        pass
    assert not lock.exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"), locked(tmp_path / "file" / "run.lock"):
        pass


@pytest.fixture
def train_tiny(monkeypatch, bnn):
    """Run `bnn train ...` where a study `tiny` is; gives (exit status, standard output, standard error)."""
    good, bad = studies.Protocol(QUICK, QUICK, {"": 1}), studies.Protocol(DIVERGING.train, DIVERGING.train, {"": 1})
    study = studies.Study({"float": DIVERGING.model, "binary": BINARY}, {"short": good, "wild": bad})
    monkeypatch.setitem(studies.STUDIES, "tiny", study)
    monkeypatch.setattr(runner, "train_runs", partial(train_runs, options=PLAIN))

    def call(*arguments: str) -> tuple[int, str, str]:
        ended = bnn("train", *arguments)
        assert not active_children()
        return ended

    return call


def test_a_failed_run_is_a_line_and_status_1_and_the_next_run_goes_on(train_tiny):
    status, out, err = train_tiny("tiny", "--protocol", "wild", "--name", "float", "--overwrite")
    assert status == 1 and out == "1 run failed\n" and len(err.splitlines()) == 1
    assert err.startswith("bnn: float-wild seed 0 failed: ")
    assert err.endswith("; again: bnn train tiny --name float-wild --seed 0 --overwrite\n")
    status, out, err = train_tiny("tiny")
    assert status == 0 and out.count(": test ") == 2 and err == ""


def test_an_unexpected_error_is_a_line_as_well(train_tiny, monkeypatch):
    def breaks(*arguments, **options):
        raise RuntimeError("out of memory\nand so on")

    monkeypatch.setattr("bnnlib.runs.attempt.train", breaks)
    status, out, err = train_tiny("tiny")
    assert status == 1 and out == "2 runs failed\n" and len(err.splitlines()) == 2
    assert "RuntimeError: out of memory (test_parallel.py, line" in err and "Traceback" not in err


def test_mistakes_are_found_before_any_process_starts(train_tiny, monkeypatch, tmp_path):
    assert train_tiny("tiny", "--jobs", "0")[0] == 2
    assert train_tiny("imagenet", "--jobs", "2")[0] == 2
    status, _, err = train_tiny("tiny", "--jobs", "2", "--scheduler", "tcp://127.0.0.1:1")
    assert status == 2 and "--jobs 2 is for this machine" in err and len(err.splitlines()) == 1
    status, out, _ = train_tiny("tiny", "--jobs", "2", "--max-minutes", "0")
    assert status == 75 and out == "2 runs left; the same command goes on\n"
    monkeypatch.setenv("BNN_DATA", str(tmp_path))
    status, _, err = train_tiny("lenet-mnist", "--jobs", "2")
    assert status == 2 and "bnn data get mnist" in err and len(err.splitlines()) == 1
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BNN_CHECKPOINTS", str(tmp_path / "file" / "checkpoints"))
    status, _, err = train_tiny("tiny", "--jobs", "2")
    assert status == 2 and "cannot write" in err and len(err.splitlines()) == 1


def test_cores_are_shared_unless_the_user_said_otherwise(monkeypatch):
    assert parallel.threads_each(4) == "1"
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(parallel, "cores", lambda: 9)
    assert [parallel.threads_each(jobs) for jobs in (1, 2, 4, 20)] == ["9", "4", "2", "1"]
