"""Where a result comes from: the commit of the source, and the instructions of the processor that trained it."""

import subprocess
from functools import cache
from pathlib import Path

import torch

SOURCE = Path(__file__).parent
CPUINFO = Path("/proc/cpuinfo")  # of Linux


@cache
def source_commit(folder: Path = SOURCE) -> str | None:
    """The commit that a folder of source is of, ``-dirty`` if it was changed since; None outside of a git checkout.

    It is asked for once, so that a long process says what it began with.
    """

    def git(*arguments: str) -> str:
        command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()

    try:
        if not git("ls-tree", "HEAD", "--", "."):  # an environment inside of another project's checkout
            return None
        dirty = "-dirty" if git("status", "--porcelain", "--", ".") else ""
        return git("rev-parse", "--short=12", "HEAD") + dirty
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):  # no git, no checkout, one of somebody else
        return None


def instructions(device: str) -> str:
    """The widest vector instructions of the CPU, such as ``AVX-512 VNNI``; for a CUDA device, its name.

    They decide how fast a training is, and the order of its sums, so that another processor may round otherwise.
    """
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    capability = torch.backends.cpu.get_cpu_capability()  # of torch's own kernels
    if capability != "AVX512":
        return capability
    vnni = CPUINFO.exists() and "avx512_vnni" in CPUINFO.read_text().split()
    return "AVX-512 VNNI" if vnni else "AVX-512"
