"""How fast training is: ours beside the plain loop and beside the machine's matrix product, in one run.

Machines differ and are shared, so every figure is a median over rounds in which ours, the plain loop and the matrix
product take turns, and the ratio is the median of the ratios of the rounds.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from itertools import cycle, islice

import torch
from torch import Tensor
from tqdm import tqdm

from bnnlib import studies
from bnnlib.bench.plain import PlainTraining
from bnnlib.data import Data
from bnnlib.energy.profiling import profile
from bnnlib.errors import UserError
from bnnlib.specs import ARCHS, RunSpec
from bnnlib.training.augment import batches
from bnnlib.training.execution import Execution, device_name
from bnnlib.training.loop import Training

STUDY_OF = {"lenet5": "lenet-mnist", "vggnet7": "vggnet-cifar10"}
PAPER_BATCH = 50
MATRIX = 2048  # rows and columns of the product that the peak is measured with


def cases() -> list[RunSpec]:
    """Both networks, float and binary: the paper's protocol at batch 50, and this project's own at its own batch.

    And VGGNet7 as ``sitting`` trains it, float, all binary and all ternary.
    """
    found = []
    for study in STUDY_OF.values():
        for network in ("float", "binary"):
            paper, short = (studies.runs(study, network, protocol, 0)[0] for protocol in ("paper", "short"))
            found += [paper.but(train=paper.train.but(batch=PAPER_BATCH)), short]
    return found + sitting_cases()


def sitting_cases() -> list[RunSpec]:
    """VGGNet7 in float, all binary and all ternary, as ``sitting`` trains them."""
    return [studies.runs(STUDY_OF["vggnet7"], network, "sitting", 0)[0] for network in ("float", "binary", "TERN5")]


def machine(execution: Execution) -> str:
    """Device, threads and version, as a table of figures should name them."""
    return f"{device_name(execution.device)}; torch {torch.__version__}"


def training_flops(run: RunSpec) -> float:
    """Floating-point operations of a training step, per image: three products per layer, but two in the first."""
    macs = profile(run.model)["macs"]
    return 2 * (3 * macs.sum() - macs.iloc[0])


def measure(run: RunSpec, execution: Execution, seconds: float, rounds: int) -> dict:
    """One row of the table.

    Args:
        run: what to train, on random images.
        execution: ours; the plain loop uses the same device.
        seconds: for each of the three that take turns, and round.
        rounds: how many.
    """
    images = _random_images(run)
    ours = Training(run, execution, images)
    ours.model.train()
    x, y = ours.data.train_x, ours.data.train_y
    sides = {"ours": _steps(lambda: batches(x, y, run.train, ours.generator), ours.step), "peak": _products(execution)}
    if "t" not in run.model.weights:  # what the plain loop knows
        plain = PlainTraining(run, execution.device)
        sides["plain"] = _steps(lambda: plain.batches(images.train_x, images.train_y), plain.step)
    for side in sides.values():  # compilers and caches
        _count(side, 0.2, execution, least=5)
    speed: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            speed[name].append(_count(side, seconds, execution))
    batch = run.train.batch
    medians = {name: statistics.median(values) for name, values in speed.items()}
    ratio = None
    if "plain" in speed:
        ratio = round(statistics.median(o / p for o, p in zip(speed["ours"], speed["plain"], strict=True)), 2)
    share = training_flops(run) * batch * medians["ours"] / (2 * MATRIX**3 * medians["peak"])
    return {
        "network": run.model.arch,
        "precision": {"f": "float", "b": "binary", "t": "ternary"}[run.model.weights[0]],
        "gradient_bits": run.train.gradient_bits or 32,
        "batch": batch,
        "ours_img_s": round(batch * medians["ours"], 1),
        "plain_img_s": round(batch * medians["plain"], 1) if ratio else None,
        "ratio": ratio,
        "peak_share": round(float(share), 3),
    }


def training(execution: Execution, networks: tuple[str, ...], seconds: float, rounds: int) -> Iterator[dict]:
    """The rows of the table as they come, of the networks named (all if none is).

    Raises:
        UserError: there is nothing to measure.
    """
    check_time(seconds, rounds)
    chosen = [run for run in cases() if not networks or run.model.arch in networks]
    for run in tqdm(chosen, unit="case", disable=None):
        yield measure(run, execution, seconds, rounds)


def check_time(seconds: float, rounds: int) -> None:
    """Refuse what measures nothing.

    Raises:
        UserError: there is no round, or no time in it.
    """
    if rounds < 1 or not seconds > 0:
        raise UserError(f"{rounds} rounds of {seconds} seconds measure nothing; use at least 1, and more than 0")


def _random_images(run: RunSpec) -> Data:
    generator = torch.Generator().manual_seed(0)
    n, shape = 20 * run.train.batch, ARCHS[run.model.arch].image
    x = torch.randint(0, 256, (n, *shape), dtype=torch.uint8, generator=generator)
    y = torch.randint(0, 10, (n,), generator=generator)
    return Data(x, y, x[:1], y[:1], x[:1], y[:1])


def _steps(epoch: Callable[[], Iterator[tuple[Tensor, Tensor]]], step: Callable) -> Iterator[None]:
    """Steps without end, loading included."""
    for make_epoch in cycle([epoch]):
        for batch in make_epoch():
            yield step(*batch)


def _products(execution: Execution) -> Iterator[None]:
    """Matrix products in the number format of the training."""
    kind = torch.bfloat16 if execution.amp else torch.float32
    a = torch.randn(MATRIX, MATRIX, device=execution.device, dtype=kind)
    b = torch.randn(MATRIX, MATRIX, device=execution.device, dtype=kind)
    while True:
        yield torch.mm(a, b)


def _count(steps: Iterator, seconds: float, execution: Execution, least: int = 1) -> float:
    """Steps per second."""
    on_gpu = torch.device(execution.device).type == "cuda"
    started, done = time.perf_counter(), 0
    while done < least or time.perf_counter() - started < seconds:
        for _ in islice(steps, 10 if on_gpu else 1):  # a GPU runs behind: wait for it now and then only
            done += 1
        if on_gpu:
            torch.cuda.synchronize()
    return done / (time.perf_counter() - started)
