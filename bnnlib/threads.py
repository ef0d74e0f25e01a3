"""The kernels of ``kernels`` for a whole batch, its images shared between as many threads as torch uses.

The threads are OpenMP's, as torch's are: threads of another kind would work against torch's, which wait busily. One
thread calls a kernel directly, or OpenMP would wait busily too, for nothing, on the core of a neighbour.
"""

import numpy as np
import torch
from numba import config, njit, prange, set_num_threads

from bnnlib import kernels

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


_SHARED = {
    kernels.max_pool: _max_pool,
    kernels.image_conv: _image_conv,
    kernels.image_weight_gradient: _image_weight_gradient,
    kernels.xnor_conv: _xnor_conv,
    kernels.weight_gradient: _weight_gradient,
    kernels.input_gradient: _input_gradient,
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
    """Call a kernel of ``kernels`` on tensors, arrays and numbers, in all threads."""
    arrays = [a.detach().numpy() if isinstance(a, torch.Tensor) else a for a in arguments]
    threads = count()
    if threads == 1:
        kernel(*arrays)
    else:
        share(threads)
        _SHARED[kernel](threads, *arrays)
