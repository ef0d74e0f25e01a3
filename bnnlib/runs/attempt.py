"""One try at one run, the same in this process, in a child and on another machine: a Task goes in, an End comes out.

Nothing here writes a result: whoever started the run does, once it has the End. The checkpoint stays until then, so
that an End that gets lost costs one evaluation.
"""

import platform
import time
import traceback
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

import bnnlib
from bnnlib import data, paths
from bnnlib.errors import UserError
from bnnlib.runs.lock import locked
from bnnlib.runs.provenance import instructions, source_commit
from bnnlib.specs import ARCHS, RunSpec
from bnnlib.studies import predictions
from bnnlib.studies.results import train_command
from bnnlib.training.execution import Execution, device_name
from bnnlib.training.loop import Outcome, train


@dataclass(frozen=True)
class Task:
    """What a process needs to train a run.

    Attributes:
        run: the run.
        options: what Execution.choose() takes; the process that trains chooses, for its own device.
        deadline: UNIX time in seconds at which the time is up (absolute, as a task may wait long before it starts).
        pack: pack the trained network too.
    """

    run: RunSpec
    options: dict = field(default_factory=dict)
    deadline: float | None = None
    pack: bool = False

    def minutes(self) -> float | None:
        """What is left of the time, in minutes; None is without end."""
        return None if self.deadline is None else (self.deadline - time.time()) / 60


@dataclass(frozen=True)
class End:
    """How a try ended: with a ``result`` (JSON-ready), with a ``failure`` (one line), or, without both, in time.

    ``packed`` is the trained network as files, by the end of their names, if the task asked for it.
    """

    run: RunSpec
    result: dict | None = None
    failure: str | None = None
    packed: dict[str, bytes] = field(default_factory=dict)

    @property
    def left(self) -> bool:
        """The time was up first; the checkpoint holds what was done."""
        return self.result is None and self.failure is None


def attempt(task: Task, bar: tqdm | None = None) -> End:
    """Train a run; whatever goes wrong with it becomes the End's failure.

    Args:
        task: what to do.
        bar: takes the progress, as train() gives it; None is a bar on the terminal.
    """
    run, minutes = task.run, task.minutes()
    if minutes is not None and minutes <= 0:
        return End(run)
    source_commit()  # asked before the training, not after: meanwhile the files may change
    try:
        execution = Execution.choose(**task.options)
        images = load_data(run.train.dataset, ARCHS[run.model.arch].image)
        path = checkpoint_path(run)
        with locked(path.with_suffix(".lock")):
            outcome = train(run, execution=execution, checkpoint=path, max_minutes=minutes, data=images, bar=bar)
        if outcome is None:
            return End(run)
        packed = packed_files(outcome.model.cpu(), run) if task.pack else {}
        return End(run, result=make_result(run, outcome, execution.device, task.options), packed=packed)
    except UserError as error:
        return End(run, failure=str(error))
    except Exception as error:  # out of memory, a bug: the other runs go on
        return End(run, failure=one_line(error))


def packed_files(model: nn.Sequential, run: RunSpec) -> dict[str, bytes]:
    """A trained network as packed file, and what ``bnn verify`` needs beside it."""
    from bnnlib import packed  # needs safetensors, which training alone does not

    files = {".safetensors": packed.as_bytes(packed.pack(model, run.model)), ".norms": packed.norms(model)}
    return {suffix: content for suffix, content in files.items() if content is not None}


def packed_path(run: RunSpec) -> Path:
    """Where the packed network of a run lives."""
    return paths.packed_dir() / run.study / f"{run.name}-s{run.seed}.safetensors"


@lru_cache(maxsize=1)  # the runs of a study follow one another and share theirs
def load_data(name: str, image: tuple[int, int, int]) -> data.Data:
    """A data set, kept in memory for the next run of this process."""
    return data.load(name, image)


def checkpoint_path(run: RunSpec) -> Path:
    """Where the unfinished training of a run lives, as this machine sees it."""
    return paths.checkpoints_dir() / f"{run.study}-{run.name}-s{run.seed}-{run.hash}.pt"


def one_line(error: BaseException) -> str:
    """An unexpected error with the place that it comes from."""
    text = (str(error).strip().splitlines() or ["no message"])[0]
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {text}{place}"


def make_result(run: RunSpec, outcome: Outcome, device: str, options: dict | None = None) -> dict:
    """What the result file of a finished run holds, JSON-ready; made where the run was trained.

    Args:
        run, outcome, device: what was trained, what came of it, and on which device.
        options: how somebody chose to execute it, as of ``train_command``.
    """
    best = outcome.history[outcome.best_epoch - 1]
    curves = [key for key in best if key != "epoch" and all(key in row for row in outcome.history)]
    return {
        "study": run.study,
        "name": run.name,
        "seed": run.seed,
        "spec_hash": run.hash,
        "spec": run.as_dict(),
        "data_sha256": outcome.data_checksum,
        "best_epoch": outcome.best_epoch,
        "val_accuracy": best["val_accuracy"],
        "test_accuracy": outcome.test_accuracy,
        "history": {key: [round(row[key], 6) for row in outcome.history] for key in curves},
        "predictions": {part: predictions.encode(classes.numpy()) for part, classes in outcome.predictions.items()},
        "command": train_command(run, options),
        "commit": source_commit(),
        "device": device_name(device),
        "instructions": instructions(device),
        "execution": outcome.execution.as_dict(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "bnnlib": bnnlib.__version__,
        },
        "seconds": round(outcome.seconds, 1),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
