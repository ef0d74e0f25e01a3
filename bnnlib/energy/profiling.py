"""What a network multiplies: the MACs, vector lengths and operands of its layers.

A network that exists is executed once, and what it multiplies is recorded (``recording``). The network of a ModelSpec
follows from the shapes of its architecture, for which nothing has to be built; a test compares both.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import pandas as pd

from bnnlib.operands import OPERANDS, operand_bits
from bnnlib.specs import ARCHS, ModelSpec

if TYPE_CHECKING:
    from torch import nn

COLUMNS = ["name", "macs", "vector_length", "weight", "act", "weight_bits", "activation_bits", "outputs"]


def profile(model: "nn.Module | ModelSpec") -> pd.DataFrame:
    """One row per layer that multiplies, in the order of execution, for one classification.

    Columns: ``name``; ``macs``; ``vector_length``, the length of its dot products; ``weight`` and ``act``, the
    operands; ``weight_bits``, all its weights; ``activation_bits``, its input, each value once and without padding;
    ``outputs``, the number of dot products. Biases, batch norm and pooling are not counted. A layer that sums several
    products has a row for each, its weights in the first; the multiplications of ``planes.Multiply`` have one of
    vector length 1.

    Args:
        model: a network on any device, in train or eval mode, which is executed once and left as it was; or a
            ModelSpec, whose network is not built.

    Raises:
        UserError: a layer's tensors hold values that its operands do not have, a product declares no operand, or one
            is of a kind that this does not count.
    """
    if isinstance(model, ModelSpec):
        return _profile_spec(model).copy()
    from bnnlib.energy.recording import record  # torch takes seconds to come, which a spec need not wait for

    return pd.DataFrame(record(model), columns=COLUMNS)


@dataclass(frozen=True)
class _Shape:
    """A layer's shapes, in values: its weights, its input without and with padding, and its dot products."""

    name: str
    channels: int  # of its input; all inputs of a fully connected layer
    kernel: int  # 1 for a fully connected layer
    outputs: int  # per position
    inputs: int
    padded: int  # positions of the padded input; 0 for a fully connected layer
    positions: int  # of its output before pooling

    @property
    def vector_length(self) -> int:
        return self.channels * self.kernel**2

    def row(self, name: str, count: int, length: int, weight: str, act: str, weight_bits: int, act_bits: int) -> tuple:
        """A row of ``profile``: ``count`` dot products of ``length``."""
        return (f"{self.name}{name}", count * length, length, weight, act, weight_bits, act_bits, count)

    def product(self, weight: str, act: str, stored: bool = True) -> tuple:
        """The row of the layer's product; its weights count once, in its first one."""
        bits = self.outputs * self.vector_length * operand_bits(weight) * stored
        count = self.outputs * self.positions
        return self.row("", count, self.vector_length, weight, act, bits, self.inputs * operand_bits(act))

    def in_planes(self, form: str, weight: str) -> Iterator[tuple]:
        """The rows of a layer that quantizes its own input into planes of signs; see ``bnnlib/nn/planes.py``."""
        if form.startswith("dorefa"):
            for plane in range(int(form[-1])):
                yield self.product(weight, "binary", stored=not plane)
            return
        if not self.padded:
            yield self.row(".magnitude", 1, self.channels, "binary", "float", 0, 0)
        else:  # over channels, then over pixels
            yield self.row(".magnitude", self.padded, self.channels, "binary", "float", 0, 0)
            yield self.row(".magnitude", self.positions, self.kernel**2, "binary", "float", 0, 0)
        if form == "horq":
            yield self.row(".rest_magnitude", self.positions, self.vector_length, "binary", "float", 0, 0)
        scales = self.positions * operand_bits("float")
        count = self.outputs * self.positions
        yield self.product(weight, "binary")
        yield self.row(".multiply", count, 1, "float", "float", 0, scales)
        if form == "horq":
            yield self.product(weight, "binary", stored=False)
            yield self.row(".rest_multiply", count, 1, "float", "float", 0, scales)


def _shapes(spec: ModelSpec) -> Iterator[_Shape]:
    channels, size, _ = ARCHS[spec.arch].image
    for layer in ARCHS[spec.arch].layers:
        inputs = channels * size**2
        if layer.kernel:
            outputs, padded = int(layer.outputs * spec.width), (size + 2 * layer.pad) ** 2
            yield _Shape(layer.name, channels, layer.kernel, outputs, inputs, padded, layer.convolved(size) ** 2)
            channels, size = outputs, layer.size_after(size)
        else:
            yield _Shape(layer.name, inputs, 1, layer.outputs, inputs, 0, 1)
            channels, size = layer.outputs, 1


@lru_cache(maxsize=1024)
def _profile_spec(spec: ModelSpec) -> pd.DataFrame:
    rows, acts = [], spec.image + spec.acts
    for shape, weight, act in zip(_shapes(spec), spec.weights, acts, strict=True):
        in_planes = act == "b" and spec.act_planes != "sign" and rows  # an image is no plane
        if in_planes:
            rows += shape.in_planes(spec.act_planes, OPERANDS[weight])
        else:
            rows.append(shape.product(OPERANDS[weight], OPERANDS[act]))
    return pd.DataFrame(rows, columns=COLUMNS)
