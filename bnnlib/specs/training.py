"""A training as a spec: data set, optimizer, schedule, loss, and what is done to images and weights."""

from dataclasses import dataclass

from bnnlib.errors import UserError
from bnnlib.specs.base import Spec, booleans, number, one_of

STAGES = {"none": 1, "acts-first": 2, "bits": 4}  # and how many epochs it takes until every stage has one
DATASETS = ["mnist", "fashion-mnist", "cifar10", "svhn", "digits"]  # and those of ``bnnlib.register_dataset``
OWN = "own"  # images that a caller hands over


@dataclass(frozen=True)
class TrainSpec(Spec):
    """A training protocol.

    Args:
        dataset: one of ``DATASETS``; ``own`` for ``bnnlib.fit``.
        epochs: passes over the training images.
        batch: images per step; a last smaller batch is dropped.
        optimizer: ``sgd``, ``adam``, ``adamw``, or ``bop`` (binary weights have no latent ones and flip; Adam for the
            rest).
        lr: highest learning rate.
        momentum: of ``sgd`` (the Adams keep their betas).
        schedule: ``step`` (times ``gamma`` at each epoch of ``milestones``), ``cosine`` or ``linear`` (both
            to zero at the last step).
        milestones: epochs (counted from 0) before which the rate falls.
        gamma: the factor of ``step``.
        warmup: epochs of linear rise from zero, for all schedules; may be a fraction.
        schedule_epochs: length of cosine and linear fall if it is not ``epochs``.
        weight_decay: L2 on the latent weights (decoupled for ``adamw``).
        bipolar: factor lambda of Tang et al.'s regulariser lambda * sum(1 - w^2) on binary layers.
        loss: ``squared_hinge`` or ``cross_entropy``.
        clip_latent: keep binary and ternary latent weights in [-1, 1].
        augment: ``none``, ``crop`` (shift by up to ``pad`` pixels, edge padding), ``flip-crop``, ``alt-flip-crop``
            (an image is mirrored in every other epoch) or ``affine`` (shift, turn, scale). See
            ``bnnlib/training/augment.py``.
        pad: pixels of the shift.
        train_images: use only so many training images (for quick demonstrations); None is all.
        pretrain_epochs: start from the best weights of the same network in float with ReLU, trained so long by the same
            protocol (the paper's PTRELU); 0 starts from random weights.
        label_smoothing: share of the target that is spread evenly over all classes.
        logit_scale: factor on the logits in the loss. Those of the last batch norm have variance 1, so that without it
            no output can be sure.
        teacher: protocol of a float network of the same layers, whose outputs are then learned too; None: no teacher.
        distill: share of the teacher in the loss.
        average: decay per step of a moving average of the latent weights. The average is validated and kept, with batch
            norms estimated for it; 0 keeps the weights themselves.
        stages: what is quantized when: ``none`` (all, always), ``acts-first`` (weights are real in the first half of
            the epochs) or ``bits`` (they have 8, then 4, then 2 bits in the first three quarters).
        bop_gamma: share of a new gradient in Bop's moving average; follows the schedule of the rate.
        bop_threshold: that average flips a weight beyond it.
        cutout: side of a square of mean brightness that covers a place of each image, in pixels.
        gradient_bits: width of the gradient of the sums in convolutions of binary or ternary weights and inputs, 4 to
            8, or 0 for float32. See ``gradient_quantizer``.
        norm_bias_rate: factor on the rate of the biases of the batch norms, which are the thresholds of signs; not for
            ``bop``.
    """

    LATER = (
        "pretrain_epochs", "label_smoothing", "logit_scale", "teacher", "distill", "average", "stages", "bop_gamma",
        "bop_threshold", "cutout", "gradient_bits", "norm_bias_rate",
    )  # fmt: skip

    dataset: str
    epochs: int
    batch: int = 50
    optimizer: str = "adam"
    lr: float = 1e-3
    momentum: float = 0.9
    schedule: str = "cosine"
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1
    warmup: float = 0.0
    schedule_epochs: int | None = None
    weight_decay: float = 0.0
    bipolar: float = 0.0
    loss: str = "cross_entropy"
    clip_latent: bool = True
    augment: str = "none"
    pad: int = 4
    train_images: int | None = None
    pretrain_epochs: int = 0
    label_smoothing: float = 0.0
    logit_scale: float = 1.0
    teacher: "TrainSpec | None" = None
    distill: float = 0.0
    average: float = 0.0
    stages: str = "none"
    bop_gamma: float = 1e-4
    bop_threshold: float = 1e-8
    cutout: int = 0
    gradient_bits: int = 0
    norm_bias_rate: float = 1.0

    def __post_init__(self) -> None:
        one_of("dataset", self.dataset, (*DATASETS, OWN))
        number("epochs", self.epochs, 1, int)
        number("batch", self.batch, 2, int)
        one_of("optimizer", self.optimizer, ("sgd", "adam", "adamw", "bop"))
        one_of("loss", self.loss, ("squared_hinge", "cross_entropy"))
        one_of("augment", self.augment, ("none", "crop", "flip-crop", "alt-flip-crop", "affine"))
        one_of("stages", self.stages, tuple(STAGES))
        one_of("gradient_bits", self.gradient_bits, (0, 4, 5, 6, 7, 8))
        booleans(self, "clip_latent")
        self._check_numbers()
        self._check_schedule()
        self._check_teacher()
        if self.epochs < STAGES[self.stages]:
            raise UserError(
                f"epochs {self.epochs} leave none to the last of the stages; use {STAGES[self.stages]} or more"
            )
        if self.norm_bias_rate != 1 and self.optimizer == "bop":
            raise UserError(f"norm_bias_rate {self.norm_bias_rate!r} is not for 'bop'; use sgd, adam or adamw")
        if self.pretrain_epochs:
            self.pretraining()  # refuses what it cannot be

    def _check_numbers(self) -> None:
        """Refuse numbers that cannot be; those that may be fractions become floats, so that 1 and 1.0 are equal."""
        for name in ("lr", "momentum", "gamma", "warmup", "weight_decay", "bipolar", "bop_threshold", "norm_bias_rate"):
            number(name, getattr(self, name), 0)
            object.__setattr__(self, name, float(getattr(self, name)))
        for name in ("label_smoothing", "distill", "average", "bop_gamma"):
            number(name, getattr(self, name), 0)
            if getattr(self, name) > 1 or (getattr(self, name) == 1 and name == "average"):
                raise UserError(f"{name} {getattr(self, name)!r} is not possible; use a share, such as 0.1")
            object.__setattr__(self, name, float(getattr(self, name)))
        number("logit_scale", self.logit_scale, 1e-3)
        object.__setattr__(self, "logit_scale", float(self.logit_scale))
        for name in ("cutout", "pad", "pretrain_epochs"):
            number(name, getattr(self, name), 0, int)
        if self.train_images is not None:
            number("train_images", self.train_images, 1, int)

    def _check_schedule(self) -> None:
        one_of("schedule", self.schedule, ("step", "cosine", "linear"))
        object.__setattr__(self, "milestones", tuple(self.milestones))
        for milestone in self.milestones:
            number("milestones", milestone, 0, int)
        if self.schedule_epochs is not None:
            number("schedule_epochs", self.schedule_epochs, 1, int)
            if self.schedule_epochs < max(self.epochs, self.warmup):
                raise UserError(
                    f"schedule_epochs {self.schedule_epochs} is too short; use at least the epochs, {self.epochs}"
                )
        if self.schedule != "step" and self.warmup >= (self.schedule_epochs or self.epochs):
            raise UserError(
                f"warmup {self.warmup} leaves no epoch for the {self.schedule} schedule; use fewer than {self.epochs}"
            )

    def _check_teacher(self) -> None:
        if (self.teacher is None) != (self.distill == 0):
            raise UserError(f"distill {self.distill!r} and teacher {self.teacher!r} need each other; set both, or none")
        if self.teacher is not None:
            if not isinstance(self.teacher, TrainSpec) or self.teacher.teacher is not None:
                raise UserError(
                    f"teacher {self.teacher!r} is no protocol of a float network; use a TrainSpec without one"
                )
            if self.teacher.dataset != self.dataset:
                raise UserError(
                    f"the teacher learns {self.teacher.dataset!r}, its pupil {self.dataset!r}; use the same"
                )
        asked = [n for n in ("label_smoothing", "distill") if getattr(self, n)]
        if self.logit_scale != 1:
            asked.append("logit_scale")
        if asked and self.loss != "cross_entropy":
            raise UserError(f"{asked[0]} is a change of the cross entropy; set loss='cross_entropy', not {self.loss!r}")

    def pretraining(self) -> "TrainSpec":
        """The protocol of the training before this one, for float weights."""
        return self.but(
            epochs=self.pretrain_epochs, pretrain_epochs=0, schedule_epochs=None, bipolar=0, teacher=None, distill=0
        )
