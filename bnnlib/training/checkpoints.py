"""Checkpoints of unfinished trainings: what one holds, and how it is read without running what is in it."""

from pathlib import Path

import torch

from bnnlib.errors import UserError
from bnnlib.specs import RunSpec

CHECKPOINT = {
    "spec", "data", "history", "best_epoch", "best_state", "seconds", "model", "optimizer", "generator", "average",
}  # fmt: skip


def load_checkpoint(path: Path, run: RunSpec, device: torch.device | str = "cpu") -> dict:
    """What ``Training.save`` wrote for this run; nothing but tensors and plain values is unpickled.

    Raises:
        UserError: the file is damaged, or belongs to another spec.
    """
    anew = f"delete it to start anew: rm {path}"
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        whole = state.keys() == CHECKPOINT
    except Exception as error:  # torch.load has no error of its own: zip, pickle, key and type errors all mean this
        raise UserError(f"checkpoint {path} is damaged; {anew}") from error
    if not whole:
        raise UserError(f"checkpoint {path} is damaged; {anew}")
    if state["spec"] != run.hash:
        raise UserError(f"checkpoint {path} belongs to another spec; {anew}")
    return state
