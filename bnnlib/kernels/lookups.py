"""The two products of a convolution's backward pass for gradients of 8 bits or fewer and binary or ternary operands.

Both are sums of products g v with g a signed byte and v = ±1: four of them at once are looked up (``lookup_simd``). A
ternary v is the mean of two planes of ±1, P (v > 0) and Q (v >= 0), and takes twice as long; sums are then twice what
they should be. A g that is larger than DIGIT is two digits, 32 h + l, and takes twice as long as well.

Everything lies channels last: inputs [N, H, W, C] with their border, kernels [O, K, K, C], outputs [N, h, w, O]. C and
O are multiples of LANES. All arrays are contiguous. Sums are int32 and exact. The gradient behind a max pooling is that
of all places, zero where the pooling dropped them (``unpool``).
"""

import numpy as np

from bnnlib.kernels.compiling import compiled
from bnnlib.kernels.lookup_simd import LOOKUPS, OFFSET, ROWS, add_lookups, store_table

TABLES = 24 * 1024  # bytes of tables, and of codes, that stay in the first-level cache beside each other
CODES = 24 * 1024
DIGIT_BITS = 5
BASE = 1 << DIGIT_BITS


@compiled
def quantize(grad: np.ndarray, scale: float, out: np.ndarray) -> None:
    """Float32 times ``scale`` to the nearest integer, ties to even; int8, flat."""
    one = np.float32(scale)
    for i in range(grad.size):
        out[i] = np.int8(np.rint(grad[i] * one))


@compiled
def unpool(winner: np.ndarray, pooled: np.ndarray, grad: np.ndarray) -> None:
    """Gradient of a 2 x 2 max pooling: uint8 and int8 [N, h, w, O] to int8 [N, 2 h, 2 w, O]."""
    n, height, width, outputs = pooled.shape
    for a in range(n):
        for i in range(height):
            for j in range(width):
                won, one = winner[a, i, j], pooled[a, i, j]
                for k in range(4):
                    which = np.uint8(k)
                    to = grad[a, 2 * i + (k >> 1), 2 * j + (k & 1)]
                    for o in range(outputs):
                        # a mask, which is what makes this a loop over vectors: 60 times as fast as a choice
                        to[o] = one[o] & (np.int8(0) - np.int8(won[o] == which))


@compiled
def code_kernels(w: np.ndarray, codes: np.ndarray) -> None:
    """Signs of four kernels each as places in a table.

    Args:
        w: int8 [O, K, K C].
        codes: uint8 [planes, K, K C / columns, O / 4, columns], written.
    """
    planes, kernel, tiles, fours, columns = codes.shape
    for plane in range(planes):
        least = -plane  # P is v > 0, Q is v > -1
        for r in range(kernel):
            for tile in range(tiles):
                for f in range(fours):
                    for c in range(columns):
                        at = tile * columns + c
                        code = np.uint8(w[4 * f, r, at] > least) | np.uint8(w[4 * f + 1, r, at] > least) << 1
                        code |= np.uint8(w[4 * f + 2, r, at] > least) << 2 | np.uint8(w[4 * f + 3, r, at] > least) << 3
                        codes[plane, r, tile, f, c] = code


@compiled
def code_inputs(x: np.ndarray, codes: np.ndarray) -> None:
    """Signs of four neighbours in a row each as places in a table.

    Args:
        x: int8 [N, H, W, C].
        codes: uint8 [N, planes, K C / columns, H, fours, columns], written.
    """
    n, planes, tiles, rows, fours, columns = codes.shape
    width, channels = x.shape[2:]
    none = np.zeros(channels, np.int8)
    for a in range(n):
        for plane in range(planes):
            least = -plane
            for tile in range(tiles):
                for i in range(rows):
                    for f in range(fours):
                        for part in range(0, columns, 32):
                            s, c = (tile * columns + part) // channels, (tile * columns + part) % channels
                            j = 4 * f + s
                            x0 = x[a, i, j, c : c + 32] if j < width else none[:32]
                            x1 = x[a, i, j + 1, c : c + 32] if j + 1 < width else none[:32]
                            x2 = x[a, i, j + 2, c : c + 32] if j + 2 < width else none[:32]
                            x3 = x[a, i, j + 3, c : c + 32] if j + 3 < width else none[:32]
                            to = codes[a, plane, tile, i, f, part : part + 32]
                            for b in range(32):
                                code = np.uint8(x0[b] > least) | np.uint8(x1[b] > least) << 1
                                to[b] = code | np.uint8(x2[b] > least) << 2 | np.uint8(x3[b] > least) << 3


@compiled
def _store(tables, at, jump, a, b, c, d, digits):
    """The table of four bytes, or one for each of their two digits, ``jump`` apart, the lower one first."""
    if digits == 1:
        store_table(tables, at, a, b, c, d)
        return
    half = BASE // 2  # l from -16 to 15, h from -4 to 4
    ha, hb, hc, hd = (a + half) // BASE, (b + half) // BASE, (c + half) // BASE, (d + half) // BASE
    store_table(tables, at, np.int8(a - BASE * ha), np.int8(b - BASE * hb), np.int8(c - BASE * hc),
                np.int8(d - BASE * hd))  # fmt: skip
    store_table(tables, at + jump, np.int8(ha), np.int8(hb), np.int8(hc), np.int8(hd))


@compiled
def input_gradient(grad: np.ndarray, digits: int, kernel: int, codes: np.ndarray, dx: np.ndarray) -> None:
    """The gradient of the inputs of a convolution, times the number of planes of its kernels.

    Args:
        grad: int8 [N, h, w, O].
        digits: 1 if no gradient is larger than DIGIT, else 2.
        kernel: K.
        codes: of ``code_kernels``.
        dx: int32 [N, H, W, C], written.
    """
    n, height, width, outputs = grad.shape
    planes, _, tiles, fours, columns = codes.shape
    rows, line, channels = dx.shape[1:]
    places = n * height * width
    flat, flat_codes, to = grad.reshape(-1), codes.reshape(-1), dx.reshape(-1)
    for low in range(0, fours, LOOKUPS):
        steps = min(LOOKUPS, fours - low)
        size = steps * 16
        most = max(1, TABLES // (size * digits))  # places at once
        room = most * digits + ROWS
        tables, shifts = np.full(room * size, OFFSET, np.uint8), np.zeros(room, np.int32)  # the last ones add nothing
        starts, targets, corners = np.zeros(room, np.intp), np.zeros(room, np.intp), np.zeros(room, np.intp)
        cleared = 0 if low == 0 else n  # images; each just before it is added to, while it is in the cache
        for begin in range(0, places, most):
            count = min(most, places - begin)
            while cleared < n and cleared * height * width < begin + count:
                dx[cleared] = 0
                cleared += 1
            for p in range(count):
                at, place = p * digits * size, begin + p
                for f in range(steps):
                    g = place * outputs + 4 * (low + f)
                    _store(tables, at + 16 * f, size, flat[g], flat[g + 1], flat[g + 2], flat[g + 3], digits)
                a, i, j = place // (height * width), place // width % height, place % width
                for digit in range(digits):
                    m = p * digits + digit
                    starts[m], shifts[m] = at + digit * size, DIGIT_BITS if digit else 0
                    corners[m] = ((a * rows + i) * line + j) * channels
            members = count * digits
            starts[members : members + ROWS] = most * digits * size
            for r in range(kernel):
                for tile in range(tiles):
                    for m in range(members + ROWS):
                        targets[m] = corners[m] + r * line * channels + tile * columns
                    for plane in range(planes):
                        at = (((plane * kernel + r) * tiles + tile) * fours + low) * columns
                        for m in range(0, members, ROWS):
                            add_lookups(to, targets, shifts, tables, starts, m, 0, flat_codes, at, 0, 1, steps, columns)


@compiled
def weight_gradient(grad: np.ndarray, digits: int, kernel: int, codes: np.ndarray, first: int, dw: np.ndarray) -> None:
    """Add to the gradient of some kernels of a convolution, times the number of planes of its inputs.

    Args:
        grad, digits, kernel: as of ``input_gradient``; w up to 4 LOOKUPS.
        codes: of ``code_inputs``.
        first: the first of the kernels.
        dw: int32 [kernels, K, K C].
    """
    n, height, width, outputs = grad.shape
    _, planes, tiles, rows, fours, columns = codes.shape
    steps = min(CODES // columns, LOOKUPS)
    lines = max(1, min(height, steps // fours))  # rows of outputs at once, of one image
    images = 1 if lines < height else max(1, steps // (rows * fours))
    size = images * lines * fours * 16
    most = max(1, 4 * TABLES // (size * digits))  # kernels at once, whose tables stream from the second-level cache
    room = most * digits + ROWS
    tables, shifts = np.full(room * size, OFFSET, np.uint8), np.zeros(room, np.int32)  # the last ones add nothing
    starts, targets = np.zeros(room, np.intp), np.zeros(room, np.intp)
    flat, flat_codes, to, nothing = grad.reshape(-1), codes.reshape(-1), dw.reshape(-1), np.int8(0)
    image = planes * tiles * rows * fours * columns
    for a in range(0, n, images):
        some = min(images, n - a)
        for top in range(0, height, lines):
            high = min(lines, height - top)
            for begin in range(0, len(dw), most):
                count = min(most, len(dw) - begin)
                for b in range(some):
                    for i in range(high):
                        for f in range(fours):
                            at = ((b * lines + i) * fours + f) * 16
                            g = (((a + b) * height + top + i) * width + 4 * f) * outputs + first + begin
                            left = width - 4 * f
                            for p in range(count):
                                one = flat[g + p + outputs] if left > 1 else nothing
                                two = flat[g + p + 2 * outputs] if left > 2 else nothing
                                three = flat[g + p + 3 * outputs] if left > 3 else nothing
                                _store(tables, p * digits * size + at, size, flat[g + p], one, two, three, digits)
                members = count * digits
                for m in range(members):
                    starts[m], shifts[m] = m * size, DIGIT_BITS if m % digits else 0
                starts[members : members + ROWS] = most * digits * size
                for tile in range(tiles):
                    for plane in range(planes):
                        for r in range(kernel):
                            for m in range(members + ROWS):
                                p = min(m // digits, count - 1)
                                targets[m] = (((begin + p) * kernel + r) * tiles + tile) * columns
                            at = a * image + ((plane * tiles + tile) * rows + top + r) * fours * columns
                            for m in range(0, members, ROWS):
                                add_lookups(to, targets, shifts, tables, starts, m, lines * fours * 16, flat_codes,
                                            at, image, some, high * fours, columns)  # fmt: skip
