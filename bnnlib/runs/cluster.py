"""Runs on the workers of a Dask cluster (https://distributed.dask.org), or of one that is made on this machine.

A run is one task. The worker trains it and hands back an End; the client, which is this process, writes the results, so
that a worker needs bnnlib and the data sets but no folder of the client's. When a worker dies, Dask gives its task to
another one, which goes on from the last epoch if both see the same checkpoint folder ($BNN_CHECKPOINTS), else from the
start. A task is named after its run: a scheduler never has two tasks of one run, whoever submits them.
"""

import hashlib
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path

import bnnlib
from bnnlib import data
from bnnlib.errors import UserError, counted
from bnnlib.runs.attempt import End, Task, attempt, checkpoint_path, one_line
from bnnlib.runs.parallel import cores, deaf_to_ctrl_c, threads_each
from bnnlib.specs import RunSpec
from bnnlib.training.execution import Execution

try:
    import dask
    from distributed import Client, LocalCluster, as_completed, get_worker
    from distributed.scheduler import KilledWorker
    from distributed.utils import silence_logging_cmgr
except ImportError as error:
    raise UserError("--scheduler needs dask.distributed; pip install -c requirements.lock -e '.[cluster]'") from error

PATIENCE = 10  # seconds that a scheduler has to answer


def ends(tasks: list[Task], scheduler: str, jobs: int | None, say: Callable[[str], None]) -> Iterator[End]:
    """Train on a cluster; the Ends as they come.

    Args:
        tasks: what to train.
        scheduler: its address, or ``local``.
        jobs: workers of ``local``; None is one per core.
        say: takes a line about the cluster.

    Raises:
        UserError: no scheduler answers, it was lost, or one of its workers cannot train these runs.
    """
    with ExitStack() as stack:
        stack.enter_context(silence_logging_cmgr(logging.CRITICAL))  # what matters of it is said here, in a line
        if scheduler == "local":
            scheduler = stack.enter_context(local(jobs or cores())).scheduler_address
        client = stack.enter_context(connected(scheduler))
        _check_workers(client, tasks)
        workers = len(client.nthreads())
        say(f"{scheduler}: {counted(workers, 'worker')}" + ("" if workers else "; waiting for the first"))
        version = code_version()
        runs = {client.submit(train_task, task, version, key=task_key(task.run)): task.run for task in tasks}
        for future in as_completed(list(runs), loop=client.loop):
            run = runs.pop(future)
            if future.cancelled():
                raise UserError(f"the scheduler {scheduler} was lost; finished runs are kept, the same command goes on")
            error = future.exception()
            if error is not None:
                yield End(run, failure=_failure(error))
                continue
            end, address = future.result()
            yield end
            if end.result is not None:  # now it is written
                client.run(forget, run, workers=[address], on_error="ignore")


@contextmanager
def local(workers: int) -> Iterator[LocalCluster]:
    """A cluster of so many processes on this machine."""
    with (
        deaf_to_ctrl_c(),
        dask.config.set({"distributed.nanny.pre-spawn-environ.OMP_NUM_THREADS": threads_each(workers)}),
    ):
        cluster = LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address=None,
            memory_limit=0,  # none: a worker that Dask pauses or restarts would only lose an epoch
            silence_logs=logging.CRITICAL,
        )
    with cluster:
        yield cluster


@contextmanager
def connected(scheduler: str) -> Iterator[Client]:
    try:
        client = Client(scheduler, timeout=PATIENCE, set_as_default=False, name="bnn")
    except (OSError, ValueError) as error:  # TimeoutError is an OSError; an address that is none, a ValueError
        raise UserError(
            f"no Dask scheduler answers at {scheduler!r}; start one with `dask scheduler`, or use --scheduler local"
        ) from error
    with client:
        yield client


def _check_workers(client: Client, tasks: list[Task]) -> None:
    """Refuse a worker that is there already and cannot train these runs; one that comes later checks itself."""
    names = sorted({task.run.train.dataset for task in tasks})
    nthreads = client.nthreads()
    answers = client.run(unfit, code_version(), names, tasks[0].options, on_error="return")
    for address, answer in answers.items():
        if isinstance(answer, Exception):
            answer = f"this bnnlib is not there ({one_line(answer)}); install {code_version()}"
        if answer := answer or too_many_threads(nthreads.get(address, 1)):
            raise UserError(f"worker {address}: {answer}")


def _failure(error: BaseException) -> str:
    if isinstance(error, KilledWorker):
        return f"{error.allowed_failures + 1} workers died while they had it, the last was {error.last_worker.address}"
    return one_line(error)


def task_key(run: RunSpec) -> str:
    """The name of the task of a run."""
    return f"bnn-{run.study}-{run.name}-s{run.seed}-{run.hash}"


@cache
def code_version() -> str:
    """Version and the start of a hash of the source of bnnlib, as this process has it."""
    digest = hashlib.sha256()
    for path in sorted(Path(bnnlib.__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return f"bnnlib {bnnlib.__version__} ({digest.hexdigest()[:8]})"


# From here on: what workers do.


def unfit(version: str, datasets: list[str], options: dict) -> str | None:
    """Why this worker cannot train, or None if it can."""
    if version != code_version():
        return f"it has {code_version()}, this client {version}; install the same on both"
    try:
        Execution.choose(**options)
        for name in datasets:
            data.verify(name)
    except UserError as error:
        return str(error)
    return None


def too_many_threads(threads: int) -> str | None:
    """Why a worker of so many threads cannot train, or None if it can."""
    if threads == 1:
        return None
    return f"it would train {threads} runs in one process, which share torch's generators; start it with --nthreads 1"


class Watch:
    """What train() takes for a progress bar: it stops a training that nobody waits for any more."""

    class StoppedError(BaseException):
        """Not an Exception: no failure of the run."""

    def __init__(self) -> None:
        self.tasks, self.key, self.looked = get_worker().state.tasks, get_worker().get_current_task(), 0.0

    def update(self, n: int = 1) -> None:
        if time.monotonic() - self.looked > 1:
            self.looked = time.monotonic()
            task = self.tasks.get(self.key)
            # Dask cannot stop a thread: it only marks a task whose client has gone, or cancelled it.
            if task is None or task.state == "cancelled":
                raise self.StoppedError

    def set_postfix_str(self, text: str, refresh: bool = True) -> None:
        pass


_over: set[float] = set()  # deadlines for which an epoch was too long already


def train_task(task: Task, version: str) -> tuple[End, str]:
    """Train a run on this worker; its End, and the address of the worker."""
    worker = get_worker()
    if task.deadline in _over:
        return End(task.run), worker.address
    wrong = too_many_threads(worker.state.nthreads) or unfit(version, [], task.options)
    try:
        end = End(task.run, failure=wrong) if wrong else attempt(task, Watch())
    except Watch.StoppedError:
        end = End(task.run)
    if end.left and task.deadline is not None:
        _over.add(task.deadline)
    if end.failure is not None:
        end = End(task.run, failure=f"worker {worker.address}: {end.failure}")
    return end, worker.address


def forget(run: RunSpec) -> None:
    """Remove the checkpoint of a run whose result is written."""
    checkpoint_path(run).unlink(missing_ok=True)
