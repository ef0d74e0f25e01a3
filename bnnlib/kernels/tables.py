"""Forward products of binary and ternary values by tables of their sums (AVX2, AVX-512), for training.

The kernels and codes are those of packed networks (``bnnlib/kernels/layouts.py``, layout ``table``); here the weights
are new in each step, so they are coded by a kernel, and the sums themselves are kept.
"""

import numpy as np
import torch
from llvmlite import ir
from numba import prange, types
from numba.extending import intrinsic
from torch import Tensor

from bnnlib.kernels import layouts, threads
from bnnlib.kernels.coding import NEXT_PIXEL, NOBODY, code_tables_shared
from bnnlib.kernels.compiling import compiled, shared
from bnnlib.kernels.dot_products import TILE, _deficits, _places
from bnnlib.kernels.simd import BYTE, FLOAT, LANES, SHORT, WORD, _data, _splat, _vector

BLOCK = layouts.BLOCK
LONGEST = 2**14 - 1  # products in a sum; the deficit of a ternary one is at most 2, and 16 bits hold them all


def convolution(values: Tensor, w: Tensor, act: str, weight: str) -> Tensor:
    """Sums float32 [N, h, w, O] of a convolution.

    Args:
        values: int8 [N, H, W, C], with border; C a multiple of LANES.
        w: int8 [O, K, K, C], their values; O a multiple of LANES.
        act, weight: their operands, ``binary`` or ``ternary``.
    """
    form = layouts.layout(act, weight, "table")
    n, rows, columns, channels = values.shape
    outputs, size, _, _ = w.shape
    elements = channels // form.group
    weights = np.zeros((-(-outputs // BLOCK), size, size * elements, BLOCK), np.uint8)
    count = threads.count()
    threads.share(count)
    _code_weights(count, w.numpy().reshape(outputs, -1), channels, form.group, form.weight_planes, weights)
    words = -(-channels // BLOCK)
    bits = np.zeros((form.act_planes, n, rows, columns, words), np.uint64)
    _pack(count, values.numpy().reshape(-1), channels, bits)
    acts = np.empty(n * rows * columns * elements, np.uint16)
    mate = NEXT_PIXEL if form.paired else NOBODY
    code_tables_shared(count, bits, columns, 0, form.group, mate, elements, acts, n * rows)
    height, width = rows - size + 1, columns - size + 1
    y = torch.empty(n, height, width, outputs)
    geometry = (rows, columns, elements, height, width + (width & 1) * form.paired, width)
    base = size * size * channels
    tables, flat = layouts.table(form), y.numpy().reshape(-1)
    _sums(count, acts, geometry, tables, weights, form.most, form.factor, base, flat, outputs, n)
    return y


@shared
def _code_weights(threads, w, channels, group, planes, coded):
    """The column for ``group`` weights of each output: their signs, or above those which are not negative."""
    blocks, size, run, _ = coded.shape
    for part in prange(blocks * size):
        block, r = part // size, part % size
        for lane in range(min(BLOCK, len(w) - block * BLOCK)):
            row = w[block * BLOCK + lane, r * size * channels : (r + 1) * size * channels]
            for e in range(run):
                code = 0
                for i in range(group):
                    value = row[e * group + i]
                    if planes == 1:
                        code |= (value > 0) << i
                    else:
                        code |= (value > 0) << (group + i) | (value >= 0) << i
                coded[block, r, e, lane] = code


@intrinsic
def _larger(typing, source, start, bound):
    """Bit i of the uint32 result is source[start + i] > bound, for an int8 array."""

    def generate(context, builder, signature, arguments):
        data = _data(context, builder, signature, arguments, 0)
        row = builder.load(_vector(builder, data, arguments[1], BYTE), align=1)
        return builder.bitcast(builder.icmp_signed(">", row, _splat(builder, arguments[2])), WORD)

    return types.uint32(source, types.intp, types.int8), generate


@shared
def _pack(threads, values, channels, bits):
    """P and, of ternary values, Q (``layouts``) as words of 64."""
    planes, n, rows, columns, _ = bits.shape
    for row in prange(n * rows):
        a, i = row // rows, row % rows
        for j in range(columns):
            at = (row * columns + j) * channels
            for c in range(0, channels, LANES):
                shift = np.uint64(c % BLOCK)
                for plane in range(planes):
                    bits[plane, a, i, j, c // BLOCK] |= np.uint64(_larger(values, at + c, np.int8(-plane))) << shift


@intrinsic
def _store_sums(typing, y, at, deficits, start, base, unit):
    """y[at + i] = base - unit * deficits[start + i], for i < LANES; float32, and int16."""

    def generate(context, builder, signature, arguments):
        y, deficits = (_data(context, builder, signature, arguments, i) for i in (0, 2))
        row = builder.load(_vector(builder, deficits, arguments[3], SHORT), align=2)
        row = builder.uitofp(row, ir.VectorType(FLOAT, LANES))
        row = builder.fsub(_splat(builder, arguments[4]), builder.fmul(_splat(builder, arguments[5]), row))
        builder.store(row, _vector(builder, y, arguments[1], FLOAT), align=4)
        return context.get_dummy_value()

    return types.void(y, types.intp, deficits, types.intp, types.float32, types.float32), generate


@compiled
def _sums_of(acts, geometry, tables, weights, most, factor, base, y, outputs, total, first, last):
    """Units of the sums; a unit is a tile of dot products for a block of outputs, as in ``dot_products.to_bits``."""
    rows, columns, elements, height, width, real_width = geometry
    blocks = weights.shape[0]
    most_sum, unit = np.float32(base), np.float32(factor)  # sums are exact: they are smaller than 2^24
    sums, starts = np.empty(TILE * BLOCK, np.int16), np.empty(TILE, np.intp)
    for tile in range(first, last):
        begin = tile * TILE
        count = min(TILE, total - begin)
        _places(begin, count, height, width, 1, rows, columns, elements, real_width, starts)
        for block in range(blocks):
            sums[:] = 0
            _deficits(acts, starts, count, columns * elements, tables, weights, block, most, sums)
            for d in range(count):
                place = begin + d
                x, line = place % width, place // width
                if x < real_width:
                    to = (line * real_width + x) * outputs + block * BLOCK
                    for o in range(0, min(BLOCK, outputs - block * BLOCK), LANES):
                        _store_sums(y, to + o, sums, d * BLOCK + o, most_sum, unit)


@shared
def _sums(threads, acts, geometry, tables, weights, most, factor, base, y, outputs, images):
    total = images * geometry[3] * geometry[4]
    tiles = (total + TILE - 1) // TILE
    for t in prange(threads):
        i, j = tiles * t // threads, tiles * (t + 1) // threads
        _sums_of(acts, geometry, tables, weights, most, factor, base, y, outputs, total, i, j)
