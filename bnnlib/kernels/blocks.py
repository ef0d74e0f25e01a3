"""What stands between two convolutions, in few passes: batch norm, quantizer and border, and the way back through them.

Forward, z = a y + b is the batch norm of the sums y, with one a and b per channel; its binary or ternary value goes to
the next convolution as a byte. Backward, the gradient of these values comes with the
border, is masked by the estimator, and goes through the batch norm (S. Ioffe, C. Szegedy, arXiv 1502.03167).

Everything lies channels last. C is a multiple of LANES. All arrays are contiguous, and results are written into arrays
that the caller hands over, so that ``threads`` can hand out shares of a batch.
"""

import numpy as np

from bnnlib.kernels.compiling import compiled


@compiled
def moments(y: np.ndarray, sums: np.ndarray) -> None:
    """Add the sums of y and y^2 of each channel.

    Each image is summed in float32, the images in float64.

    Args:
        y: float32 [N, H, W, C].
        sums: float64 [1, 2, C].
    """
    n, height, width, channels = y.shape
    first, second = np.empty(channels, np.float32), np.empty(channels, np.float32)
    for a in range(n):
        first[:] = 0
        second[:] = 0
        for i in range(height):
            for j in range(width):
                values = y[a, i, j]
                for c in range(channels):
                    first[c] += values[c]
                    second[c] += values[c] * values[c]
        for c in range(channels):
            sums[0, 0, c] += first[c]
            sums[0, 1, c] += second[c]


@compiled
def magnitude(y: np.ndarray, factor: np.ndarray, shift: np.ndarray, bound: float, sums: np.ndarray) -> None:
    """Add the sum of min(|z|, bound) to sums, float64 [1]; y float32 [N, H, W, C], factor and shift float32 [C]."""
    n, height, width, channels = y.shape
    most = np.float32(bound)
    row = np.empty(channels, np.float32)
    for a in range(n):
        row[:] = 0
        for i in range(height):
            for j in range(width):
                values = y[a, i, j]
                for c in range(channels):
                    row[c] += min(abs(factor[c] * values[c] + shift[c]), most)
        total = 0.0
        for c in range(channels):
            total += row[c]
        sums[0] += total


@compiled
def quantize_values(
    y: np.ndarray, factor: np.ndarray, shift: np.ndarray, threshold: float, pad: int, x: np.ndarray
) -> None:
    """Binary or ternary values of z, with the border repeated.

    Args:
        y: float32 [N, h, w, C].
        factor, shift: float32 [C].
        threshold: of ternary values; negative for binary ones, which are +1 at z = 0.
        pad: pixels of the border.
        x: int8 [N, H, W, C], written.
    """
    n, rows, columns, channels = x.shape
    height, width = y.shape[1:3]
    t = np.float32(threshold)
    flat = x.reshape(-1)
    for a in range(n):
        for i in range(height):
            for j in range(width):
                at = ((a * rows + i + pad) * columns + j + pad) * channels
                to, source = flat[at : at + channels], y[a, i, j]
                if threshold < 0:
                    for c in range(channels):
                        to[c] = 1 if factor[c] * source[c] + shift[c] >= np.float32(0) else -1
                else:
                    for c in range(channels):
                        z = factor[c] * source[c] + shift[c]
                        to[c] = np.int8(z > t) - np.int8(z < -t)
        for i in range(rows):
            beyond = i < pad or i >= height + pad
            other = min(max(i - pad, 0), height - 1) + pad
            for j in range(0, columns, 1 if beyond or not pad else columns - 1):
                source = ((a * rows + other) * columns + min(max(j - pad, 0), width - 1) + pad) * channels
                to = ((a * rows + i) * columns + j) * channels
                if source != to:
                    flat[to : to + channels] = flat[source : source + channels]


@compiled
def masked_gradient(
    dx: np.ndarray, unit: float, y: np.ndarray, factor: np.ndarray, shift: np.ndarray, bound: float, pad: int,
    mean: np.ndarray, scale: np.ndarray, dz: np.ndarray, sums: np.ndarray,
) -> None:  # fmt: skip
    """The gradient of z: that of the values where |z| < bound, what the border repeats added to its source.

    Args:
        dx: int32 [N, H, W, C], gradient of the values with border, in ``unit``.
        y, factor, shift, pad: as of ``quantize_values``.
        bound: 1 for the clip estimator, infinity for the identity.
        mean, scale: float32 [C]; (y - mean) scale has variance one.
        dz: float32 [N, h, w, C], written.
        sums: float64 [1, 2, C], to which the sums of dz and of dz (y - mean) scale are added.
    """
    n, height, width, channels = y.shape
    rows, columns = dx.shape[1:3]
    most, one = np.float32(bound), np.float32(unit)
    first, second = np.empty(channels, np.float32), np.empty(channels, np.float32)
    total, flat = np.empty(channels, np.int32), dx.reshape(-1)
    for a in range(n):
        first[:] = 0
        second[:] = 0
        for i in range(height):
            top, bottom = (0 if i == 0 else i + pad), (rows if i == height - 1 else i + pad + 1)
            for j in range(width):
                left, right = (0 if j == 0 else j + pad), (columns if j == width - 1 else j + pad + 1)
                at = ((a * rows + top) * columns + left) * channels
                found = flat[at : at + channels]
                if bottom - top > 1 or right - left > 1:
                    total[:] = 0
                    for r in range(top, bottom):
                        for s in range(left, right):
                            at = ((a * rows + r) * columns + s) * channels
                            part = flat[at : at + channels]
                            for c in range(channels):
                                total[c] += part[c]
                    found = total
                values, to = y[a, i, j], dz[a, i, j]
                for c in range(channels):
                    inside = np.float32(abs(factor[c] * values[c] + shift[c]) < most)
                    grad = np.float32(found[c]) * one * inside
                    to[c] = grad
                    first[c] += grad
                    second[c] += grad * ((values[c] - mean[c]) * scale[c])
        for c in range(channels):
            sums[0, 0, c] += first[c]
            sums[0, 1, c] += second[c]


@compiled
def norm_gradient(y: np.ndarray, slope: np.ndarray, factor: np.ndarray, shift: np.ndarray, dz: np.ndarray) -> None:
    """Turn the gradient of z into that of y: factor dz + slope y + shift, per channel; arrays as above."""
    n, height, width, channels = y.shape
    for a in range(n):
        for i in range(height):
            for j in range(width):
                values, to = y[a, i, j], dz[a, i, j]
                for c in range(channels):
                    to[c] = factor[c] * to[c] + slope[c] * values[c] + shift[c]
