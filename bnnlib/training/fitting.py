"""Training of a network and of images that are not this project's, by the loop of all others."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

from bnnlib.data import Data
from bnnlib.errors import UserError
from bnnlib.nn.layers import Image
from bnnlib.specs import OWN, TrainSpec
from bnnlib.training.execution import Execution
from bnnlib.training.loop import Outcome, train


@dataclass(frozen=True)
class OwnRun:
    """What ``train`` asks of a run, for a network that no ModelSpec describes."""

    network: str
    train: TrainSpec
    seed: int
    name: str

    @property
    def hash(self) -> str:
        """By which a checkpoint knows the run that it belongs to."""
        text = f"{self.network}\n{self.train.hash}\n{self.seed}"
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def fit(
    model: nn.Module,
    data: Data,
    protocol: TrainSpec,
    *,
    seed: int = 0,
    execution: Execution | None = None,
    checkpoint: Path | None = None,
    max_minutes: float | None = None,
    bar: tqdm | None = None,
) -> Outcome | None:
    """Train a network of ``bnnlib.binarize`` (or any that takes uint8 images) on images of your own.

    The epoch with the best validation accuracy is kept, and the test images are looked at once. ``model`` itself is
    trained, and ends in eval mode with those weights.

    Args:
        model: uint8 images [N, C, H, W] to logits [N, classes].
        data: ``Data.of(...)``.
        protocol: a ``TrainSpec`` of the data set ``own``.
        seed: of the order of the images, their augmentation and dropout; the weights are those of ``model``.
        execution: device and options; None is the default of the best device here.
        checkpoint: file to go on from if it exists, and to write after every epoch; None keeps nothing.
        max_minutes: do not start an epoch that would end later than this.
        bar: as of ``train``.

    Returns:
        The outcome, or None if the time was up first (the checkpoint then holds the rest).

    Raises:
        UserError: the images do not fit the network, or the protocol asks for what needs a ModelSpec.
    """
    asked = {
        f"dataset {protocol.dataset!r}": protocol.dataset != OWN,
        "a teacher": protocol.teacher is not None,
        f"pretrain_epochs={protocol.pretrain_epochs}": protocol.pretrain_epochs > 0,
    }
    foreign = next((what for what, is_asked in asked.items() if is_asked), None)
    if foreign:
        raise UserError(
            f"{foreign} needs a ModelSpec; use "
            f"TrainSpec({OWN!r}, ...), and fit the float network before it is binarized to start from its weights"
        )
    shape = tuple(data.train_x.shape[1:])
    for image in (module for module in model.modules() if isinstance(module, Image)):
        if image.shape != shape:
            raise UserError(f"the images are {list(shape)}, the network takes {list(image.shape)}; make them equal")
    if execution is None:
        execution = Execution.choose(kernels=False)  # they are for this project's own networks
    classes = _classes(model, data, execution.device)
    most = max(int(y.max()) for y in (data.train_y, data.val_y, data.test_y))
    if most >= classes:
        raise UserError(f"a label is {most}; the network has {classes} outputs, for labels from 0 to {classes - 1}")
    run = OwnRun(str(model), protocol, seed, type(getattr(model, "net", model)).__name__)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return train(
            run, execution=execution, checkpoint=checkpoint, max_minutes=max_minutes, data=data, model=model, bar=bar
        )


@torch.no_grad()
def _classes(model: nn.Module, data: Data, device: str) -> int:
    """The outputs of the network, of one image."""
    model.to(device).eval()
    return model(data.train_x[:1].to(device)).shape[1]
