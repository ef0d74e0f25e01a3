"""Runs side by side in processes of this machine.

A child trains one run after another and sends what it has to say through a pipe of its own; the parent gives out the
tasks and collects the Ends. A child that dies, of too little memory for example, takes one run with it, not the batch.
"""

import os
import signal
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import connection, get_context, resource_tracker

from tqdm import tqdm

from bnnlib.runs.attempt import End, Task, attempt


@dataclass(frozen=True)
class Progress:
    """How far a run is: ``n`` of ``total`` steps, and a word on it."""

    n: int
    total: int | None
    text: str


def ends(tasks: list[Task], jobs: int) -> Iterator[End]:
    """Train in up to ``jobs`` processes at once; the Ends as they come, none for a task that the time did not allow."""
    waiting, children = deque(tasks), []
    try:
        while children or _time_for(waiting):
            while len(children) < jobs and _time_for(waiting):
                row = min(set(range(jobs)) - {child.row for child in children})
                children.append(Child(row, threads_each(jobs)))
                children[-1].give(waiting.popleft())
            for pipe in connection.wait([child.pipe for child in children]):
                child = next(c for c in children if c.pipe is pipe)
                message = child.receive()
                if isinstance(message, Progress):
                    child.draw(message)
                    continue
                yield message
                if message.left:
                    waiting.clear()
                if child.alive and _time_for(waiting):
                    child.give(waiting.popleft())
                else:
                    child.dismiss()
                    children.remove(child)
    finally:
        for child in children:
            child.pipe.close()
        until = time.monotonic() + 3  # a step is shorter; a longer evaluation is not worth waiting for
        for child in children:
            child.dismiss(until - time.monotonic())


def _time_for(waiting: deque[Task]) -> bool:
    """There is a task, and time for it."""
    return bool(waiting) and (waiting[0].deadline is None or waiting[0].minutes() > 0)


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_each(jobs: int) -> str:
    """Threads of each of so many processes: ``$OMP_NUM_THREADS`` if set, else the cores divided among them."""
    return os.environ.get("OMP_NUM_THREADS") or str(max(1, cores() // jobs))


@contextmanager
def deaf_to_ctrl_c() -> Iterator[None]:
    """Ctrl-C goes to every process of a terminal; those that are started in here do not hear it, we stop them."""
    resource_tracker.ensure_running()  # multiprocessing's own helper: its start would undo the next line
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


class Child:
    """The parent's side of a process that trains, and its line on the terminal.

    Attributes:
        row: its line, counted from 0.
        alive: False once it died.
    """

    def __init__(self, row: int, threads: str) -> None:
        context = get_context("spawn")  # a fork would inherit torch's locks, without the threads that free them
        self.pipe, theirs = context.Pipe()
        self.row, self.alive, self.bar = row, True, None
        self.process = context.Process(target=_work, args=(theirs,), daemon=True)
        before = os.environ.get("OMP_NUM_THREADS")
        with deaf_to_ctrl_c():
            os.environ["OMP_NUM_THREADS"] = threads  # torch reads it once, when it is imported
            try:
                self.process.start()
            finally:
                if before is None:
                    del os.environ["OMP_NUM_THREADS"]
                theirs.close()  # the child has the only other end now: when it dies, the pipe says so

    def give(self, task: Task) -> None:
        """Let it begin a task."""
        self.run = task.run
        with suppress(OSError):  # it died meanwhile, as receive() will find out
            self.pipe.send(task)

    def receive(self) -> End | Progress:
        """What it says next; its death is the End of the run that it had."""
        try:
            message = self.pipe.recv()
        except (EOFError, OSError):
            self.alive = False
            self.process.join()
            message = End(self.run, failure=_death(self.process.exitcode))
        if isinstance(message, End) and self.bar is not None:
            self.bar.close()
            self.bar = None
        return message

    def draw(self, progress: Progress) -> None:
        """Show how far it is, if this is a terminal."""
        if self.bar is None:
            name = f"{self.run.name} seed {self.run.seed}"
            self.bar = tqdm(
                total=progress.total, initial=progress.n, desc=name, unit="step", position=self.row + 1, leave=False,
                disable=None,
            )  # fmt: skip
        self.bar.set_postfix_str(progress.text, refresh=False)
        self.bar.update(progress.n - self.bar.n)

    def dismiss(self, seconds: float = 3) -> None:
        """Let it end, by force if it takes longer."""
        self.pipe.close()
        self.process.join(max(0, seconds))
        self.process.kill()
        self.process.join()
        self.process.close()
        if self.bar is not None:
            self.bar.close()


def _death(status: int | None) -> str:
    if status is not None and status < 0:
        name = signal.Signals(-status).name
        memory = ", which is what happens when memory runs out; use fewer --jobs" if name == "SIGKILL" else ""
        return f"its process was ended by {name}{memory}"
    return f"its process ended with status {status}"


class Relay:
    """What train() takes for a progress bar: it tells the parent, a few times a second.

    Where there is no parent any more, or it has closed the pipe, telling fails, and that ends the training: between two
    steps, never while a checkpoint is written.
    """

    def __init__(self, pipe: connection.Connection) -> None:
        self.pipe, self.n, self.total, self.text, self.told = pipe, 0, None, "", 0.0

    def update(self, n: int = 1) -> None:
        self.n += n
        if time.monotonic() - self.told > 0.25:
            self.told = time.monotonic()
            self.pipe.send(Progress(self.n, self.total, self.text))

    def set_postfix_str(self, text: str, refresh: bool = True) -> None:
        self.text = text


def _work(pipe: connection.Connection) -> None:
    """The child: train what comes through the pipe until the parent closes it."""
    with suppress(EOFError, OSError):
        while True:
            pipe.send(attempt(pipe.recv(), Relay(pipe)))
    os._exit(0)  # Python would take seconds to clear up torch, and the parent waits
