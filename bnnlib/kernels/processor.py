"""What the processor at hand can do, or the one that ``NUMBA_CPU_NAME`` and ``NUMBA_CPU_FEATURES`` say it is."""

from functools import cache

from llvmlite import binding
from numba import config


@cache
def _features() -> frozenset[str]:
    """Names of LLVM's target features."""
    if config.CPU_NAME is not None and config.CPU_NAME != "host":
        stated = (config.CPU_FEATURES or "").split(",")
        return frozenset(feature[1:] for feature in stated if feature.startswith("+"))
    return frozenset(name for name, present in binding.get_host_cpu_features().items() if present)


def counts_bits_in_vectors() -> bool:
    """AVX-512 VPOPCNTDQ."""
    return "avx512vpopcntdq" in _features()


def multiplies_bytes() -> bool:
    """AVX-512 VNNI's VPDPBUSD: four products of an unsigned and a signed byte, added to a sum."""
    return {"avx512f", "avx512vnni"} <= _features()


def looks_up_in_vectors() -> bool:
    """AVX2's VPSHUFB."""
    return "avx2" in _features()


def widest_lookup() -> int:
    """Bytes that VPSHUFB looks up at once: 64 with AVX-512 BW, 32 with AVX2."""
    return 64 if "avx512bw" in _features() else 32


def counting() -> str:
    """The faster layout (``layouts.layout``) for binary and ternary products here."""
    return "table" if looks_up_in_vectors() and not counts_bits_in_vectors() else "word"
