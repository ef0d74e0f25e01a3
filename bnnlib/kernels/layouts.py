"""How operands lie in memory for the kernels: a layout turns values into elements, and elements into sums.

Every kernel adds up, for 64 outputs at once, one *deficit* for each element of the inputs and of the weights: how much
less than its *base* a sum becomes: ``sum = base - factor * deficit``.

======= ========================================= ============================== =====================================
layout  an element of the inputs                  an element of the weights      deficit
======= ========================================= ============================== =====================================
word    32 bits, P; for ternary inputs Q too      32 bits, positive; for ternary popcount of what differs (from P and
                                                  weights those not zero too     from Q), where weights are not zero
table   the place in a table of the row           the column for 4 binary or 2   what stands there
        for 4 (or 2) inputs                       ternary weights
bytes   a byte: how much less than the largest    4 signed bytes                 sum of 4 products
product an integer                                its negated integer            their product
======= ========================================= ============================== =====================================

``word`` is XNOR and popcount, for processors that count bits in vectors. A ternary input of P and Q has the value
P + Q - 1, and so its products are half the sum of those of two binary inputs. ``table`` is for AVX2, which counts no
bits, but looks up 32 small tables in one instruction: the sums of four products of ±1 are looked up instead of counted
(the idea of W. Mula et al., arXiv 1611.07612, for popcounts; of T-MAC, arXiv 2407.00088, for products). ``bytes`` and
``product`` are for images and fixed-point weights, with AVX-512 VNNI and without.

What fills an element up is -1 on both sides: it multiplies to +1 and adds no deficit.
"""

from dataclasses import dataclass

import numpy as np

from bnnlib.kernels.processor import counts_bits_in_vectors, multiplies_bytes

BLOCK = 64  # outputs that a kernel takes at once


@dataclass(frozen=True)
class Layout:
    """How a layer's operands are coded.

    Attributes:
        name: ``word``, ``table``, ``bytes`` or ``product``.
        group: values in an element of the inputs.
        act_planes, weight_planes: 2 for ternary operands, else 1.
        most: elements whose deficits an 8-bit counter holds; 0 where counters are as wide as sums.
        top, factor: an input is ``top - factor * byte`` in ``bytes``; in the others, deficits count by ``factor``.
    """

    name: str
    group: int
    act_planes: int
    weight_planes: int
    most: int = 0
    top: int = 0
    factor: int = 1

    @property
    def paired(self) -> bool:
        """Whether an element of the inputs stands for two neighbouring pixels: if no deficit exceeds 4."""
        return self.name == "table" and self.most == 63

    @property
    def tripled(self) -> bool:
        """Whether each third element of the weights is the XOR of three (``forms._Triples``)."""
        return self.name == "word" and self.weight_planes == 1 and triples()

    @property
    def act_dtype(self) -> type:
        return {"word": np.uint32, "table": np.uint16, "bytes": np.uint8, "product": np.int16}[self.name]

    @property
    def weight_dtype(self) -> type:
        return {"word": np.uint32, "table": np.uint8, "bytes": np.int32, "product": np.int16}[self.name]


def triples() -> bool:
    """Whether counts come cheaper three words at a time."""
    return counts_bits_in_vectors() and multiplies_bytes()


def layout(act: str, weight: str, counting: str | None, values: np.ndarray | None = None) -> Layout:
    """The layout for a pair of operands.

    Args:
        act, weight: operands.
        counting: ``word`` or ``table``, for pairs of binary and ternary; None is by multiplication for them too.
        values: all that an input can be, int [...], where ``act`` does not say it.
    """
    if counting is None or not {act, weight} <= {"binary", "ternary"}:
        values = np.array([-1, 0, 1]) if values is None else values
        top = int(values.max())
        factor = int(np.gcd.reduce(top - values)) or 1
        fits = multiplies_bytes() and top - values.min() <= 255 * factor
        return Layout("bytes", 1, 1, 1, 0, top, factor) if fits else Layout("product", 1, 1, 1)
    planes = 1 + (act == "ternary"), 1 + (weight == "ternary")
    if counting == "word":
        return Layout("word", 32, *planes, factor=2 // planes[0])
    group = 4 // planes[1]  # a column of a table has four bits
    largest, factor = (group, 2) if planes == (1, 1) else (2 * group, 1)
    return Layout("table", group, *planes, most=255 // largest, factor=factor)


def bases(weights: np.ndarray, form: Layout) -> np.ndarray:
    """What the sums of weights [O, K, K, C] are without any deficit, int64 [O]."""
    weights = weights.reshape(len(weights), -1).astype(np.int64)
    if form.name == "word":
        return abs(weights).sum(1)
    return (
        form.top * weights.sum(1)
        if form.name == "bytes"
        else np.full(len(weights), weights.shape[1] * (form.name == "table"))
    )


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

    Words of two planes have an axis for them before the last. Four ``bytes`` of a row of the kernel are one integer.

    Args:
        weights: integers.
        form: the layout.
        channels: what C is filled up to.
    """
    outputs, k_h, _, c = weights.shape
    fill = ((0, -outputs % BLOCK), (0, 0), (0, 0), (0, channels - c))
    if form.name == "bytes":
        rows = np.pad(weights.reshape(outputs, k_h, -1).astype(np.int8), (*fill[:2], (0, -weights[0, 0].size % 4)))
        return _aligned(rows.view(np.int32).reshape(-1, BLOCK, k_h, rows.shape[2] // 4).transpose(0, 2, 3, 1))
    if form.name == "product":
        coded = np.pad(-weights.astype(np.int16), fill)[..., None]
    else:
        w = np.pad(weights, fill, constant_values=-1)
        w = w.reshape(*w.shape[:3], -1, form.group)
        p, q, nonzero = (_joined(bits) for bits in (w > 0, w >= 0, w != 0))
        if form.tripled:
            run = p.reshape(*p.shape[:2], -1)  # a view
            whole = run.shape[2] // 3 * 3
            run[:, :, 2:whole:3] ^= run[:, :, 0:whole:3] ^ run[:, :, 1:whole:3]
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
