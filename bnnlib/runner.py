"""Trains runs one after another and leaves a result file for each."""

import os
import time
from collections.abc import Callable

import torch

from bnnlib import data, paths, studies
from bnnlib.errors import UserError
from bnnlib.files import check_writable
from bnnlib.models import ARCHS
from bnnlib.results import load_result, result_path, save_result, train_command
from bnnlib.specs import RunSpec
from bnnlib.train import train


def train_runs(
    runs: list[RunSpec],
    device: str | None = None,
    max_minutes: float | None = None,
    overwrite: bool = False,
    say: Callable[[str], None] = print,
) -> int:
    """Train what has no result yet, one line a run.

    Args:
        runs: what to train.
        device: a torch device; None is ``cuda`` where there is one, else ``cpu``.
        max_minutes: time for all of them together.
        overwrite: train anew what is done.
        say: takes the lines.

    Returns:
        How many runs are left because the time was up.

    Raises:
        UserError: the device is unknown, a result belongs to another spec, data are missing, or a folder is read-only.
    """
    device = check_device(device)
    started = time.monotonic()
    pending = [run for run in runs if overwrite or load_result(run) is None]
    for run in runs:
        if run not in pending:
            say(f"{run.name} seed {run.seed}: done already, {result_path(run)}")
        else:
            check_writable(result_path(run).parent)  # before hours of work, not after
    loaded: dict[tuple, data.Data] = {}
    for i, run in enumerate(pending):
        remaining = None if max_minutes is None else max_minutes - (time.monotonic() - started) / 60
        if remaining is not None and remaining <= 0:
            return len(pending) - i
        key = (run.train.dataset, ARCHS[run.model.arch].image)
        if key not in loaded:
            loaded[key] = data.load(*key)
        checkpoint = paths.checkpoints_dir() / f"{run.study}-{run.name}-s{run.seed}-{run.hash}.pt"
        try:
            outcome = train(run, device=device, checkpoint=checkpoint, max_minutes=remaining, data=loaded[key])
        except UserError as error:
            raise UserError(f"{error} (the run was: {train_command(run)})") from error
        if outcome is None:
            return len(pending) - i
        path = save_result(run, outcome, device)
        checkpoint.unlink(missing_ok=True)
        minutes = outcome.seconds / 60
        say(f"{run.name} seed {run.seed}: test {outcome.test_accuracy:.2f} %, {minutes:.1f} minutes, {path}")
    return 0


def train_anew(study: str, *protocols: str) -> None:
    """Train protocols of a study into ``build/full`` and read all results from there from now on.

    This is what a notebook does in its mode ``full``; committed results stay untouched, and an interrupted batch goes
    on where it stopped.
    """
    for variable, folder in (("BNN_RESULTS", "results"), ("BNN_CHECKPOINTS", "checkpoints")):
        os.environ[variable] = str(paths.BUILD / "full" / folder)
    for protocol in protocols:
        train_runs(studies.runs(study, protocol=protocol))


def check_device(device: str | None) -> str:
    """The device to use.

    Raises:
        UserError: torch does not know it, or does not have it here.
    """
    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros((), device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device {device!r} cannot be used here; use cpu, or cuda where torch has a GPU") from error
    return device
