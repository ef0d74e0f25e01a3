"""The kernels of ``kernels`` for a whole batch, its images shared between as many threads as torch uses.

The threads are OpenMP's, as torch's are: threads of another kind would work against torch's, which wait busily. One
thread calls a kernel directly, or OpenMP would wait busily too, for nothing, on the core of a neighbour.
"""

import ctypes
from contextlib import suppress

import numpy as np
import torch
from numba import config, njit, prange, set_num_threads

from bnnlib import block_kernels, kernels, lookup_kernels

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of malloc.h
config.THREADING_LAYER_PRIORITY = ["omp", "tbb", "workqueue"]

shared = njit(error_model="numpy", cache=True, parallel=True)


@shared
def _max_pool(threads, y, pooled, winner):
    n = len(y)
    for t in prange(threads):
        i, j = n * t // threads, n * (t + 1) // threads
        kernels.max_pool(y[i:j], pooled[i:j], winner[i:j])


@shared
def _image_conv(threads, x, w, taps, pooled, winner):
    n = len(x)
    for t in prange(threads):
        i, j = n * t // threads, n * (t + 1) // threads
        kernels.image_conv(x[i:j], w, taps, pooled[i:j], winner[i:j])


@shared
def _image_weight_gradient(threads, winner, grad, x, taps, dw):
    n = len(x)
    for t in prange(threads):
        i, j = n * t // threads, n * (t + 1) // threads
        kernels.image_weight_gradient(winner[i:j], grad[i:j], x[i:j], taps, dw[t : t + 1])


@shared
def _image_sums(threads, x, w, taps, y):
    n = len(x)
    for t in prange(threads):
        i, j = n * t // threads, n * (t + 1) // threads
        kernels.image_sums(x[i:j], w, taps, y[i:j])


@shared
def _image_sums_weight_gradient(threads, grad, x, taps, dw):
    n = len(x)
    for t in prange(threads):
        i, j = n * t // threads, n * (t + 1) // threads
        kernels.image_sums_weight_gradient(grad[i:j], x[i:j], taps, dw[t : t + 1])


@shared
def _xnor_conv(threads, x, words, w, y):
    n = len(x)
    for t in prange(threads):
        i, j = n * t // threads, n * (t + 1) // threads
        kernels.xnor_conv(x[i:j], words[i:j], w, y[i:j])


@shared
def _weight_gradient(threads, winner, grad, x, kernel, dw):
    n = len(x)
    for t in prange(threads):
        i, j = n * t // threads, n * (t + 1) // threads
        kernels.weight_gradient(winner[i:j], grad[i:j], x[i:j], kernel, dw[t : t + 1])


@shared
def _input_gradient(threads, winner, grad, w, dx):
    n = len(dx)
    for t in prange(threads):
        i, j = n * t // threads, n * (t + 1) // threads
        kernels.input_gradient(winner[i:j], grad[i:j], w, dx[i:j])


@shared
def _moments(threads, y, sums):
    n = len(y)
    for t in prange(threads):
        i, j = n * t // threads, n * (t + 1) // threads
        block_kernels.moments(y[i:j], sums[t : t + 1])


@shared
def _magnitude(threads, y, factor, shift, bound, sums):
    n = len(y)
    for t in prange(threads):
        i, j = n * t // threads, n * (t + 1) // threads
        block_kernels.magnitude(y[i:j], factor, shift, bound, sums[t : t + 1])


@shared
def _quantize_values(threads, y, factor, shift, threshold, pad, x):
    n = len(y)
    for t in prange(threads):
        i, j = n * t // threads, n * (t + 1) // threads
        block_kernels.quantize_values(y[i:j], factor, shift, threshold, pad, x[i:j])


@shared
def _masked_gradient(threads, dx, unit, y, factor, shift, bound, pad, mean, scale, dz, sums):
    n = len(y)
    for t in prange(threads):
        i, j = n * t // threads, n * (t + 1) // threads
        block_kernels.masked_gradient(
            dx[i:j], unit, y[i:j], factor, shift, bound, pad, mean, scale, dz[i:j], sums[t : t + 1]
        )


@shared
def _norm_gradient(threads, y, slope, factor, shift, dz):
    n = len(y)
    for t in prange(threads):
        i, j = n * t // threads, n * (t + 1) // threads
        block_kernels.norm_gradient(y[i:j], slope, factor, shift, dz[i:j])


@shared
def _quantize(threads, grad, scale, out):
    n = len(grad)
    for t in prange(threads):
        i, j = n * t // threads, n * (t + 1) // threads
        lookup_kernels.quantize(grad[i:j], scale, out[i:j])


@shared
def _unpool(threads, winner, pooled, grad):
    n = len(grad)
    for t in prange(threads):
        i, j = n * t // threads, n * (t + 1) // threads
        lookup_kernels.unpool(winner[i:j], pooled[i:j], grad[i:j])


@shared
def _code_inputs(threads, x, codes):
    n = len(x)
    for t in prange(threads):
        i, j = n * t // threads, n * (t + 1) // threads
        lookup_kernels.code_inputs(x[i:j], codes[i:j])


@shared
def _lookup_input_gradient(threads, grad, digits, kernel, codes, dx):
    n = len(dx)
    for t in prange(threads):
        i, j = n * t // threads, n * (t + 1) // threads
        lookup_kernels.input_gradient(grad[i:j], digits, kernel, codes, dx[i:j])


@shared
def _lookup_weight_gradient(threads, grad, digits, kernel, codes, first, dw):
    n = len(dw)
    for t in prange(threads):
        i, j = n * t // threads, n * (t + 1) // threads
        lookup_kernels.weight_gradient(grad, digits, kernel, codes, first + i, dw[i:j])


_SHARED = {
    lookup_kernels.quantize: _quantize,
    lookup_kernels.unpool: _unpool,
    lookup_kernels.code_inputs: _code_inputs,
    lookup_kernels.input_gradient: _lookup_input_gradient,
    lookup_kernels.weight_gradient: _lookup_weight_gradient,
    block_kernels.moments: _moments,
    block_kernels.magnitude: _magnitude,
    block_kernels.quantize_values: _quantize_values,
    block_kernels.masked_gradient: _masked_gradient,
    block_kernels.norm_gradient: _norm_gradient,
    kernels.max_pool: _max_pool,
    kernels.image_conv: _image_conv,
    kernels.image_sums: _image_sums,
    kernels.image_sums_weight_gradient: _image_sums_weight_gradient,
    kernels.image_weight_gradient: _image_weight_gradient,
    kernels.xnor_conv: _xnor_conv,
    kernels.weight_gradient: _weight_gradient,
    kernels.input_gradient: _input_gradient,
}


def keep_memory() -> None:
    """Let the C library keep what is freed, of any size, for the next step of a training.

    It gives arrays over 32 MiB back to the system each time, and every page of the next ones is then filled with zeros
    first: 1.2 of 9.9 ms per image of a step of VGGNet7 (two cores, batch 100).
    """
    with suppress(OSError, AttributeError):  # another library than glibc
        library = ctypes.CDLL(None)
        library.mallopt(M_MMAP_MAX, 0)
        library.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


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
    """Call a kernel of ``kernels`` on tensors, arrays and numbers, in all threads."""
    arrays = [a.detach().numpy() if isinstance(a, torch.Tensor) else a for a in arguments]
    threads = count()
    if threads == 1:
        kernel(*arrays)
    else:
        share(threads)
        _SHARED[kernel](threads, *arrays)
