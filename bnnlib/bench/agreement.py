"""Does fast training end where the plain loop ends? Validation curves of both, the same protocol, several seeds each.

Both start from the same weights but draw their batches in their own order, so a seed is a draw, not a pair. The curves
are kept in one file as they come, so that an interrupted comparison goes on; ``bnn bench agreement`` makes them.
"""

from collections.abc import Callable

import pandas as pd
import torch
from scipy import stats

from bnnlib import data, paths, studies
from bnnlib.bench.plain import PlainTraining
from bnnlib.bench.training import machine
from bnnlib.errors import UserError
from bnnlib.files import read_json, write_json
from bnnlib.specs import ARCHS, RunSpec
from bnnlib.training.execution import Execution
from bnnlib.training.loop import train

FILE = paths.DATA / "benchmarks" / "agreement.json"


def ours(run: RunSpec, images: data.Data) -> list[float]:
    """Validation accuracy in percent after each epoch of the fast path on the CPU."""
    outcome = train(run, execution=Execution.choose("cpu"), data=images)
    return [row["val_accuracy"] for row in outcome.history]


def plain(run: RunSpec, images: data.Data) -> list[float]:
    """The same of the plain loop, whose rate is constant here."""
    loop, curve = PlainTraining(run), []
    for epoch in range(run.train.epochs):
        torch.manual_seed(1000 * run.seed + epoch)  # the transforms draw from the global generator
        for x, y in loop.batches(images.train_x, images.train_y, epoch):
            loop.step(x, y)
        curve.append(loop.accuracy(images.val_x, images.val_y))
    return curve


SIDES = {"ours": ours, "plain": plain}


def measure(seeds: int, epochs: int, say: Callable[[str], None]) -> dict:
    """Make the curves of binary LeNet5 under the paper's protocol that are missing; the file's content.

    Args:
        seeds, epochs: how many of each.
        say: takes a line a curve.

    Raises:
        UserError: MNIST is missing, or the file holds curves of another protocol.
    """
    runs = [studies.runs("lenet-mnist", "binary", "paper", seed)[0] for seed in range(seeds)]
    runs = [run.but(train=run.train.but(epochs=epochs)) for run in runs]
    images = data.load(runs[0].train.dataset, ARCHS[runs[0].model.arch].image)
    kept = read_json(FILE) if FILE.exists() else {}
    spec = {"model": runs[0].model.as_dict(), "train": runs[0].train.as_dict()}
    if kept and kept.get("spec") != spec:
        raise UserError(f"{FILE} holds curves of another protocol; to make them anew: rm {FILE}")
    kept = kept or {"spec": spec, "machine": machine(Execution.choose("cpu")), "curves": {}}
    for run in runs:
        for side, make in SIDES.items():
            if f"{side}-s{run.seed}" not in kept["curves"]:
                kept["curves"][f"{side}-s{run.seed}"] = [round(a, 4) for a in make(run, images)]
                write_json(FILE, kept)
                say(f"{side} seed {run.seed}: {kept['curves'][f'{side}-s{run.seed}'][-1]:.2f} % after {epochs} epochs")
    return kept


def compare(kept: dict) -> pd.DataFrame:
    """A row per epoch, counted from 1: means, standard deviations over the seeds, and Welch's p of no difference."""
    table = {}
    for side in SIDES:
        table[side] = pd.DataFrame({k: v for k, v in kept["curves"].items() if k.startswith(f"{side}-")})
    rows = pd.DataFrame(
        {
            "ours": table["ours"].mean(axis=1), "ours_sd": table["ours"].std(axis=1),
            "plain": table["plain"].mean(axis=1), "plain_sd": table["plain"].std(axis=1),
            "p": stats.ttest_ind(table["ours"], table["plain"], axis=1, equal_var=False).pvalue,
        }
    )  # fmt: skip
    rows.index = pd.RangeIndex(1, len(rows) + 1, name="epoch")
    return rows
