"""How operands lie in memory for the kernels: a layout turns values into elements, and elements into sums.

Every kernel adds up, for 64 outputs at once, one *deficit* for each element of the inputs and of the weights: how much
less than its length a sum becomes. With L the length of a dot product, ``sum = L - factor * deficit`` (for ``product``,
which multiplies with negated weights, L counts as zero).

========= =================================== ======================================= =================================
layout    an element of the inputs            an element of the weights               deficit
========= =================================== ======================================= =================================
word      32 bits; for ternary inputs two     32 bits; for ternary weights two        popcount of what differs
table     the place in a table of the row     the column for 4 binary or 2 ternary    what stands there
          for 4 (or 2) inputs                 weights
product   an integer                          its negated integer                     their product
========= =================================== ======================================= =================================

``word`` is XNOR and popcount, for processors that count bits in vectors. ``table`` is for AVX2, which does not, but
looks up 32 small tables in one instruction: the sums of four products of ±1 are looked up instead of counted (the idea
of W. Mula et al., arXiv 1611.07612, for popcounts; of T-MAC, arXiv 2407.00088, for products). ``product`` is for images
and fixed-point weights.

What fills an element up is -1 on both sides: it multiplies to +1 and adds no deficit.
"""

from dataclasses import dataclass

import numpy as np

BLOCK = 64  # outputs that a kernel takes at once


@dataclass(frozen=True)
class Layout:
    """How a layer's operands are coded.

    Attributes:
        name: ``word``, ``table`` or ``product``.
        group: values in an element.
        act_planes, weight_planes: 2 for ternary operands, else 1.
        most: elements whose deficits an 8-bit counter holds; 0 where counters are as wide as sums.
    """

    name: str
    group: int
    act_planes: int
    weight_planes: int
    most: int = 0

    @property
    def paired(self) -> bool:
        """Whether an element of the inputs stands for two neighbouring pixels: if no deficit exceeds 4."""
        return self.name == "table" and self.most == 63

    @property
    def factor(self) -> int:
        """What a deficit of one takes off a sum: 2 where it is counted in differing bits."""
        return 2 if self.name != "product" and self.act_planes == self.weight_planes == 1 else 1

    @property
    def act_dtype(self) -> type:
        return {"word": np.uint32, "table": np.uint16, "product": np.int16}[self.name]

    @property
    def weight_dtype(self) -> type:
        return {"word": np.uint32, "table": np.uint8, "product": np.int16}[self.name]


def layout(act: str, weight: str, counting: str | None) -> Layout:
    """The layout for a pair of operands.

    Args:
        act, weight: operands.
        counting: ``word`` or ``table``, for pairs of binary and ternary; None is ``product`` for them too.
    """
    if counting is None or not {act, weight} <= {"binary", "ternary"}:
        return Layout("product", 1, 1, 1)
    planes = 1 + (act == "ternary"), 1 + (weight == "ternary")
    if counting == "word":
        return Layout("word", 32, *planes)
    group = 4 // planes[1]  # a column of a table has four bits
    largest = group if planes == (1, 1) else 2 * group
    return Layout("table", group, *planes, most=255 // largest)


def elements(channels: int, form: Layout) -> int:
    """Elements that so many values take."""
    return -(-channels // form.group)


def table(form: Layout) -> np.ndarray:
    """uint8 [rows, 16]: the deficit for a code of the inputs (row) and one of the weights (column).

    A code has P's bits above Q's where there are two planes, the first value in the lowest bit. For pairs of pixels,
    [rows, rows, 16]: the deficit of the first, plus 16 times that of the second.
    """
    acts, weights = (_decoded(planes, form.group) for planes in (form.act_planes, form.weight_planes))
    deficits = (form.group - acts @ weights.T) // form.factor
    columns = np.zeros((len(acts), 16), np.uint8)
    columns[:, : len(weights)] = deficits.clip(0)
    return columns[:, None] + 16 * columns[None] if form.paired else columns


def _decoded(planes: int, group: int) -> np.ndarray:
    """The values that each code stands for, [codes, group]."""
    codes = np.arange(1 << (group * planes))[:, None]
    bits = codes >> np.arange(group * planes) & 1
    if planes == 1:
        return 2 * bits - 1
    return bits[:, group:] + bits[:, :group] - 1


def code_weights(weights: np.ndarray, form: Layout, channels: int) -> np.ndarray:
    """Weights [O, K, K, C] as the kernels read them: [O / BLOCK, K, K * elements, BLOCK].

    Words of two planes have an axis for them before the last.

    Args:
        weights: integers.
        form: the layout.
        channels: what C is filled up to.
    """
    outputs, k_h, _, c = weights.shape
    fill = ((0, -outputs % BLOCK), (0, 0), (0, 0), (0, channels - c))
    if form.name == "product":
        coded = np.pad(-weights.astype(np.int16), fill)[..., None]
    else:
        w = np.pad(weights, fill, constant_values=-1)
        w = w.reshape(*w.shape[:3], -1, form.group)
        p, q, nonzero = (_joined(bits) for bits in (w > 0, w >= 0, w != 0))
        if form.name == "word":
            coded = np.stack([p, nonzero][: form.weight_planes], axis=-1)
        else:
            coded = (p if form.weight_planes == 1 else p << form.group | q)[..., None]
    planes = coded.shape[-1]
    coded = coded.astype(form.weight_dtype).reshape(-1, BLOCK, k_h, coded[0, 0].size // planes, planes)
    coded = _aligned(coded.transpose(0, 2, 3, 4, 1))
    return coded if planes == 2 else coded[:, :, :, 0]


def _aligned(array: np.ndarray) -> np.ndarray:
    """A contiguous copy that begins with a line of the cache, so that no vector of it lies across two."""
    room = np.empty(array.nbytes + 64, np.uint8)
    begin = -room.ctypes.data % 64
    copy = room[begin : begin + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def _joined(bits: np.ndarray) -> np.ndarray:
    """Bits [..., group], the first lowest, as uint32 [...]."""
    return (bits.astype(np.uint32) << np.arange(bits.shape[-1], dtype=np.uint32)).sum(-1, dtype=np.uint32)
