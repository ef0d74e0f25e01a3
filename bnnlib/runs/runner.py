"""Trains runs, one after another, side by side or on a cluster, and leaves a result file for each."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing

from tqdm import tqdm

from bnnlib import data, paths, studies
from bnnlib.errors import UserError
from bnnlib.files import check_writable, write_atomic
from bnnlib.runs import parallel
from bnnlib.runs.attempt import End, Task, attempt, checkpoint_path, load_data, packed_path
from bnnlib.specs import RunSpec
from bnnlib.studies.results import load_result, result_path, train_command, write_result
from bnnlib.training.checkpoints import load_checkpoint
from bnnlib.training.execution import Execution


class RunsFailedError(Exception):
    """Some runs failed, of which each was reported when it did; all others went on.

    Attributes:
        failed: the runs.
        left: how many more runs are left because the time was up.
    """

    def __init__(self, failed: list[RunSpec], left: int) -> None:
        super().__init__(f"failed: {', '.join(f'{run.name} seed {run.seed}' for run in failed)}")
        self.failed, self.left = failed, left


def _warn(line: str) -> None:
    print(line, file=sys.stderr)


def train_runs(
    runs: list[RunSpec],
    device: str | None = None,
    max_minutes: float | None = None,
    overwrite: bool = False,
    say: Callable[[str], None] = print,
    *,
    options: dict | None = None,
    jobs: int | None = None,
    scheduler: str | None = None,
    warn: Callable[[str], None] = _warn,
    pack: bool = False,
) -> int:
    """Train what has no result yet, one line per run.

    Args:
        runs: what to train.
        device: a torch device; None is ``cuda`` where there is one, else ``cpu``.
        max_minutes: time for all of them together.
        overwrite: train anew what is done.
        say: takes the lines.
        options: more of what Execution.choose() takes.
        jobs: how many at once; None is one, or with the scheduler ``local`` one per core.
        scheduler: the address of a Dask scheduler whose workers train, or ``local`` for one on this machine.
        warn: takes the lines of the runs that fail.
        pack: keep each trained network too, as a packed file (see ``bnnlib.packed``).

    Returns:
        How many runs are left because the time was up.

    Raises:
        UserError: the device is unknown, a result belongs to another spec, data are missing, or a folder is read-only.
        RunsFailedError: some runs failed; this comes when all the others have ended.
    """
    deadline = None if max_minutes is None else time.time() + 60 * max_minutes
    elsewhere = scheduler not in (None, "local")
    options = {"device": device} | (options or {})
    if not elsewhere:
        Execution.choose(**options)
    pending = [run for run in runs if overwrite or load_result(run) is None]
    for run in runs:
        if run not in pending:
            say(f"{run.name} seed {run.seed}: done already, {result_path(run)}")
    if pack:
        _check_packing(runs, pending)
    _check(pending, elsewhere)
    tasks = [Task(run, options, deadline, pack) for run in pending]
    failed, done, many = [], 0, scheduler is not None or (jobs or 1) > 1
    try:
        with (
            closing(_ends(tasks, jobs, scheduler, say)) as ends,
            tqdm(total=len(tasks), desc="runs", unit="run", disable=None if many and tasks else True) as bar,
        ):
            for end in ends:
                with tqdm.external_write_mode():
                    if end.result is not None:
                        done += 1
                        say(_keep(end))
                    elif end.failure is not None:
                        failed.append(end.run)
                        again = train_command(end.run) + (" --overwrite" if overwrite else "")
                        warn(f"{end.run.name} seed {end.run.seed} failed: {end.failure}; again: {again}")
                bar.update(not end.left)
    finally:
        load_data.cache_clear()
    left = len(tasks) - done - len(failed)
    if failed:
        raise RunsFailedError(failed, left)
    return left


def _check(pending: list[RunSpec], elsewhere: bool) -> None:
    """Find a user's mistake before hours of work, not after; workers elsewhere look at their own side themselves."""
    for folder in sorted({result_path(run).parent for run in pending}):
        check_writable(folder)
    if pending and not elsewhere:
        check_writable(paths.checkpoints_dir())
        for run in pending:
            if (path := checkpoint_path(run)).exists():
                load_checkpoint(path, run)
        for name in sorted({run.train.dataset for run in pending}):
            data.verify(name)


def _check_packing(runs: list[RunSpec], pending: list[RunSpec]) -> None:
    from bnnlib.packed import check_packable

    for run in runs:
        check_packable(run.model)
        if run not in pending and not packed_path(run).exists():
            raise UserError(f"{run.name} seed {run.seed} was trained and not packed; --overwrite trains it again")
        check_writable(packed_path(run).parent)


def _ends(tasks: list[Task], jobs: int | None, scheduler: str | None, say: Callable[[str], None]) -> Iterator[End]:
    """The Ends as they come; none for a task that was not begun because the time was up."""
    if scheduler is not None and tasks:
        from bnnlib.runs import cluster  # needs dask.distributed, which nothing else here does

        yield from cluster.ends(tasks, scheduler, jobs, say)
    elif jobs is not None and jobs > 1:
        yield from parallel.ends(tasks, jobs)
    else:
        for task in tasks:
            yield (end := attempt(task))
            if end.left:
                return


def _keep(end: End) -> str:
    """Write the result of a run, and what to say about it."""
    for suffix, content in end.packed.items():
        write_atomic(packed_path(end.run).with_suffix(suffix), content)
    path = write_result(end.run, end.result)
    checkpoint_path(end.run).unlink(missing_ok=True)
    accuracy, minutes = end.result["test_accuracy"], end.result["seconds"] / 60
    return f"{end.run.name} seed {end.run.seed}: test {accuracy:.2f} %, {minutes:.1f} minutes, {path}"


def train_anew(study: str, *protocols: str) -> None:
    """Train protocols of a study into ``build/full`` and read all results from there from now on.

    This is what a notebook does in its mode ``full``; committed results stay untouched, and an interrupted batch goes
    on where it stopped.
    """
    for variable, folder in (("BNN_RESULTS", "results"), ("BNN_CHECKPOINTS", "checkpoints")):
        os.environ[variable] = str(paths.BUILD / "full" / folder)
    for protocol in protocols:
        train_runs(studies.runs(study, protocol=protocol))
