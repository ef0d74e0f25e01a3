"""A layer of a packed network: elements of its inputs (``bnnlib/kernels/coding.py``) to sums, and the sums to bits."""

import numpy as np
from numba import prange

from bnnlib.kernels.compiling import compiled, inlined, shared
from bnnlib.kernels.deficits import (
    add_deficits,
    add_deficits_of_one,
    at_most,
    at_once,
    compare_deficits,
    compare_deficits_of_one,
    stays_in_registers,
)
from bnnlib.kernels.layouts import BLOCK

GROUP = 12  # dot products of a channel that stay together: a multiple of what ``at_once`` gives, and of a pooling's 4
TILE = 8 * GROUP  # whose sums wait in the first-level cache, at most


@inlined
def _deficits(acts, starts, count, row_step, tables, weights, block, most, sums):
    """Add to ``sums`` [count * BLOCK] the deficits of ``count`` dot products."""
    kernel, run = weights.shape[1], weights.shape[2]
    rows, chunk = (kernel, run) if most == 0 else (1, run)
    if most and run > most:
        parts = (run + most - 1) // most
        chunk = min(most, (run + 3 * parts - 1) // (3 * parts) * 3)  # whole turns of the innermost loop
    for r in range(0, kernel, rows):
        for k in range(0, run, chunk):
            size = min(chunk, run - k)
            shift, start = r * row_step + k, (block * kernel + r) * run + k
            p, pixels = 0, at_once(acts, tables, weights)
            while p + pixels <= count:
                add_deficits(sums, p * BLOCK, acts, starts, p, shift, row_step, tables, weights, start, rows, size)
                p += pixels
            while p < count:
                add_deficits_of_one(
                    sums, p * BLOCK, acts, starts, p, shift, row_step, tables, weights, start, rows, size
                )
                p += 1


@inlined
def _masks(acts, starts, count, row_step, tables, weights, block, limits, outputs, steps, masks):
    """Whether ``count`` dot products are at most their limits, bits in masks [steps * TILE]; no sum is kept."""
    kernel, run = weights.shape[1], weights.shape[2]
    start, limit = block * kernel * run, block * BLOCK
    p, pixels = 0, at_once(acts, tables, weights)
    while p + pixels <= count:
        compare_deficits(masks, p, steps, TILE, limits, limit, outputs,
                         acts, starts, p, 0, row_step, tables, weights, start, kernel, run)  # fmt: skip
        p += pixels
    while p < count:
        compare_deficits_of_one(masks, p, steps, TILE, limits, limit, outputs,
                                acts, starts, p, 0, row_step, tables, weights, start, kernel, run)  # fmt: skip
        p += 1


@inlined
def _places(start, count, height, width, members, rows, columns, elements, real_width, starts):
    """First elements of the dot products from ``start`` on, and how many of them are within the real width.

    The four of a pooled output are neighbours in this order, and so are the two of a pair.
    """
    side, real = 2 if members == 4 else 1, 0
    cell, member = start // members, start % members
    n, y, x = cell // (height * width), cell // width % height, cell % width
    for d in range(count):  # by counting on: divisions took as long as the sums of a first layer
        right = min(x * side + (member & 1), columns - 1)
        starts[d] = ((n * rows + y * side + (member >> 1)) * columns + right) * elements
        real += x < real_width
        member += 1
        if member == members:
            member, x = 0, x + 1
            if x == width:
                x, y = 0, y + 1
                if y == height:
                    y, n = 0, n + 1
    return real


@compiled
def to_bits(acts, geometry, tables, weights, most, limits, before, after, bits, first, last):
    """Units of a layer, its sums compared and pooled; a unit is a tile of dot products for a block of outputs.

    Args:
        acts: elements of the inputs.
        geometry: rows and columns of an image of elements, with border; elements of a pixel; 4 if pooled, else 1; W'.
        tables: uint8, of the layout ``table``.
        weights: elements [blocks, kernel, run, ..., BLOCK].
        most: elements whose deficits may be added at once, 0 for any number.
        limits: int16 or int32 [steps, blocks * BLOCK]; a bit is set where the deficit is at most this.
        before, after: uint64 [blocks], bits to flip before and after the pooling.
        bits: uint64 [steps, N, H', W' or more, blocks]; what is more only completes a pair.
        first, last: units.

    Returns:
        The number of dot products that were executed, those of filled-up outputs included, of pairs not.
    """
    rows, columns, elements, members, real_width = geometry
    steps, images, height, width, blocks = bits.shape
    total = images * height * width * members
    tiles, groups = (total + TILE - 1) // TILE, (total + GROUP - 1) // GROUP
    kept = stays_in_registers(acts)
    sums, starts = np.empty(0 if kept else TILE * BLOCK, limits.dtype), np.empty(TILE, np.intp)
    masks = np.empty(steps * TILE, np.uint64)
    outputs = limits.shape[1]
    flat_limits, flat_bits = limits.reshape(-1), bits.reshape(-1)
    done, known, begin, count, real = 0, -1, 0, 0, 0
    for unit in range(first, last):
        tile, block = unit // blocks, unit % blocks
        if tile != known:  # tiles of equal size but for one group, so that threads have equal shares
            begin = groups * tile // tiles * GROUP
            count = min(groups * (tile + 1) // tiles * GROUP, total) - begin
            real = _places(begin, count, height, width, members, rows, columns, elements, real_width, starts)
            known = tile
        done += BLOCK * real
        if kept:
            _masks(acts, starts, count, columns * elements, tables, weights, block, flat_limits, outputs, steps, masks)
        else:
            sums[: count * BLOCK] = 0
            _deficits(acts, starts, count, columns * elements, tables, weights, block, most, sums)
            for step in range(steps):
                for d in range(count):
                    masks[step * TILE + d] = at_most(sums, d * BLOCK, flat_limits, step * outputs + block * BLOCK)
        flip, last_flip = before[block], after[block]
        for step in range(steps):
            at = (step * images * height * width + begin // members) * blocks + block
            for cell in range(count // members):
                found = np.uint64(0)
                for member in range(members):
                    found |= masks[step * TILE + cell * members + member] ^ flip
                flat_bits[at + cell * blocks] = found ^ last_flip
    return done


@compiled
def to_sums(acts, geometry, tables, weights, most, factor, bases, out, first, last):
    """Units of the last layer: its sums ``bases - factor * deficit`` as int32 [N, outputs]; else as ``to_bits``."""
    rows, columns, elements, _, _ = geometry
    images, outputs = out.shape
    tiles = (images + TILE - 1) // TILE
    sums, starts = np.empty(TILE * BLOCK, np.int32), np.empty(TILE, np.intp)
    done = 0
    for unit in range(first, last):
        block, tile = unit // tiles, unit % tiles
        count = min(TILE, images - tile * TILE)
        done += BLOCK * _places(tile * TILE, count, 1, 1, 1, rows, columns, elements, 1, starts)
        sums[: count * BLOCK] = 0
        _deficits(acts, starts, count, columns * elements, tables, weights, block, most, sums)
        for d in range(count):
            for o in range(min(BLOCK, outputs - block * BLOCK)):
                c = block * BLOCK + o
                out[tile * TILE + d, c] = bases[c] - factor * sums[d * BLOCK + o]
    return done


@shared
def to_bits_shared(threads, acts, geometry, tables, weights, most, limits, before, after, bits, units):
    done = np.empty(threads, np.int64)  # np.zeros and done.sum() would start all threads once more each
    for t in prange(threads):
        i, j = units * t // threads, units * (t + 1) // threads
        done[t] = to_bits(acts, geometry, tables, weights, most, limits, before, after, bits, i, j)
    total = 0
    for t in range(threads):
        total += done[t]
    return total
