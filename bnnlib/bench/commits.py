"""How fast training is here and in another checkout of this project, side by side.

A process for each side and round trains on random images, in turns, so that a machine that is shared slows both down
alike. What runs in it looks for each part under its old and its new name.
"""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from bnnlib.bench import training
from bnnlib.errors import UserError
from bnnlib.paths import ROOT
from bnnlib.specs import RunSpec

SIDE = """
import json, sys, time
from importlib import import_module
import torch
from bnnlib.data import Data
from bnnlib.specs import ModelSpec, RunSpec, TrainSpec

def get(name, *modules):  # of the first that this version has; the old name first, as an installed bnnlib has the new
    for module in modules:
        try:
            return getattr(import_module(f"bnnlib.{module}"), name)
        except ModuleNotFoundError as error:
            missing = error
    raise missing

batches = get("batches", "augment", "training.augment")
Execution = get("Execution", "execution", "training.execution")
ARCHS = get("ARCHS", "models", "nn.models")
Training = get("Training", "train", "training.loop")

task = json.loads(sys.argv[1])
run = RunSpec(ModelSpec(**task["model"]), TrainSpec(**task["train"]), 0)
shape, batch = ARCHS[run.model.arch].image, run.train.batch
x = torch.randint(0, 256, (4 * batch, *shape), dtype=torch.uint8)
y = torch.randint(0, 10, (4 * batch,))
state = Training(run, Execution.choose("cpu"), Data(x, y, x[:1], y[:1], x[:1], y[:1]))
state.model.train()

def steps():
    while True:
        yield from batches(x, y, run.train, state.generator)

drawn, done = steps(), 0
for _ in range(3):
    state.step(*next(drawn))
started = time.perf_counter()
while done < 3 or time.perf_counter() - started < task["seconds"]:
    state.step(*next(drawn))
    done += 1
print(done * batch / (time.perf_counter() - started))
"""


def against(other: Path, seconds: float, rounds: int) -> Iterator[dict]:
    """Images per second here and there, one row per network; ``ratio`` is the median of the ratios of the rounds.

    A network whose gradient has few bits here has float32 gradients there.

    Raises:
        UserError: there is nothing to measure, or the other folder is no checkout of this project, or cannot train.
    """
    training.check_time(seconds, rounds)
    if not (other / "bnnlib" / "__init__.py").exists():
        raise UserError(f"{other} is no checkout of this project; make one: git worktree add {other} COMMIT")
    for run in tqdm(training.sitting_cases(), unit="case", disable=None):
        ours, theirs = [], []
        plain = run.but(train=run.train.but(gradient_bits=0, norm_bias_rate=1))
        for _ in range(rounds):
            ours.append(_images_per_second(ROOT, run, seconds))
            theirs.append(_images_per_second(other, plain, seconds))
        yield {
            "network": run.model.arch,
            "weights": run.model.weights,
            "acts": run.model.acts,
            "batch": run.train.batch,
            "gradient_bits": run.train.gradient_bits,
            "ours_img_s": round(statistics.median(ours), 1),
            "other_img_s": round(statistics.median(theirs), 1),
            "ratio": round(statistics.median(a / b for a, b in zip(ours, theirs, strict=True)), 2),
        }


def _images_per_second(folder: Path, run: RunSpec, seconds: float) -> float:
    task = {"model": run.model.as_dict(), "train": run.train.as_dict(), "seconds": seconds}
    task["model"].pop("ternary_threshold", None)  # has its default here, and no name in older versions
    ran = subprocess.run(
        [sys.executable, "-c", SIDE, json.dumps(task)],
        capture_output=True, text=True, cwd=folder, env=os.environ | {"PYTHONPATH": str(folder)}, check=False,
    )  # fmt: skip
    if ran.returncode:
        last = (ran.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"{folder} cannot train {run.model.weights}: {last}")
    return float(ran.stdout)
