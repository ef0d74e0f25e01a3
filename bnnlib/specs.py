"""Specs: frozen descriptions of a network, a training and a run, checked when they are made.

An operand code is one letter: ``b`` binary, ``t`` ternary, a digit K for K-bit two's complement fixed point
(2..9, or ``h`` for 16), ``f`` float. A network has one weight code per layer and one activation code per hidden layer.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from typing import ClassVar

from bnnlib.errors import UserError
from bnnlib.operands import OPERANDS

LAYERS = {"lenet5": 4, "vggnet7": 9}
ESTIMATORS = ["identity", "clip", "bireal", "swish", "ede", "reste"]  # and those of ``bnnlib.register_estimator``
PLANES = ("sign", "xnor", "horq", "dorefa1", "dorefa2")


def _one_of(what: str, value: object, allowed: tuple) -> None:
    if value not in allowed:
        raise UserError(f"{what} {value!r} is unknown; use one of {', '.join(map(repr, allowed))}")


def _number(what: str, value: object, low: float, kind: type | tuple = (int, float)) -> None:
    if isinstance(value, bool) or not isinstance(value, kind) or not value >= low or value == float("inf"):
        raise UserError(f"{what} {value!r} is not possible; use a number of at least {low}")


def _booleans(spec: object, *names: str) -> None:
    for name in names:
        if not isinstance(getattr(spec, name), bool):
            raise UserError(f"{name} {getattr(spec, name)!r} is unknown; use True or False")


def _codes(what: str, codes: str, length: int, arch: str) -> None:
    if not isinstance(codes, str):
        raise UserError(f"{what} {codes!r} is not a text of codes; use for example {'b' * length!r}")
    for code in codes:
        if code not in OPERANDS:
            raise UserError(f"{what} {codes!r} has the unknown code {code!r}; use {', '.join(OPERANDS)}")
    if len(codes) != length:
        raise UserError(f"{what} {codes!r} has {len(codes)} codes; {arch} needs {length}")


class Spec:
    """What the specs share: a plain dictionary, a hash of it, and the way back.

    Attributes:
        LATER: fields that came after the first results; at the value that all had before they are left out, so that a
            spec keeps its hash, and a result its spec, when a field is added.
        BEFORE: what that value is, where it is not the default.
    """

    LATER: ClassVar[tuple[str, ...]] = ()
    BEFORE: ClassVar[dict[str, object]] = {}

    def as_dict(self) -> dict:
        """The spec as JSON-ready nested dictionaries."""
        before = {f.name: f.default for f in dataclasses.fields(self) if f.name in self.LATER} | self.BEFORE
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        plain = {key: value.as_dict() if isinstance(value, Spec) else value for key, value in values.items()}
        plain = json.loads(json.dumps(plain))
        return {key: value for key, value in plain.items() if key not in before or value != before[key]}

    @property
    def hash(self) -> str:
        """First 12 hexadecimal digits of the SHA-256 of the canonical JSON."""
        text = json.dumps(self.as_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def but(self, **changes: object) -> "Spec":
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)


@dataclass(frozen=True)
class ModelSpec(Spec):
    """A network: architecture, operands of every layer, and how it is put together.

    Args:
        arch: ``lenet5`` (4 weight layers, 1 x 28 x 28 images) or ``vggnet7`` (9 weight layers, 3 x 32 x 32 images).
        weights: one operand code per layer, for example ``tbbb`` for the paper's L1T on LeNet5.
        acts: one operand code a hidden activation (one fewer than layers); ``f`` is ReLU.
        width: factor on the channels of the convolutions, a multiple of 1/8; the fully connected widths stay.
        order: ``CPBA`` (convolution, pool, batch norm, activation) or ``CBAP``.
        estimator: gradient stand-in of the activations: ``identity``, ``clip`` (BNN), ``bireal``, ``swish`` (BNN+), or
            one that is annealed over the training: ``ede`` (IR-Net), ``reste``.
        swish_beta: steepness of the ``swish`` estimator.
        image: operand of the image: ``8`` (as it is) or ``b`` (binarized at mid-grey).
        norm: batch norm after every layer.
        last_norm: batch norm (without affine) over the logits; XNOR-Net style is False.
        extra_norm: a further batch norm directly after the first convolution (XNOR-Net style).
        conv_relu: ReLU on the outputs of the convolutions (XNOR-Net style).
        bias: biases in all layers.
        ternary_acts: threshold of ternary activations: ``running`` (fixed in eval mode) or ``batch`` (as released: a
            prediction then depends on its batch).
        weight_scale: real factor of binary and ternary weights: ``none``, ``filter`` (mean |w| of each output:
            XNOR-Net) or ``layer`` (mean |w| of all: DoReFa). Batch norm takes it in at inference.
        act_planes: what a binary activation hands to the next layer: its ``sign``; the sign times the mean magnitude of
            its patch (``xnor``); two signs, of the input and of what the first leaves over, each times a scale
            (``horq``); an unsigned number of one or two bits (``dorefa1``, ``dorefa2``). See ``bnnlib/nn/planes.py``.
        balance: binary and ternary weights are those of latent weights with mean 0 and deviation 1 (IR-Net).
        ternary_threshold: of what ternary activations take their threshold: ``estimator``, of the input as the
            function of the estimator bounds it (as released), or ``input``, of the input as it is (TBN). It has no
            meaning, and is ``estimator``, in a network without any. See ``bnnlib/nn/thresholds.py``.
    """

    LATER = ("weight_scale", "act_planes", "balance", "ternary_threshold")
    BEFORE: ClassVar[dict[str, object]] = {"ternary_threshold": "input"}

    arch: str
    weights: str
    acts: str
    width: float = 1
    order: str = "CPBA"
    estimator: str = "clip"
    swish_beta: float = 10.0
    image: str = "8"
    norm: bool = True
    last_norm: bool = True
    extra_norm: bool = False
    conv_relu: bool = False
    bias: bool = False
    ternary_acts: str = "running"
    weight_scale: str = "none"
    act_planes: str = "sign"
    balance: bool = False
    ternary_threshold: str = "estimator"

    def as_dict(self) -> dict:
        """The spec as JSON-ready dictionary, without the threshold of ternary activations where there are none."""
        plain = super().as_dict()
        if "t" not in self.acts:
            del plain["ternary_threshold"]
        return plain

    @classmethod
    def from_dict(cls, plain: dict) -> "ModelSpec":
        """The spec that ``as_dict`` gave, today or before some of its fields were added.

        Raises:
            TypeError: a field is unknown or missing.
            UserError: a value is not possible.
        """
        return cls(**(cls.BEFORE | plain))

    def __post_init__(self) -> None:
        _one_of("arch", self.arch, tuple(LAYERS))
        _codes("weights", self.weights, LAYERS[self.arch], self.arch)
        _codes("acts", self.acts, LAYERS[self.arch] - 1, self.arch)
        _number("width", self.width, 1 / 8)
        if self.width % (1 / 8):
            raise UserError(f"width {self.width!r} is not possible; use a multiple of 1/8, such as 0.25 or 2")
        _one_of("order", self.order, ("CPBA", "CBAP"))
        _one_of("estimator", self.estimator, tuple(ESTIMATORS))
        _number("swish_beta", self.swish_beta, 1e-6)
        _one_of("image", self.image, ("8", "b"))
        _one_of("ternary_acts", self.ternary_acts, ("running", "batch"))
        _one_of("ternary_threshold", self.ternary_threshold, ("estimator", "input"))
        if "t" not in self.acts:
            object.__setattr__(self, "ternary_threshold", "estimator")  # it says nothing: equal networks are equal
        _one_of("weight_scale", self.weight_scale, ("none", "filter", "layer"))
        _one_of("act_planes", self.act_planes, PLANES)
        _booleans(self, "norm", "last_norm", "extra_norm", "conv_relu", "bias", "balance")
        if self.balance and self.weight_scale != "none":
            raise UserError(f"balance=True leaves no scale to weight_scale={self.weight_scale!r}; use one of the two")
        if self.extra_norm and not self.norm:
            raise UserError("extra_norm=True needs norm=True; a network without batch norm has none to repeat")
        if self.act_planes != "sign" and "b" not in self.acts:
            raise UserError(f"act_planes {self.act_planes!r} needs a binary activation; acts {self.acts!r} has none")
        if self.act_planes != "sign" and self.order != "CPBA":
            raise UserError(f"act_planes {self.act_planes!r} needs order='CPBA': CBAP pools the activations")
        object.__setattr__(self, "swish_beta", float(self.swish_beta))  # 10 and 10.0 are one spec, with one hash
        if self.width == int(self.width):
            object.__setattr__(self, "width", int(self.width))


@dataclass(frozen=True)
class TrainSpec(Spec):
    """A training protocol.

    Args:
        dataset: ``mnist``, ``fashion-mnist``, ``cifar10``, ``svhn`` or ``digits``; ``own`` for ``bnnlib.fit``.
        epochs: passes over the training images.
        batch: images a step; a last smaller batch is dropped.
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
        average: decay of a moving average of the latent weights a step, which is what is validated and kept, with batch
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
        _one_of("dataset", self.dataset, (*DATASETS, OWN))
        _number("epochs", self.epochs, 1, int)
        _number("batch", self.batch, 2, int)
        _one_of("optimizer", self.optimizer, ("sgd", "adam", "adamw", "bop"))
        _one_of("schedule", self.schedule, ("step", "cosine", "linear"))
        _one_of("loss", self.loss, ("squared_hinge", "cross_entropy"))
        _one_of("augment", self.augment, ("none", "crop", "flip-crop", "alt-flip-crop", "affine"))
        _one_of("stages", self.stages, tuple(STAGES))
        if self.epochs < STAGES[self.stages]:
            raise UserError(
                f"epochs {self.epochs} leave none to the last of the stages; use {STAGES[self.stages]} or more"
            )
        for name in ("lr", "momentum", "gamma", "warmup", "weight_decay", "bipolar", "bop_threshold", "norm_bias_rate"):
            _number(name, getattr(self, name), 0)
            object.__setattr__(self, name, float(getattr(self, name)))
        for name in ("label_smoothing", "distill", "average", "bop_gamma"):
            _number(name, getattr(self, name), 0)
            if getattr(self, name) > 1 or (getattr(self, name) == 1 and name == "average"):
                raise UserError(f"{name} {getattr(self, name)!r} is not possible; use a share, such as 0.1")
            object.__setattr__(self, name, float(getattr(self, name)))
        _number("logit_scale", self.logit_scale, 1e-3)
        object.__setattr__(self, "logit_scale", float(self.logit_scale))
        _number("cutout", self.cutout, 0, int)
        _one_of("gradient_bits", self.gradient_bits, (0, 4, 5, 6, 7, 8))
        if self.norm_bias_rate != 1 and self.optimizer == "bop":
            raise UserError(f"norm_bias_rate {self.norm_bias_rate!r} is not for 'bop'; use sgd, adam or adamw")
        self._check_teacher()
        _number("pad", self.pad, 0, int)
        _number("pretrain_epochs", self.pretrain_epochs, 0, int)
        for name in ("schedule_epochs", "train_images"):
            if getattr(self, name) is not None:
                _number(name, getattr(self, name), 1, int)
        if self.schedule_epochs is not None and self.schedule_epochs < max(self.epochs, self.warmup):
            raise UserError(
                f"schedule_epochs {self.schedule_epochs} is too short; use at least the epochs, {self.epochs}"
            )
        if self.schedule != "step" and self.warmup >= (self.schedule_epochs or self.epochs):
            raise UserError(
                f"warmup {self.warmup} leaves no epoch for the {self.schedule} schedule; use fewer than {self.epochs}"
            )
        if self.pretrain_epochs:
            self.pretraining()  # refuses what it cannot be
        object.__setattr__(self, "milestones", tuple(self.milestones))
        for milestone in self.milestones:
            _number("milestones", milestone, 0, int)
        _booleans(self, "clip_latent")

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


STAGES = {"none": 1, "acts-first": 2, "bits": 4}  # and how many epochs it takes until every stage has one
DATASETS = ("mnist", "fashion-mnist", "cifar10", "svhn", "digits")
OWN = "own"  # images that a caller hands over


@dataclass(frozen=True)
class RunSpec(Spec):
    """One network, one protocol, one seed. Study and name say where its result lives and are not part of the hash."""

    model: ModelSpec
    train: TrainSpec
    seed: int
    study: str = field(default="scratch", compare=False)
    name: str = field(default="run", compare=False)

    def __post_init__(self) -> None:
        _number("seed", self.seed, 0, int)

    @property
    def network(self) -> str:
        """``L1T`` of ``L1T-short``."""
        return self.name.rpartition("-")[0]

    @property
    def protocol(self) -> str:
        """``short`` of ``L1T-short``."""
        return self.name.rpartition("-")[2]

    def as_dict(self) -> dict:
        return {"model": self.model.as_dict(), "train": self.train.as_dict(), "seed": self.seed}
