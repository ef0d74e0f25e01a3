"""How a training is executed: options that change the time it takes, and its result by no more than rounding.

They are not part of a spec, for the same run may be made on any machine; a result file says which were used. Defaults
by device, with the measurement behind each in bnnlib/training/README.md, "How fast":

============= ===== ===== =========================================================================================
option        CPU   CUDA  meaning
============= ===== ===== =========================================================================================
kernels       yes   no    this project's own convolutions (``bnnlib.kernels``)
amp           no    yes   bfloat16 autocast in training; evaluation is always float32, in which ±1 sums are exact
channels_last yes   yes   memory layout of the convolutions
compile       no    no    torch.compile
graph         no    yes   a step recorded once as a CUDA graph and replayed
============= ===== ===== =========================================================================================
"""

import ctypes
import platform
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from bnnlib.errors import UserError, counted

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of malloc.h
WARM_UP_STEPS = 3  # before a graph is recorded: libraries set themselves up in their first calls


@dataclass(frozen=True)
class Execution:
    """A device and the options of the table above."""

    device: str
    kernels: bool
    amp: bool
    channels_last: bool
    compile: bool
    graph: bool

    @classmethod
    def choose(cls, device: str | None = None, **options: bool | None) -> "Execution":
        """The defaults of a device, with some options set.

        Args:
            device: a torch device; None is ``cuda`` where there is one, else ``cpu``.
            options: the fields; None is the default.

        Raises:
            UserError: torch does not know the device or does not have it here, or options exclude each other.
        """
        device = check_device(device)
        cuda = torch.device(device).type == "cuda"
        chosen = {key: value for key, value in options.items() if value is not None}
        defaults = {
            "kernels": torch.device(device).type == "cpu" and not (chosen.get("amp") or chosen.get("compile")),
            "amp": cuda, "channels_last": True, "compile": False, "graph": cuda,
        }  # fmt: skip
        made = cls(device, **(defaults | chosen))
        if made.kernels and (cuda or made.amp or made.compile or not made.channels_last):
            raise UserError("kernels are float32 code of their own for the CPU; use them without amp, compile or cuda")
        if made.graph and not cuda:
            raise UserError(f"a graph needs a CUDA device, not {device}; leave it out")
        return made

    @classmethod
    def parse(cls, texts: Iterable[str]) -> dict[str, bool]:
        """Options written ``name=on`` or ``name=off``, as ``choose`` takes them.

        Raises:
            UserError: a name or a value is unknown.
        """
        names, found = [f.name for f in fields(cls) if f.name != "device"], {}
        for text in texts:
            name, _, value = text.partition("=")
            if name not in names or value not in ("on", "off"):
                raise UserError(f"execution option {text!r} is unknown; use on or off for {', '.join(names)}: amp=off")
            found[name] = value == "on"
        return found

    def as_dict(self) -> dict:
        """The options as JSON keeps them."""
        return asdict(self)

    def forward(self, model: nn.Sequential) -> Callable[[Tensor], Tensor]:
        """What computes logits float32 [N, 10] of uint8 images [N, C, H, W] in a training step."""
        if torch.device(self.device).type == "cpu":
            keep_memory()
        if self.kernels:
            from bnnlib.kernels import forward  # numba takes a second to come, and only the CPU needs it

            return partial(forward.forward, model)
        call = torch.compile(model) if self.compile else model
        if not self.amp:
            return call

        def with_autocast(x: Tensor) -> Tensor:
            with torch.autocast(torch.device(self.device).type, torch.bfloat16):
                return call(x).float()

        return with_autocast

    def evaluator(self, model: nn.Sequential) -> Callable[[Tensor], Tensor]:
        """The same in float32, for evaluation."""
        return self.forward(model) if self.kernels else model

    def step(self, function: Callable[[Tensor, Tensor], None]) -> Callable[[Tensor, Tensor], None]:
        """A training step on images and labels, which are of the same shape each time, as it is to be called."""
        return GraphedStep(function) if self.graph else function


class GraphedStep:
    """Runs a step a few times, records it, and replays the record from then on: one launch instead of hundreds.

    Source: "CUDA graphs" in the torch documentation (whole-network capture).
    """

    def __init__(self, function: Callable[[Tensor, Tensor], None]) -> None:
        self.function, self.left, self.graph = function, WARM_UP_STEPS, None

    def __call__(self, x: Tensor, y: Tensor) -> None:
        if self.left:  # a real step each, on a stream of its own as recording wants it
            self.left -= 1
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                self.function(x, y)
            torch.cuda.current_stream().wait_stream(stream)
            return
        if self.graph is None:
            self.x, self.y, self.graph = x.clone(), y.clone(), torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):  # records, does not compute
                self.function(self.x, self.y)
        self.x.copy_(x)
        self.y.copy_(y)
        self.graph.replay()


def keep_memory() -> None:
    """Let the C library keep what is freed, of any size, for the next step of a training.

    It gives arrays over 32 MiB back to the system each time, and every page of the next ones is then filled with zeros
    first: 1.2 of 9.9 ms per image of a step of binary VGGNet7 (two AVX2 cores, batch 100), 3.1 of 6.9
    of the float one in bfloat16 (two AMX cores).
    """
    with suppress(OSError, AttributeError):  # another library than glibc
        library = ctypes.CDLL(None)
        library.mallopt(M_MMAP_MAX, 0)
        library.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def check_device(device: str | None) -> str:
    """The device to use.

    Raises:
        UserError: torch does not know it, or does not have it here.
    """
    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros((), device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device {device!r} cannot be used here; use cpu, or cuda where torch has a GPU") from error
    return device


def device_name(device: str) -> str:
    """What the device calls itself, for example ``cpu: AMD EPYC, 2 threads``."""
    if torch.device(device).type == "cuda":
        return f"cuda: {torch.cuda.get_device_name(device)}"
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    threads = torch.get_num_threads()
    return f"cpu: {model}, {counted(threads, 'thread')}"
