"""How kernels are compiled, and when compiled code is stale.

numba keeps the code of a function until the function's own file changes. But kernels are inlined into one another,
across files; so here the code is kept until any file of the function's folder changes.
"""

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

from numba import config, njit

config.THREADING_LAYER_PRIORITY = ["omp", "tbb", "workqueue"]  # as torch's threads: others would wait busily for them
inlined = njit(error_model="numpy", forceinline=True)


@cache
def stamp(folder: Path) -> str:
    """What changes whenever the code of a folder does."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def compiled(function: Callable, parallel: bool = False) -> Callable:
    """Compile a function when it is first called, and keep the code on disk."""
    dispatcher = njit(error_model="numpy", cache=True, parallel=parallel)(function)
    dispatcher._cache._cache_file._source_stamp = stamp(Path(function.__code__.co_filename).parent)
    return dispatcher


def shared(function: Callable) -> Callable:
    """The same, with loops over ``prange`` shared between threads."""
    return compiled(function, parallel=True)
