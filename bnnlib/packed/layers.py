"""What is left of a trained network: integer weights and integer thresholds, as plain numpy arrays.

A layer sums the products of its inputs and weights, both integers. Batch norm, scales and the quantizer behind it make
a function of that sum alone which, for every channel, only rises or only falls; it is then one comparison for every
step of its value (R. Zhao et al., FPGA 2017; Y. Umuroglu et al., FINN, arXiv 1612.07119): with s the sum, T the
threshold and a bit that says whether the channel falls, ``bit = falls XOR (s >= T)``.

A ternary activation takes two such bits: P, whether it is positive, and Q, whether it is not negative. Its value is
P + Q - 1, and a binary one is 2 P - 1.

A 2 x 2 max pooling takes the largest of four values. Bits before it are joined by OR, so that the comparison may come
first: ``bit = after XOR OR over the four of (before XOR (s >= T))``. ``before`` is set where what stands between sum
and pooling falls.
"""

from dataclasses import dataclass

import numpy as np

from bnnlib.specs import ModelSpec


@dataclass(frozen=True)
class IntegerLayer:
    """One layer, its weights with the channels last.

    Attributes:
        name: as in the network.
        weight, act: operands of weights and inputs (``binary``, ``ternary``, ``fixedK``).
        weights: int16 [O, K_h, K_w, C]; a fully connected layer is a convolution over all that it sees.
        pad, border: pixels added on each side; the value, or None to repeat the border.
        pool: whether a 2 x 2 max pooling follows.
        thresholds: int32 [steps, O], one step for a binary output, two (P, Q) for a ternary one, none for the last.
        before, after: bool [O].
    """

    name: str
    weight: str
    act: str
    weights: np.ndarray
    pad: int
    border: int | None
    pool: bool
    thresholds: np.ndarray
    before: np.ndarray
    after: np.ndarray

    @property
    def length(self) -> int:
        """Products in a sum."""
        return self.weights[0].size

    @property
    def largest(self) -> int:
        """No sum is further from zero than this."""
        brightest = 255 if self.act == "fixed8" else 1
        return int(abs(self.weights.astype(np.int64)).sum((1, 2, 3)).max()) * brightest


@dataclass(frozen=True)
class IntegerNetwork:
    """All layers, and how images become their first inputs and the last sums become logits.

    Attributes:
        spec: the network.
        image: (C, H, W).
        layers: in the order of execution.
        scale, shift: float64 [classes]; logits are ``scale * sum + shift``.
    """

    spec: ModelSpec
    image: tuple[int, int, int]
    layers: tuple[IntegerLayer, ...]
    scale: np.ndarray
    shift: np.ndarray
