"""A layer of a packed network: its inputs to elements, the elements to sums, the sums to bits.

Everything lies channels last, bits in uint64 words of BLOCK channels: P of a binary activation, P and Q of a ternary
one (``bnnlib/packed/layers.py``).
"""

from pathlib import Path

import numpy as np
from numba import config, njit, prange

from bnnlib.packed.codes import BLOCK
from bnnlib.packed.simd import PIXELS, add_deficits, add_deficits_of_one, at_most, store_pairs
from bnnlib.simd import drop_stale_code

drop_stale_code(Path(__file__).parent, ("codes", "kernels", "processor", "simd"))
config.THREADING_LAYER_PRIORITY = ["omp", "tbb", "workqueue"]  # as torch's threads: others would wait busily for them
compiled = njit(error_model="numpy", cache=True)
inlined = njit(error_model="numpy", forceinline=True)
shared = njit(error_model="numpy", cache=True, parallel=True)

NO_BORDER = -(2**15)  # no value of a border
NOBODY, NEXT_PIXEL, NEXT_IMAGE = 0, 1, 2
TILE = 96  # dot products of a channel whose sums wait in the first-level cache; a multiple of PIXELS


@inlined
def _inside(i, size, pad):
    """The place without border that place ``i`` of a repeated border shows."""
    return min(max(i - pad, 0), size - 1)


@compiled
def code_tables(bits, width, pad, group, mate, elements, acts, first, last):
    """Rows of bits to places in a table.

    Args:
        bits: uint64 [planes, N, H, at least width, words].
        width, pad: of the image; its repeated border.
        group, elements: values in an element, elements of a pixel.
        mate: whose code goes into an element beside the pixel's own: NOBODY, NEXT_PIXEL or NEXT_IMAGE; the last of a
            row or batch has itself.
        acts: uint16 [N * (H + 2 pad) * (width + 2 pad) * elements].
        first, last: of the N * (H + 2 pad) rows.
    """
    planes, images, height, _, words = bits.shape
    rows, columns = height + 2 * pad, width + 2 * pad
    a_word, bits_of_code = BLOCK // group, np.uint64(group * planes)
    for row in range(first, last):
        n, y = row // rows, _inside(row % rows, height, pad)
        m = min(n + 1, images - 1) if mate == NEXT_IMAGE else n
        for j in range(columns):
            x, at = _inside(j, width, pad), (row * columns + j) * elements
            z = _inside(min(j + 1, columns - 1), width, pad) if mate == NEXT_PIXEL else x
            for w in range(words):
                p, other = bits[0, n, y, x, w], bits[0, m, y, z, w]
                if planes == 1 and group == 4 and mate and elements >= (w + 1) * 16:
                    store_pairs(acts, at + w * 16, p, other)
                    continue
                q, other_q = bits[planes - 1, n, y, x, w], bits[planes - 1, m, y, z, w]
                for e in range(min(a_word, elements - w * a_word)):
                    code = _code(p, q, planes, group, e)
                    if mate:
                        code = code << bits_of_code | _code(other, other_q, planes, group, e)
                    acts[at + w * a_word + e] = code << np.uint64(4)  # 16 columns a row


@inlined
def _code(p, q, planes, group, e):
    """Code of element e: P's bits, above Q's where there are two planes."""
    mask, here = np.uint64((1 << group) - 1), np.uint64(e * group)
    code = (p >> here) & mask
    return code << np.uint64(group) | ((q >> here) & mask) if planes == 2 else code


@compiled
def code_words(bits, width, pad, elements, acts, first, last):
    """Rows of bits to words of 32; ``acts`` is uint32 [pixels * elements], or [..., 2] with P and what is not zero."""
    planes, _, height, _, _ = bits.shape
    rows, columns = height + 2 * pad, width + 2 * pad
    flat = acts.reshape(-1)
    for row in range(first, last):
        n, y = row // rows, _inside(row % rows, height, pad)
        for j in range(columns):
            x, at = _inside(j, width, pad), (row * columns + j) * elements
            for e in range(elements):
                half = np.uint64(32 * (e & 1))
                p = bits[0, n, y, x, e >> 1]
                flat[(at + e) * planes] = np.uint32((p >> half) & np.uint64(0xFFFFFFFF))
                if planes == 2:
                    nonzero = ~(p ^ bits[1, n, y, x, e >> 1])
                    flat[(at + e) * planes + 1] = np.uint32((nonzero >> half) & np.uint64(0xFFFFFFFF))


@compiled
def code_values(bits, width, pad, elements, acts, first, last):
    """Rows of bits to the numbers that they stand for, int16."""
    planes, _, height, _, _ = bits.shape
    rows, columns = height + 2 * pad, width + 2 * pad
    for row in range(first, last):
        n, y = row // rows, _inside(row % rows, height, pad)
        for j in range(columns):
            x, at = _inside(j, width, pad), (row * columns + j) * elements
            for e in range(elements):
                here = np.uint64(e % BLOCK)
                p = np.int16((bits[0, n, y, x, e // BLOCK] >> here) & np.uint64(1))
                q = np.int16((bits[planes - 1, n, y, x, e // BLOCK] >> here) & np.uint64(1))
                acts[at + e] = p + q - 1


@inlined
def _deficits(acts, starts, count, row_step, tables, weights, block, kernel, run, most, sums):
    """Add to ``sums`` [count * BLOCK] the deficits of ``count`` dot products."""
    rows, chunk = (kernel, run) if most == 0 else (1, run)
    if most and run > most:
        parts = (run + most - 1) // most
        chunk = min(most, (run + 3 * parts - 1) // (3 * parts) * 3)  # whole turns of the innermost loop
    for r in range(0, kernel, rows):
        for k in range(0, run, chunk):
            size = min(chunk, run - k)
            shift, start = r * row_step + k, (block * kernel + r) * run + k
            p = 0
            while p + PIXELS <= count:
                add_deficits(sums, p * BLOCK, acts, starts, p, shift, row_step, tables, weights, start, rows, size)
                p += PIXELS
            while p < count:
                add_deficits_of_one(
                    sums, p * BLOCK, acts, starts, p, shift, row_step, tables, weights, start, rows, size
                )
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
def image_values(images, levels, pad, border, acts, first, last):
    """Rows of images to int16, channels last.

    Args:
        images: uint8 [N, C, H, W].
        levels: int16 [256], the integer that each brightness stands for.
        pad, border: pixels added on each side; their value, or NO_BORDER to repeat the border.
        acts: int16 [N * (H + 2 pad) * (W + 2 pad) * C].
        first, last: of the N * (H + 2 pad) rows.
    """
    _, channels, height, width = images.shape
    rows, columns = height + 2 * pad, width + 2 * pad
    for row in range(first, last):
        n, i = row // rows, row % rows
        y = _inside(i, height, pad)
        for j in range(columns):
            x, at = _inside(j, width, pad), (row * columns + j) * channels
            outside = y != i - pad or x != j - pad
            for c in range(channels):
                fill = outside and border != NO_BORDER
                acts[at + c] = border if fill else levels[images[n, c, y, x]]


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
    steps, images, height, width, _ = bits.shape
    total = images * height * width * members
    tiles = (total + TILE - 1) // TILE
    sums, starts = np.empty(TILE * BLOCK, limits.dtype), np.empty(TILE, np.intp)
    outputs = limits.shape[1]
    kernel, run = weights.shape[1], weights.shape[2]
    flat_limits, flat_bits = limits.reshape(-1), bits.reshape(-1)
    done = 0
    for unit in range(first, last):
        block, tile = unit // tiles, unit % tiles
        count = min(TILE, total - tile * TILE)
        done += BLOCK * _places(tile * TILE, count, height, width, members, rows, columns, elements, real_width, starts)
        sums[: count * BLOCK] = 0
        _deficits(acts, starts, count, columns * elements, tables, weights, block, kernel, run, most, sums)
        for cell in range(count // members):
            at = (tile * TILE // members + cell) * before.size + block
            for step in range(steps):
                found = np.uint64(0)
                for member in range(members):
                    row = (cell * members + member) * BLOCK
                    found |= at_most(sums, row, flat_limits, step * outputs + block * BLOCK) ^ before[block]
                flat_bits[step * images * height * width * before.size + at] = found ^ after[block]
    return done


@compiled
def to_sums(acts, geometry, tables, weights, most, factor, base, out, first, last):
    """Units of the last layer: its sums ``base - factor * deficit`` as int32 [N, outputs]; else as ``to_bits``."""
    rows, columns, elements, _, _ = geometry
    images, outputs = out.shape
    tiles = (images + TILE - 1) // TILE
    sums, starts = np.empty(TILE * BLOCK, np.int32), np.empty(TILE, np.intp)
    kernel, run = weights.shape[1], weights.shape[2]
    done = 0
    for unit in range(first, last):
        block, tile = unit // tiles, unit % tiles
        count = min(TILE, images - tile * TILE)
        done += BLOCK * _places(tile * TILE, count, 1, 1, 1, rows, columns, elements, 1, starts)
        sums[: count * BLOCK] = 0
        _deficits(acts, starts, count, columns * elements, tables, weights, block, kernel, run, most, sums)
        for d in range(count):
            for o in range(min(BLOCK, outputs - block * BLOCK)):
                out[tile * TILE + d, block * BLOCK + o] = base - factor * sums[d * BLOCK + o]
    return done


@shared
def image_values_shared(threads, images, levels, pad, border, acts, rows):
    for t in prange(threads):
        image_values(images, levels, pad, border, acts, rows * t // threads, rows * (t + 1) // threads)


@shared
def code_tables_shared(threads, bits, width, pad, group, mate, elements, acts, rows):
    for t in prange(threads):
        code_tables(bits, width, pad, group, mate, elements, acts, rows * t // threads, rows * (t + 1) // threads)


@shared
def code_words_shared(threads, bits, width, pad, elements, acts, rows):
    for t in prange(threads):
        code_words(bits, width, pad, elements, acts, rows * t // threads, rows * (t + 1) // threads)


@shared
def to_bits_shared(threads, acts, geometry, tables, weights, most, limits, before, after, bits, units):
    done = np.zeros(threads, np.int64)
    for t in prange(threads):
        i, j = units * t // threads, units * (t + 1) // threads
        done[t] = to_bits(acts, geometry, tables, weights, most, limits, before, after, bits, i, j)
    return done.sum()
