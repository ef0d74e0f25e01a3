"""Is a packed network the PyTorch network that it came from? On every test image, with no tolerance."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from bnnlib import data, paths
from bnnlib.files import read_json
from bnnlib.nn.layers import QuantLinear
from bnnlib.packed.files import as_bytes
from bnnlib.packed.fold import pack
from bnnlib.packed.network import PackedNet
from bnnlib.packed.reference import read
from bnnlib.specs import ARCHS


@dataclass(frozen=True)
class Verification:
    """What ``verify`` found.

    Attributes:
        name: study and run.
        size: bytes of the file.
        images: how many were compared.
        torch_accuracy, packed_accuracy, stated_accuracy: in percent; the last of the run's result file.
        differing_sums, differing_predictions: how many of the images have any.
        repacked: whether packing the PyTorch network again gives the same file.
    """

    name: str
    size: int
    images: int
    torch_accuracy: float
    packed_accuracy: float
    stated_accuracy: float
    differing_sums: int
    differing_predictions: int
    repacked: bool

    @property
    def equal(self) -> bool:
        """Nothing differs anywhere."""
        same = self.torch_accuracy == self.packed_accuracy == self.stated_accuracy
        return same and self.repacked and not self.differing_sums and not self.differing_predictions

    def line(self) -> str:
        """For people."""
        wrong = []
        if self.differing_sums:
            wrong.append(f"{self.differing_sums} images with other sums")
        if self.differing_predictions:
            wrong.append(f"{self.differing_predictions} other predictions")
        if not self.repacked:
            wrong.append("packing it again gives another file")
        if self.stated_accuracy != self.packed_accuracy:
            wrong.append(f"its result says {self.stated_accuracy:.2f} %")
        verdict = "DIFFERENT: " + ", ".join(wrong) if wrong else "all sums and predictions equal"
        return (
            f"{self.name}: {self.size:,} bytes; {self.images:,} test images: PyTorch {self.torch_accuracy:.2f} %, "
            f"packed {self.packed_accuracy:.2f} %; {verdict}"
        )


def verify(path: Path | str, limit: int | None = None) -> Verification:
    """Compare a packed network with PyTorch on the test images of the data set that it was trained on.

    Args:
        path: a file that ``bnn train --pack`` wrote, with its batch norms beside it.
        limit: only so many images.

    Raises:
        UserError: a file is missing or damaged, or the data set is.
    """
    path = Path(path)
    network, model = read(path)
    stated = read_json(paths.results_dir() / path.parent.name / f"{path.stem}.json")
    images = data.load(stated["spec"]["train"]["dataset"], ARCHS[network.spec.arch].image)
    x, y = images.test_x[:limit], images.test_y[:limit].numpy()
    net = PackedNet(network)
    codes = network.layers[-1].weights.reshape(len(network.scale), -1)
    wanted, logits = torch_sums(model, codes, x)
    sums = net.sums(x)
    found = sums * network.scale + network.shift
    wrong = (logits.argmax(1) != found.argmax(1)).sum()
    accuracies = [100 * int((values.argmax(1) == y).sum()) / len(y) for values in (logits, found)]
    return Verification(
        f"{path.parent.name}/{path.stem}", path.stat().st_size, len(x), *accuracies,
        stated["test_accuracy"] if limit is None else accuracies[1], int((wanted != sums).any(1).sum()), int(wrong),
        as_bytes(pack(model, network.spec)) == path.read_bytes(),
    )  # fmt: skip


@torch.no_grad()
def torch_sums(model: nn.Sequential, codes: np.ndarray, x: torch.Tensor, batch: int = 500) -> tuple:
    """What PyTorch has for uint8 images [N, C, H, W]: sums of the last layer, int64, and logits, float32 [N, classes].

    Args:
        model: in eval mode.
        codes: integer weights of its last layer, [classes, inputs].
        x: the images.
    """
    last, w = _last(model), torch.from_numpy(codes.astype("float32"))
    caught: list[torch.Tensor] = []
    hook = last.register_forward_pre_hook(lambda _, inputs: caught.append(nn.functional.linear(inputs[0], w)))
    try:
        logits = torch.cat([model(x[i : i + batch]) for i in range(0, len(x), batch)])
    finally:
        hook.remove()
    return torch.cat(caught).long().numpy(), logits.numpy()


def _last(model: nn.Sequential) -> nn.Module:
    return next(module for module in reversed(model) if isinstance(module, QuantLinear))
