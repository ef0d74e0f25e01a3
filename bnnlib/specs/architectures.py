"""Architectures as tables: the paper's two networks, and those that are registered.

Shapes: the paper's two networks (T. Stadtmann et al., ICMLA 2020, released code). VGGNet7 is the network of
BinaryConnect (arXiv 1511.00363), also used by Helwegen et al. (arXiv 1906.02107) and as Larq's BinaryNet example.
"""

import re
from typing import NamedTuple

from bnnlib.errors import UserError


class Layer(NamedTuple):
    """A row of an architecture: a convolution if it has a kernel, else a fully connected layer.

    Args:
        name: of the module.
        outputs: channels of a convolution at width 1, or outputs of a fully connected layer.
        kernel: side of the square kernel; 0 for a fully connected layer.
        pad: pixels of padding on each side.
        pool: whether a 2 x 2 max pooling follows.
    """

    name: str
    outputs: int
    kernel: int = 0
    pad: int = 0
    pool: bool = False

    def convolved(self, size: int) -> int:
        """Side of the square of outputs that a convolution makes of one of side ``size``, before its pooling."""
        return size + 2 * self.pad - self.kernel + 1

    def size_after(self, size: int) -> int:
        """Side of the square that a convolution, and its pooling, leave of one of side ``size``."""
        return self.convolved(size) // (2 if self.pool else 1)


class Arch(NamedTuple):
    """An architecture: convolutions, then fully connected layers.

    Args:
        image: shape (C, H, W) of an image; H equals W.
        signed_image: whether pixels become -1..1, as in VGGNet7, or 0..1, as in LeNet5.
        pad_border: whether convolutions pad with the values at the border, or with zeros.
        layers: in the order of execution; the last one gives the logits.
    """

    image: tuple[int, int, int]
    signed_image: bool
    pad_border: bool
    layers: tuple[Layer, ...]


ARCHS = {
    "lenet5": Arch(
        (1, 28, 28),
        False,
        False,
        (
            Layer("conv1", 32, kernel=5, pad=2, pool=True),  # 28 x 28 -> 14 x 14
            Layer("conv2", 64, kernel=5, pool=True),  # 10 x 10 -> 5 x 5
            Layer("fc1", 512),
            Layer("fc2", 10),
        ),
    ),
    "vggnet7": Arch(
        (3, 32, 32),
        True,
        True,
        (
            Layer("conv1", 128, kernel=3),  # 30 x 30
            Layer("conv2", 128, kernel=3, pad=1, pool=True),  # -> 15 x 15
            Layer("conv3", 256, kernel=3, pad=1),
            Layer("conv4", 256, kernel=3, pad=1, pool=True),  # -> 7 x 7
            Layer("conv5", 512, kernel=3, pad=1),
            Layer("conv6", 512, kernel=3, pad=1, pool=True),  # -> 3 x 3
            Layer("fc1", 1024),
            Layer("fc2", 1024),
            Layer("fc3", 10),
        ),
    ),
}


def register_architecture(name: str, arch: Arch) -> None:
    """Make an architecture known: ``ModelSpec(name, ...)`` then describes a network of it.

    Args:
        name: a new name, as it stands in specs.
        arch: the architecture.

    Raises:
        UserError: the name is taken, or the layers do not fit each other.
    """
    if name in ARCHS:
        raise UserError(f"architecture {name!r} is there already; use another name")
    _check(name, arch)
    ARCHS[name] = arch


def _check(name: str, arch: Arch) -> None:
    _, height, width = arch.image
    if min(arch.image) < 1 or height != width:
        raise UserError(f"architecture {name!r} has images {arch.image}; use (channels, side, side)")
    names = [layer.name for layer in arch.layers]
    if len(names) < 2 or len(set(names)) < len(names):
        raise UserError(f"architecture {name!r} has layers {', '.join(names) or 'none'}; use two or more, named apart")
    for own in names:
        if not own.isidentifier() or re.fullmatch(r"image|flatten|extra_norm|(norm|pool|act|relu)\d+", own):
            raise UserError(f"architecture {name!r} calls a layer {own!r}; use a word such as conv1 or fc1")
    kinds = [bool(layer.kernel) for layer in arch.layers]
    if kinds[-1] or kinds != sorted(kinds, reverse=True):
        raise UserError(f"architecture {name!r} is not convolutions, then fully connected layers; order its layers so")
    size = height
    for layer in arch.layers:
        if not layer.kernel:
            if layer.pool or layer.pad:
                raise UserError(f"{layer.name} of architecture {name!r} is fully connected; it has no pool and no pad")
            continue
        if (size := layer.size_after(size)) < 1:
            raise UserError(f"{layer.name} of architecture {name!r} leaves no pixel; use a smaller kernel, or pad")
