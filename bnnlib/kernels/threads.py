"""The kernels of training for a whole batch, its images shared between as many threads as torch uses.

The threads are OpenMP's, as torch's are: threads of another kind would work against torch's, which wait busily. One
thread calls a kernel directly, or OpenMP would wait busily too, for nothing, on the core of a neighbour.
"""

import numpy as np
import torch
from numba import config, prange, set_num_threads

from bnnlib.kernels import blocks, convolution, lookups
from bnnlib.kernels.compiling import shared


@shared
def _max_pool(threads, y, pooled, winner):
    n = len(y)
    for t in prange(threads):
        i, j = n * t // threads, n * (t + 1) // threads
        convolution.max_pool(y[i:j], pooled[i:j], winner[i:j])


@shared
def _image_conv(threads, x, w, taps, pooled, winner):
    n = len(x)
    for t in prange(threads):
        i, j = n * t // threads, n * (t + 1) // threads
        convolution.image_conv(x[i:j], w, taps, pooled[i:j], winner[i:j])


@shared
def _image_weight_gradient(threads, winner, grad, x, taps, dw):
    n = len(x)
    for t in prange(threads):
        i, j = n * t // threads, n * (t + 1) // threads
        convolution.image_weight_gradient(winner[i:j], grad[i:j], x[i:j], taps, dw[t : t + 1])


@shared
def _image_sums(threads, x, w, taps, y):
    n = len(x)
    for t in prange(threads):
        i, j = n * t // threads, n * (t + 1) // threads
        convolution.image_sums(x[i:j], w, taps, y[i:j])


@shared
def _image_sums_weight_gradient(threads, grad, x, taps, dw):
    n = len(x)
    for t in prange(threads):
        i, j = n * t // threads, n * (t + 1) // threads
        convolution.image_sums_weight_gradient(grad[i:j], x[i:j], taps, dw[t : t + 1])


@shared
def _xnor_conv(threads, x, words, w, y):
    n = len(x)
    for t in prange(threads):
        i, j = n * t // threads, n * (t + 1) // threads
        convolution.xnor_conv(x[i:j], words[i:j], w, y[i:j])


@shared
def _weight_gradient(threads, winner, grad, x, kernel, dw):
    n = len(x)
    for t in prange(threads):
        i, j = n * t // threads, n * (t + 1) // threads
        convolution.weight_gradient(winner[i:j], grad[i:j], x[i:j], kernel, dw[t : t + 1])


@shared
def _input_gradient(threads, winner, grad, w, dx):
    n = len(dx)
    for t in prange(threads):
        i, j = n * t // threads, n * (t + 1) // threads
        convolution.input_gradient(winner[i:j], grad[i:j], w, dx[i:j])


@shared
def _moments(threads, y, sums):
    n = len(y)
    for t in prange(threads):
        i, j = n * t // threads, n * (t + 1) // threads
        blocks.moments(y[i:j], sums[t : t + 1])


@shared
def _magnitude(threads, y, factor, shift, bound, sums):
    n = len(y)
    for t in prange(threads):
        i, j = n * t // threads, n * (t + 1) // threads
        blocks.magnitude(y[i:j], factor, shift, bound, sums[t : t + 1])


@shared
def _quantize_values(threads, y, factor, shift, threshold, pad, x):
    n = len(y)
    for t in prange(threads):
        i, j = n * t // threads, n * (t + 1) // threads
        blocks.quantize_values(y[i:j], factor, shift, threshold, pad, x[i:j])


@shared
def _masked_gradient(threads, dx, unit, y, factor, shift, bound, pad, mean, scale, dz, sums):
    n = len(y)
    for t in prange(threads):
        i, j = n * t // threads, n * (t + 1) // threads
        blocks.masked_gradient(dx[i:j], unit, y[i:j], factor, shift, bound, pad, mean, scale, dz[i:j], sums[t : t + 1])


@shared
def _norm_gradient(threads, y, slope, factor, shift, dz):
    n = len(y)
    for t in prange(threads):
        i, j = n * t // threads, n * (t + 1) // threads
        blocks.norm_gradient(y[i:j], slope, factor, shift, dz[i:j])


@shared
def _quantize(threads, grad, scale, out):
    n = len(grad)
    for t in prange(threads):
        i, j = n * t // threads, n * (t + 1) // threads
        lookups.quantize(grad[i:j], scale, out[i:j])


@shared
def _unpool(threads, winner, pooled, grad):
    n = len(grad)
    for t in prange(threads):
        i, j = n * t // threads, n * (t + 1) // threads
        lookups.unpool(winner[i:j], pooled[i:j], grad[i:j])


@shared
def _code_inputs(threads, x, codes):
    n = len(x)
    for t in prange(threads):
        i, j = n * t // threads, n * (t + 1) // threads
        lookups.code_inputs(x[i:j], codes[i:j])


@shared
def _lookup_input_gradient(threads, grad, digits, kernel, codes, dx):
    n = len(dx)
    for t in prange(threads):
        i, j = n * t // threads, n * (t + 1) // threads
        lookups.input_gradient(grad[i:j], digits, kernel, codes, dx[i:j])


@shared
def _lookup_weight_gradient(threads, grad, digits, kernel, codes, first, dw):
    n = len(dw)
    for t in prange(threads):
        i, j = n * t // threads, n * (t + 1) // threads
        lookups.weight_gradient(grad, digits, kernel, codes, first + i, dw[i:j])


_SHARED = {
    lookups.quantize: _quantize,
    lookups.unpool: _unpool,
    lookups.code_inputs: _code_inputs,
    lookups.input_gradient: _lookup_input_gradient,
    lookups.weight_gradient: _lookup_weight_gradient,
    blocks.moments: _moments,
    blocks.magnitude: _magnitude,
    blocks.quantize_values: _quantize_values,
    blocks.masked_gradient: _masked_gradient,
    blocks.norm_gradient: _norm_gradient,
    convolution.max_pool: _max_pool,
    convolution.image_conv: _image_conv,
    convolution.image_sums: _image_sums,
    convolution.image_sums_weight_gradient: _image_sums_weight_gradient,
    convolution.image_weight_gradient: _image_weight_gradient,
    convolution.xnor_conv: _xnor_conv,
    convolution.weight_gradient: _weight_gradient,
    convolution.input_gradient: _input_gradient,
}


def count() -> int:
    """How many threads share a batch; ``dw`` needs a first axis of so many."""
    return min(torch.get_num_threads(), config.NUMBA_NUM_THREADS)


def share(threads: int) -> None:
    """Let the next parallel code of numba's use so many threads, and torch as many as before."""
    before = torch.get_num_threads()
    set_num_threads(threads)  # numba's first start of its threads sets OpenMP's number, which is torch's too
    if torch.get_num_threads() != before:
        torch.set_num_threads(before)


def run(kernel: object, *arguments: torch.Tensor | np.ndarray | int) -> None:
    """Call a kernel of training on tensors, arrays and numbers, in all threads."""
    arrays = [a.detach().numpy() if isinstance(a, torch.Tensor) else a for a in arguments]
    threads = count()
    if threads == 1:
        kernel(*arrays)
    else:
        share(threads)
        _SHARED[kernel](threads, *arrays)
