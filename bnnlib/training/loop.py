"""One training loop for every network.

Best epoch by validation accuracy (the first of equals), then one evaluation on the test images. After every epoch a
checkpoint is written from which the CPU goes on bit for bit: latent weights, optimizer, generators, history.
"""

import io
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from bnnlib import data as datasets
from bnnlib.errors import UserError
from bnnlib.files import write_atomic
from bnnlib.nn.layers import layers_with, set_gradient_bits
from bnnlib.nn.models import build
from bnnlib.specs import ARCHS, RunSpec, TrainSpec
from bnnlib.training import stages
from bnnlib.training.augment import batches
from bnnlib.training.averaging import Average
from bnnlib.training.checkpoints import load_checkpoint
from bnnlib.training.evaluation import classify, evaluate
from bnnlib.training.execution import Execution
from bnnlib.training.flips import percent_changed, quantized_weights
from bnnlib.training.objective import bipolar_penalty, learning_rate, make_optimizer, set_rate, training_loss
from bnnlib.training.pretraining import float_run, start_path, teacher_path


@dataclass
class Outcome:
    """What a finished training leaves behind.

    Attributes:
        history: one row per epoch: ``epoch``, ``train_loss``, ``train_accuracy``, ``val_loss``, ``val_accuracy``
            (accuracies in percent; the training ones are of the augmented batches, as the weights move), and
            ``weights_changed``, the share of binary and ternary weights that it gave another value, in percent, if
            there are any.
        best_epoch: the epoch, counted from 1, whose weights ``model`` holds.
        test_accuracy: in percent, of ``model``.
        seconds: wall time of the epochs, over all interruptions.
        data_checksum: SHA-256 of the images, labels and split.
        model: in eval mode.
        execution: how the last part of it was executed.
        predictions: what ``model`` takes the ``val`` and the ``test`` images for, int64 [N] each, on the CPU.
    """

    history: list[dict]
    best_epoch: int
    test_accuracy: float
    seconds: float
    data_checksum: str
    model: nn.Module
    execution: Execution
    predictions: dict[str, Tensor]


class Training:
    """The state of a run between epochs, and how it is saved and restored."""

    def __init__(
        self,
        run: RunSpec,
        execution: Execution | None = None,
        data: datasets.Data | None = None,
        model: nn.Module | None = None,
    ) -> None:
        self.run = run
        self.execution = execution = execution or Execution.choose()
        self.device = torch.device(execution.device)
        data = data or datasets.load(run.train.dataset, ARCHS[run.model.arch].image)
        self.data_checksum = data.checksum
        self.data = data.to(self.device)
        if run.train.train_images is not None:
            wanted = run.train.train_images
            if wanted > len(data.train_x):
                raise UserError(f"train_images {wanted} is too many; {run.train.dataset} has {len(data.train_x)}")
            self.data = datasets.Data(
                self.data.train_x[:wanted], self.data.train_y[:wanted], self.data.val_x, self.data.val_y,
                self.data.test_x, self.data.test_y,
            )  # fmt: skip
        self.steps = len(self.data.train_x) // run.train.batch
        if not self.steps:
            raise UserError(f"batch {run.train.batch} is too large; there are {len(self.data.train_x)} training images")
        with torch.random.fork_rng():
            torch.manual_seed(run.seed)
            self.model = (model or build(run.model)).to(self.device)
        set_gradient_bits(self.model, run.train.gradient_bits)
        if execution.channels_last:
            self.model.to(memory_format=torch.channels_last)
        self.optimizer = make_optimizer(run.train, self.model, graph=execution.graph)
        self.forward, self.step = execution.forward(self.model), execution.step(self._step)
        self.average = Average(self.model, run.train.average) if run.train.average else None
        self.teach: Callable[[Tensor], Tensor] | None = None
        self.loss_sum = torch.zeros((), device=self.device)
        self.hits = torch.zeros((), device=self.device, dtype=torch.long)
        self.generator = torch.Generator().manual_seed(run.seed)
        self.clipped = [layer.weight for layer in layers_with(self.model, "binary", "ternary")]
        self.history: list[dict] = []
        self.best_epoch, self.best_state, self.seconds = 0, {}, 0.0

    def _step(self, x: Tensor, y: Tensor) -> None:
        """One step on a batch; loss and hits are summed on the device, for which nobody waits."""
        spec = self.run.train
        logits = self.forward(x)
        with torch.no_grad():
            teacher = None if self.teach is None else self.teach(x)
        loss = training_loss(spec, logits, y, teacher)
        objective = loss + spec.bipolar * bipolar_penalty(self.model) if spec.bipolar else loss
        self.optimizer.zero_grad(set_to_none=True)
        objective.backward()
        self.optimizer.step()
        with torch.no_grad():
            if spec.clip_latent:
                for w in self.clipped:
                    w.clamp_(-1, 1)
            if self.average:
                self.average.update(self.model)
            self.loss_sum += loss
            self.hits += (logits.argmax(1) == y).sum()

    @torch.no_grad()
    def start_from(self, first: Outcome) -> None:
        """Take the weights and batch norms of an earlier training of the same layers; its time counts."""
        own = self.model.state_dict()
        self.model.load_state_dict({k: v for k, v in first.model.state_dict().items() if k in own}, strict=False)
        if self.run.train.clip_latent:
            for w in self.clipped:
                w.clamp_(-1, 1)
        self.seconds += first.seconds

    def learn_from(self, teacher: nn.Sequential) -> None:
        """Let a trained network give its outputs as targets."""
        self.teach = self.execution.forward(teacher.to(self.device).eval())

    def epoch(self, bar: tqdm) -> None:
        """Train one epoch, validate, and keep the weights if they are the best so far."""
        spec, started = self.run.train, time.monotonic()
        self.model.train()
        self.loss_sum.zero_()
        self.hits.zero_()
        epoch, images = len(self.history), self.data.train_x
        before = quantized_weights(self.model)
        if self.execution.graph:  # a record knows the stage that it was made in
            self.step = self.execution.step(self._step)
        drawn = batches(images, self.data.train_y, spec, self.generator, epoch, self.run.seed)
        with stages.of_epoch(self.model, spec, epoch):
            for step, (x, y) in enumerate(drawn, epoch * self.steps):
                set_rate(self.optimizer, learning_rate(spec, step, self.steps))
                try:
                    self.step(x, y)
                except ValueError as error:  # a quantizer met a NaN
                    raise UserError(f"{self.run.name}: {error}; try a lower lr than {spec.lr}") from error
                bar.update()
        row = {"epoch": len(self.history) + 1, "train_loss": self.loss_sum.item() / self.steps}
        if not math.isfinite(row["train_loss"]):
            raise UserError(
                f"{self.run.name}: the loss is not finite in epoch {row['epoch']}; try a lower lr than {spec.lr}"
            )
        row["train_accuracy"] = 100 * self.hits.item() / (self.steps * spec.batch)
        if before:
            row["weights_changed"] = percent_changed(before, quantized_weights(self.model))
        with self.average.in_place(self.model, self.forward, images) if self.average else nullcontext():
            row["val_loss"], row["val_accuracy"] = evaluate(
                self.model, self.data.val_x, self.data.val_y, spec.loss, self.execution
            )
            self.history.append(row)
            if row["val_accuracy"] > max((r["val_accuracy"] for r in self.history[:-1]), default=-1.0):
                self.best_epoch = row["epoch"]
                self.best_state = {k: v.detach().cpu().clone() for k, v in self.model.state_dict().items()}
        self.seconds += time.monotonic() - started
        bar.set_postfix_str(f"val {row['val_accuracy']:.2f} %")

    def save(self, path: Path) -> None:
        """Write the checkpoint atomically."""
        buffer = io.BytesIO()
        state = {
            "spec": self.run.hash, "data": self.data_checksum, "history": self.history, "best_epoch": self.best_epoch,
            "best_state": self.best_state, "seconds": self.seconds, "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(), "generator": self.generator.get_state(),
            "average": self.average.values if self.average else {},
        }  # fmt: skip
        torch.save(state, buffer)
        write_atomic(path, buffer.getvalue())

    def restore(self, path: Path) -> None:
        """Take up the state of a checkpoint.

        Raises:
            UserError: the file is damaged, or belongs to another spec or other data.
        """
        state = load_checkpoint(path, self.run, self.device)
        if state["data"] != self.data_checksum:
            raise UserError(f"checkpoint {path} belongs to other data; delete it to start anew: rm {path}")
        self.model.load_state_dict(state["model"])
        fresh = [{k: g[k] for k in ("lr", "capturable") if k in g} for g in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state["optimizer"])
        for group, wanted in zip(self.optimizer.param_groups, fresh, strict=True):
            group.update(wanted)  # not as the checkpoint's execution had them
        self.generator.set_state(state["generator"].cpu())
        self.history, self.best_epoch, self.seconds = state["history"], state["best_epoch"], state["seconds"]
        self.best_state = {k: v.cpu() for k, v in state["best_state"].items()}
        if self.average:
            self.average.values = state["average"]


def train(
    run: RunSpec,
    *,
    execution: Execution | None = None,
    checkpoint: Path | None = None,
    max_minutes: float | None = None,
    data: datasets.Data | None = None,
    model: nn.Module | None = None,
    bar: tqdm | None = None,
) -> Outcome | None:
    """Train a run to its end, or until the time is up.

    Args:
        run: what to train.
        execution: device and options; None is the default of the best device here.
        checkpoint: file to go on from if it exists, and to write after every epoch; None keeps nothing.
        max_minutes: do not start an epoch that would end later than this, judged by the longest one so far.
        data: the data, if it is in memory already.
        model: what to train in the place of the network of ``run.model`` (see ``fit``).
        bar: takes the steps by ``update(n)`` and the state by ``set_postfix_str(text)``; None is a bar on the terminal.

    Returns:
        The outcome, or None if the time was up first (the checkpoint then holds the rest).
    """
    started, longest = time.monotonic(), 0.0
    state = Training(run, execution, data, model)

    def before(protocol: TrainSpec, path: Path | None) -> Outcome | None:
        left = max_minutes and max_minutes - (time.monotonic() - started) / 60
        first = float_run(run, protocol)
        return train(first, execution=state.execution, checkpoint=path, max_minutes=left, data=data, bar=bar)

    if checkpoint is not None and checkpoint.exists():
        state.restore(checkpoint)
    elif run.train.pretrain_epochs:
        first = before(run.train.pretraining(), checkpoint and start_path(checkpoint))
        if first is None:
            return None
        state.start_from(first)
    if run.train.teacher is not None:
        teacher = before(run.train.teacher, checkpoint and teacher_path(checkpoint, run))
        if teacher is None:
            return None
        state.learn_from(teacher.model)
    total, done = run.train.epochs * state.steps, len(state.history) * state.steps
    if bar is not None:
        bar.total, bar.n = total, done  # for its estimate
    # disable=None: no bar where the output is not a terminal
    own = {"total": total, "initial": done, "desc": f"{run.name} seed {run.seed}", "unit": "step", "disable": None}
    with nullcontext(bar) if bar is not None else tqdm(**own) as shown:
        while len(state.history) < run.train.epochs:
            begun = time.monotonic()
            if max_minutes is not None and begun - started + longest > 60 * max_minutes:
                return None
            state.epoch(shown)
            longest = max(longest, time.monotonic() - begun)
            if checkpoint is not None:
                state.save(checkpoint)
                start_path(checkpoint).unlink(missing_ok=True)
    return _outcome(state)


def _outcome(state: Training) -> Outcome:
    """What a training that is over leaves behind: the test images are looked at once, by its best weights."""
    state.model.load_state_dict(state.best_state)
    parts = {"val": state.data.val_x, "test": state.data.test_x}
    predictions = {part: classify(state.model, x, state.execution) for part, x in parts.items()}
    hits = (predictions["test"] == state.data.test_y.cpu()).sum().item()
    return Outcome(
        state.history, state.best_epoch, 100 * hits / len(state.data.test_y), state.seconds, state.data_checksum,
        state.model, state.execution, predictions,
    )  # fmt: skip
