"""Runs on a real Dask cluster of two worker processes on this machine, through the loopback interface only."""

import os
import signal
import sys
import threading

import pytest
from helpers import epochs_in, wait_for

from bnnlib import UserError, runs
from bnnlib.runs import cluster, runner
from bnnlib.runs.attempt import Task, checkpoint_path
from bnnlib.runs.lock import locked
from bnnlib.runs.runner import RunsFailedError, train_runs
from bnnlib.specs import ModelSpec, RunSpec, TrainSpec
from bnnlib.studies.results import load_result
from bnnlib.training.execution import Execution
from bnnlib.training.loop import Training

BINARY = ModelSpec("lenet5", "bbbb", "bbb")
QUICK = TrainSpec("digits", 2, batch=50, train_images=100)
PLAIN = {"device": "cpu", "kernels": False}  # nothing to compile in each worker
MARK = 1e6  # seconds of training, which only a checkpoint of these tests can bring about


def run(seed: int, epochs: int = 2) -> RunSpec:
    return RunSpec(BINARY, QUICK.but(epochs=epochs), seed, "tiny", f"binary{epochs}-short")


DIVERGING = RunSpec(
    ModelSpec("lenet5", "ffff", "fff", norm=False), QUICK.but(optimizer="sgd", lr=1e38), 0, "tiny", "float-short"
)


@pytest.fixture(scope="module")
def workers(tmp_path_factory):
    """The cluster; its workers see the folder ``shared`` as the checkpoint store, and no data sets."""
    folder = tmp_path_factory.mktemp("cluster")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BNN_CHECKPOINTS", str(folder / "shared"))
        patch.setenv("BNN_DATA", str(folder / "nothing"))
        patch.setenv("OMP_NUM_THREADS", "1")
        with cluster.local(2) as made:
            made.shared = folder / "shared"
            yield made


@pytest.fixture(autouse=True)
def client_side(workers, tmp_path, monkeypatch):
    monkeypatch.setenv("BNN_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("BNN_CHECKPOINTS", str(workers.shared))


def train_there(workers, runs: list[RunSpec], **options: object) -> int:
    return train_runs(runs, scheduler=workers.scheduler_address, options=PLAIN, **options)


def leave_checkpoint(run: RunSpec) -> None:
    """A checkpoint after one epoch that carries the mark."""
    state = Training(run, Execution.choose(**PLAIN))
    state.epoch(type("NoBar", (), {"update": lambda self, n=1: None, "set_postfix_str": lambda self, text: None})())
    state.seconds = MARK
    state.save(checkpoint_path(run))


def kill_the_worker_of(workers, run: RunSpec) -> int:
    """SIGKILL for the worker that trains a run, once it has added an epoch; how many its checkpoint then has."""
    wait_for(lambda: checkpoint_path(run).exists() and epochs_in(checkpoint_path(run)) > 1)
    address = workers.scheduler.tasks[cluster.task_key(run)].processing_on.address
    (nanny,) = [nanny for nanny in workers.workers.values() if nanny.worker_address == address]
    os.kill(nanny.pid, signal.SIGKILL)
    return epochs_in(checkpoint_path(run))


@pytest.mark.slow
def test_a_killed_worker_loses_no_finished_run_and_its_own_goes_on(workers, monkeypatch, capsys):
    long, others = run(0, epochs=16), [run(seed) for seed in (1, 2)]
    leave_checkpoint(long)
    written, write = [], runner.write_result
    monkeypatch.setattr(runner, "write_result", lambda run, result: (written.append(run), write(run, result))[1])
    reached = []
    killer = threading.Thread(target=lambda: reached.append(kill_the_worker_of(workers, long)))
    killer.start()
    with pytest.raises(RunsFailedError) as caught:
        train_there(workers, [long, DIVERGING, *others])
    killer.join()
    assert caught.value.failed == [DIVERGING] and caught.value.left == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("float-short seed 0 failed: worker tcp://127.0.0.1:") and "try a lower lr" in line
    assert line.endswith("; again: bnn train tiny --name float-short --seed 0")

    assert 1 < reached[0] < 16  # it was killed in the middle, and both who trained it began at the checkpoint
    assert load_result(long)["seconds"] > MARK and len(load_result(long)["history"]["val_accuracy"]) == 16
    assert len(written) == 3 and set(written) == {long, *others}
    for done in others:
        story = workers.scheduler.story(cluster.task_key(done))
        assert sum(event[1:3] == ("processing", "memory") for event in story) == 1  # trained once
    assert not list(workers.shared.iterdir())  # no checkpoint, no lock


def test_without_a_shared_store_a_worker_starts_anew_and_tidies_up(workers, monkeypatch, tmp_path):
    monkeypatch.setenv("BNN_CHECKPOINTS", str(tmp_path / "own"))  # the client's; that of the workers stays
    leave_checkpoint(run(4))
    assert train_there(workers, [run(4)], say=lambda line: None) == 0
    assert load_result(run(4))["seconds"] < MARK
    assert not list(workers.shared.iterdir())


def test_a_run_that_nobody_waits_for_stops(workers):
    endless = run(5, epochs=100_000)
    with cluster.connected(workers.scheduler_address) as client:
        future = client.submit(cluster.train_task, Task(endless, PLAIN), cluster.code_version())
        wait_for(checkpoint_path(endless).exists)
        lock = checkpoint_path(endless).with_suffix(".lock")
        with pytest.raises(UserError, match="another process"), locked(lock, patience=0):
            pass
        future.release()
        with locked(lock, patience=30):
            pass
    checkpoint_path(endless).unlink()


def test_the_time_box_holds_for_workers(workers):
    assert train_there(workers, [run(6), run(7)], max_minutes=0, say=lambda line: None) == 2


def test_a_worker_with_another_bnnlib_is_refused(workers, monkeypatch):
    monkeypatch.setattr(cluster, "code_version", lambda: "bnnlib 0.9")
    with pytest.raises(UserError, match=r"^worker tcp://\S+: it has bnnlib .*, this client bnnlib 0.9; install"):
        train_there(workers, [run(8)])


def test_a_worker_without_the_data_is_named(workers):
    mnist = RunSpec(BINARY, TrainSpec("mnist", 1), 0, "tiny", "binary-short")
    with pytest.raises(UserError, match=r"^worker tcp://\S+: .*bnn data get mnist"):
        train_there(workers, [mnist])


def test_a_worker_of_many_threads_is_refused():
    assert cluster.too_many_threads(1) is None
    assert "--nthreads 1" in cluster.too_many_threads(4)


@pytest.fixture
def train_on(bnn):
    """Run `bnn train lenet-mnist --scheduler ADDRESS`; gives (exit status, standard error)."""

    def call(address: str) -> tuple[int, str]:
        status, _, err = bnn("train", "lenet-mnist", "--overwrite", "--scheduler", address)
        return status, err

    return call


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "carrier-pigeon://roof"])
def test_an_unreachable_scheduler_is_one_line(train_on, monkeypatch, address):
    monkeypatch.setattr(cluster, "PATIENCE", 0.5)
    status, err = train_on(address)
    assert status == 2 and len(err.splitlines()) == 1
    assert err.startswith(f"bnn: no Dask scheduler answers at '{address}'; ")


def test_without_the_extra_it_is_one_line(train_on, monkeypatch):
    monkeypatch.delitem(sys.modules, "bnnlib.runs.cluster")
    monkeypatch.delattr(runs, "cluster")
    monkeypatch.setitem(sys.modules, "distributed", None)
    status, err = train_on("tcp://127.0.0.1:1")
    assert (status, err) == (
        2,
        "bnn: --scheduler needs dask.distributed; pip install -c requirements.lock -e '.[cluster]'\n",
    )
