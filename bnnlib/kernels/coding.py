"""The inputs of a layer of a packed network, as elements: images, and the bits of the layer before.

Everything lies channels last, bits in uint64 words of BLOCK channels: P of a binary activation, P and Q of a ternary
one (``bnnlib/packed/layers.py``).
"""

import numpy as np
from numba import prange

from bnnlib.kernels.compiling import compiled, inlined, shared
from bnnlib.kernels.deficits import copy_words, store_pairs
from bnnlib.kernels.layouts import BLOCK

NO_BORDER = -(2**15)  # no value of a border
NOBODY, NEXT_PIXEL, NEXT_IMAGE = 0, 1, 2


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
    """Rows of bits to words of 32; ``acts`` is uint32 [pixels * elements], or [..., 2] with P and Q."""
    planes, _, height, stride, words = bits.shape
    rows, columns = height + 2 * pad, width + 2 * pad
    flat, source = acts.reshape(-1), bits.reshape(-1)
    for row in range(first, last):
        n, y = row // rows, _inside(row % rows, height, pad)
        begin, at = (n * height + y) * stride * 2 * words, row * columns * elements
        if planes == 1 and elements == 2 * words:  # a row at once, then its borders
            copy_words(flat, at + pad * elements, source, begin, width * elements)
            for j in range(pad):
                copy_words(flat, at + j * elements, source, begin, elements)
                right = begin + (width - 1) * elements
                copy_words(flat, at + (pad + width + j) * elements, source, right, elements)
            continue
        for j in range(columns):
            x = _inside(j, width, pad)
            for e in range(elements):
                half = np.uint64(32 * (e & 1))
                for k in range(planes):
                    word = bits[k, n, y, x, e >> 1] >> half
                    flat[(at + j * elements + e) * planes + k] = np.uint32(word & np.uint64(0xFFFFFFFF))


@compiled
def code_values(bits, width, pad, levels, elements, acts, first, last):
    """Rows of bits to what ``levels`` says that -1, 0 and 1 are written as."""
    planes, _, height, _, _ = bits.shape
    rows, columns = height + 2 * pad, width + 2 * pad
    for row in range(first, last):
        n, y = row // rows, _inside(row % rows, height, pad)
        for j in range(columns):
            x, at = _inside(j, width, pad), (row * columns + j) * elements
            for e in range(elements):
                here = np.uint64(e % BLOCK)
                p = (bits[0, n, y, x, e // BLOCK] >> here) & np.uint64(1)
                q = (bits[planes - 1, n, y, x, e // BLOCK] >> here) & np.uint64(1)
                acts[at + e] = levels[p + q]


@compiled
def image_values(images, levels, pad, border, acts, first, last):
    """Rows of images to numbers, channels last.

    Args:
        images: uint8 [N, C, H, W].
        levels: int16 or uint8 [256], what each brightness is written as.
        pad, border: pixels added on each side; what they are, or NO_BORDER to repeat the border.
        acts: as ``levels``, [at least N * (H + 2 pad) * (W + 2 pad) * C].
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
