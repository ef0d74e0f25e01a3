"""Training kernels for the CPU, compiled by numba: XNOR/popcount forward, a backward that skips what pooling dropped.

Two facts about these networks make a step cheaper than its dense matrix products:

- A binary layer's forward pass needs no multiplication: with K bits that differ out of L, the sum of L products of ±1
  is L - 2 K (BNN, arXiv 1602.02830). In float32 the same sum is exact too, so the result is equal to the last bit.
- Behind a 2 x 2 max pooling only one of four outputs has a gradient. Both matrix products of the backward pass then
  need a quarter of their multiplications: every pooled gradient adds a multiple of a patch of inputs to the weight
  gradient of its channel, and a multiple of the kernel of its channel to a patch of the input gradient.

Everything lies channels last: images [N, H, W, C], kernels [O, K, K, C]. C and O are multiples of LANES.
All arrays are contiguous numpy views of torch tensors, the results too: nothing is allocated here, so that ``threads``
can hand out shares of a batch.
"""

import numpy as np

from bnnlib.kernels.compiling import compiled
from bnnlib.kernels.simd import LANES, add_rows, count_mismatches, sign_bits

# What is used again before it leaves the first-level cache, 32 KiB of most processors; tuned by measurement:
CELLS = 64  # pooled places; as many images as have so many go together
PATCH_CELLS, PATCH_WIDTH = 16, 96  # the patches behind some of these places, cut to some floats, for all outputs
KERNELS = 64  # kernels, cut to ``forward``'s blocks, for all places


@compiled
def pack(x: np.ndarray, words: np.ndarray) -> None:
    """Signs of float32 ``x`` [..., C] to uint32 ``words`` [..., C / LANES]; x >= 0 is a set bit."""
    flat = words.reshape(-1)
    for i in range(flat.size):
        flat[i] = sign_bits(x, i * LANES)


@compiled
def xnor_conv(x: np.ndarray, words: np.ndarray, w: np.ndarray, y: np.ndarray) -> None:
    """Convolution of ±1 inputs with ±1 weights.

    Args:
        x: float32 [N, H, W, C].
        words: uint32 [N, H, W, C / LANES], room for its bits.
        w: uint32 [K, K, C / LANES, O], bits of the kernels from ``pack``, output channel last.
        y: float32 [N, H - K + 1, W - K + 1, O].
    """
    pack(x, words)
    n, height, width, outputs = y.shape
    kernel, _, depth, _ = w.shape
    counts = np.empty(outputs, np.int32)
    patch = np.empty(kernel * kernel * depth, np.uint32)
    length = np.int32(patch.size * LANES)
    for a in range(n):
        for i in range(height):
            for j in range(width):
                t = 0
                for r in range(kernel):
                    for s in range(kernel):
                        for c in range(depth):
                            patch[t] = words[a, i + r, j + s, c]
                            t += 1
                counts[:] = 0
                for o in range(0, outputs, LANES):
                    count_mismatches(counts, o, patch, 0, patch.size, w, o, outputs)
                for o in range(outputs):
                    y[a, i, j, o] = np.float32(length - 2 * counts[o])


@compiled
def image_conv(x: np.ndarray, w: np.ndarray, taps: np.ndarray, pooled: np.ndarray, winner: np.ndarray) -> None:
    """Convolution of images with few channels and 2 x 2 max pooling, without keeping what the pooling drops.

    Args:
        x: float32 [N, C, H, W], padded already.
        w: float32 [C K K, O].
        taps: intp [C K K], where the input of each weight lies in a flat image from the corner of its patch on.
        pooled, winner: as of ``max_pool``.
    """
    n, height, width, outputs = pooled.shape
    flat, columns = x.reshape(-1), x.shape[3]
    size = x.shape[1] * x.shape[2] * columns
    y = np.empty((4, outputs), np.float32)
    patch = np.empty(len(taps), np.float32)
    rows = (np.arange(len(taps)) * outputs).astype(np.uint32)
    for a in range(n):
        for i in range(height):
            for j in range(width):
                y[:] = 0
                for k in range(4):
                    corner = a * size + (2 * i + (k >> 1)) * columns + 2 * j + (k & 1)
                    for t in range(len(taps)):
                        patch[t] = flat[corner + taps[t]]
                    add_rows(y, k * outputs, w, 0, rows, patch, 0, len(taps), outputs)
                for o in range(outputs):
                    best, which = y[0, o], np.uint8(0)
                    for k in range(1, 4):
                        which = np.uint8(k) if y[k, o] > best else which
                        best = max(best, y[k, o])
                    pooled[a, i, j, o] = best
                    winner[a, i, j, o] = which


@compiled
def image_weight_gradient(
    winner: np.ndarray, grad: np.ndarray, x: np.ndarray, taps: np.ndarray, dw: np.ndarray
) -> None:
    """Add to the gradient of the weights of ``image_conv``; ``dw`` is float32 [1, C K K, O]."""
    n, height, width, outputs = winner.shape
    flat, columns = x.reshape(-1), x.shape[3]
    size = x.shape[1] * x.shape[2] * columns
    wide = 2 * width
    spread = np.empty((2 * wide, outputs), np.float32)  # gradients of two rows before the pooling
    starts = (np.arange(2 * wide) * outputs).astype(np.uint32)
    seen = np.empty(2 * wide, np.float32)  # what one weight saw there
    for a in range(n):
        for i in range(height):
            for j in range(width):
                for k in range(4):
                    at = (k >> 1) * wide + 2 * j + (k & 1)
                    for o in range(outputs):
                        spread[at, o] = grad[a, i, j, o] if winner[a, i, j, o] == k else np.float32(0)
            for t in range(len(taps)):
                first = a * size + 2 * i * columns + taps[t]
                seen[:wide] = flat[first : first + wide]
                seen[wide:] = flat[first + columns : first + columns + wide]
                add_rows(dw, t * outputs, spread, 0, starts, seen, 0, 2 * wide, outputs)


@compiled
def image_sums(x: np.ndarray, w: np.ndarray, taps: np.ndarray, y: np.ndarray) -> None:
    """The convolution of ``image_conv`` without pooling; ``y`` is float32 [N, H', W', O]."""
    n, height, width, outputs = y.shape
    flat, columns, to = x.reshape(-1), x.shape[3], y.reshape(-1)
    size = x.shape[1] * x.shape[2] * columns
    patch = np.empty(len(taps), np.float32)
    rows = (np.arange(len(taps)) * outputs).astype(np.uint32)
    for a in range(n):
        for i in range(height):
            for j in range(width):
                corner, at = a * size + i * columns + j, ((a * height + i) * width + j) * outputs
                for t in range(len(taps)):
                    patch[t] = flat[corner + taps[t]]
                to[at : at + outputs] = np.float32(0)
                add_rows(to, at, w, 0, rows, patch, 0, len(taps), outputs)


@compiled
def image_sums_weight_gradient(grad: np.ndarray, x: np.ndarray, taps: np.ndarray, dw: np.ndarray) -> None:
    """Add to the gradient of the weights of ``image_sums``; ``dw`` is float32 [1, C K K, O]."""
    n, height, width, outputs = grad.shape
    flat, columns = x.reshape(-1), x.shape[3]
    size = x.shape[1] * x.shape[2] * columns
    starts = (np.arange(width) * outputs).astype(np.uint32)
    for a in range(n):
        for i in range(height):
            row, first = (a * height + i) * width * outputs, a * size + i * columns
            for t in range(len(taps)):
                seen = flat[first + taps[t] : first + taps[t] + width]
                add_rows(dw, t * outputs, grad, row, starts, seen, 0, width, outputs)


@compiled
def max_pool(y: np.ndarray, pooled: np.ndarray, winner: np.ndarray) -> None:
    """Largest of each 2 x 2 outputs and where it stood, the first of equals as in torch.

    Args:
        y: float32 [N, H, W, O].
        pooled: float32 [N, H // 2, W // 2, O].
        winner: uint8 of the same shape: 0 to 3, row by row.
    """
    n, height, width, outputs = pooled.shape
    for a in range(n):
        for i in range(height):
            for j in range(width):
                for o in range(outputs):
                    best = y[a, 2 * i, 2 * j, o]
                    which = np.uint8(0)
                    for k in range(1, 4):
                        other = y[a, 2 * i + (k >> 1), 2 * j + (k & 1), o]
                        which = np.uint8(k) if other > best else which
                        best = max(best, other)
                    pooled[a, i, j, o] = best
                    winner[a, i, j, o] = which


@compiled
def weight_gradient(winner: np.ndarray, grad: np.ndarray, x: np.ndarray, kernel: int, dw: np.ndarray) -> None:
    """Add to the gradient of the kernels of a convolution that a 2 x 2 max pooling follows.

    Args:
        winner: uint8 [N, h, w, O] from ``max_pool``.
        grad: float32 [N, h, w, O], of the pooled outputs.
        x: float32 [N, H, W, C], inputs of the convolution.
        kernel: K.
        dw: float32 [1, O, K, K, C].
    """
    n, height, width, outputs = winner.shape
    rows, columns, channels = x.shape[1:]
    length = kernel * channels
    images = max(1, CELLS // (height * width))
    cells = images * height * width
    start = np.empty((outputs, cells), np.uint32)
    factor = np.empty((outputs, cells), np.float32)
    for a in range(0, n, images):
        p = 0
        for b in range(a, min(a + images, n)):
            for i in range(height):
                for j in range(width):
                    corner = ((b - a) * rows + 2 * i) * columns + 2 * j
                    for o in range(outputs):
                        k = np.intp(winner[b, i, j, o])  # shifts: a division rounds down, which takes its time
                        start[o, p] = (corner + (k >> 1) * columns + (k & 1)) * channels
                        factor[o, p] = grad[b, i, j, o]
                    p += 1
        for r in range(kernel):
            row = (a * rows + r) * columns * channels
            for c in range(0, length, PATCH_WIDTH):
                size = min(PATCH_WIDTH, length - c)
                for first in range(0, p, PATCH_CELLS):
                    last = min(first + PATCH_CELLS, p)
                    for o in range(outputs):
                        into = (o * kernel + r) * length + c
                        add_rows(dw, into, x, row + c, start, factor, o * cells + first, o * cells + last, size)


@compiled
def input_gradient(winner: np.ndarray, grad: np.ndarray, w: np.ndarray, dx: np.ndarray) -> None:
    """Add to the gradient of the inputs of a convolution that a 2 x 2 max pooling follows.

    Args:
        winner: uint8 [N, h, w, O] from ``max_pool``.
        grad: float32 [N, h, w, O], of the pooled outputs.
        w: float32 [K, K C / B, O, B]: the kernels, their rows cut to blocks of B values, a multiple of LANES.
        dx: float32 [N, H, W, C].
    """
    n, height, width, outputs = winner.shape
    kernel, blocks, _, block = w.shape
    rows, columns, channels = dx.shape[1:]
    images = max(1, CELLS // (height * width))
    cells = images * height * width
    shares = (outputs + KERNELS - 1) // KERNELS
    # the outputs of each cell ordered by where their winner stood: those that add to one patch are together
    start = np.empty((shares, cells, KERNELS + 1), np.uint32)
    factor = np.empty((shares, cells, KERNELS + 1), np.float32)
    end = np.empty((shares, cells, 5), np.intp)
    corner = np.empty(cells, np.intp)
    for a in range(0, n, images):
        p = 0
        for b in range(a, min(a + images, n)):
            for i in range(height):
                for j in range(width):
                    corner[p] = ((b * rows + 2 * i) * columns + 2 * j) * channels
                    for q in range(shares):
                        t = 0
                        end[q, p, 0] = 0
                        for k in range(4):
                            for o in range(q * KERNELS, min((q + 1) * KERNELS, outputs)):
                                # no branch: a loser is overwritten by the next output
                                start[q, p, t] = o * block
                                factor[q, p, t] = grad[b, i, j, o]
                                t += winner[b, i, j, o] == k
                            end[q, p, k + 1] = t
                    p += 1
        for r in range(kernel):
            for c in range(blocks):
                base = (r * blocks + c) * outputs * block
                for q in range(shares):
                    for cell in range(p):
                        at = (q * cells + cell) * (KERNELS + 1)
                        for k in range(4):
                            into = corner[cell] + ((r + (k >> 1)) * columns + (k & 1)) * channels + c * block
                            first, last = at + end[q, cell, k], at + end[q, cell, k + 1]
                            add_rows(dx, into, w, base, start, factor, first, last, block)
