"""How the kernels of packed networks are compiled."""

from pathlib import Path

from numba import config, njit

from bnnlib.simd import drop_stale_code

drop_stale_code(Path(__file__).parent, ("codes", "coding", "compiled", "forms", "kernels", "simd"))
config.THREADING_LAYER_PRIORITY = ["omp", "tbb", "workqueue"]  # as torch's threads: others would wait busily for them
compiled = njit(error_model="numpy", cache=True)
inlined = njit(error_model="numpy", forceinline=True)
shared = njit(error_model="numpy", cache=True, parallel=True)
