"""Trainings of a float network that a run needs before its own: as a start (``pretrain_epochs``) or as a teacher."""

from pathlib import Path

from bnnlib.specs import RunSpec, TrainSpec


def float_run(run: RunSpec, protocol: TrainSpec) -> RunSpec:
    """The same layers in float with ReLU, with the seed of ``run``."""
    model = run.model.but(
        weights="f" * len(run.model.weights), acts="f" * len(run.model.acts), estimator="clip", weight_scale="none",
        act_planes="sign", balance=False,
    )  # fmt: skip
    return RunSpec(model, protocol, run.seed, run.study, f"{run.name} (float)")


def start_path(checkpoint: Path) -> Path:
    """The checkpoint of the start of the run that ``checkpoint`` belongs to; it goes when the run has its own."""
    return checkpoint.with_suffix(".float.pt")


def teacher_path(checkpoint: Path, run: RunSpec) -> Path:
    """The checkpoint of its teacher; it stays, for all runs of the same seed and layers learn from the same one."""
    return checkpoint.with_name(f"teacher-{float_run(run, run.train.teacher).hash}.pt")
