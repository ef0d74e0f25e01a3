"""Specs: frozen descriptions of a network, a training and a run, checked when they are made.

An operand code is one letter: ``b`` binary, ``t`` ternary, a digit K for K-bit two's complement fixed point
(2..9, or ``h`` for 16), ``f`` float. A network has one weight code a layer and one activation code a hidden layer.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from typing import ClassVar

from bnnlib.errors import UserError

LAYERS = {"lenet5": 4, "vggnet7": 9}
OPERANDS = {"b": "binary", "t": "ternary", "f": "float", "h": "fixed16"} | {str(k): f"fixed{k}" for k in range(2, 10)}
ESTIMATORS = ("identity", "clip", "bireal", "swish")
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
        LATER: fields that came after the first results; at their defaults they are left out, so that a spec keeps its
            hash, and a result its spec, when a field is added.
    """

    LATER: ClassVar[tuple[str, ...]] = ()

    def as_dict(self) -> dict:
        """The spec as JSON-ready nested dictionaries."""
        defaults = {f.name: f.default for f in dataclasses.fields(self) if f.name in self.LATER}
        plain = json.loads(json.dumps(dataclasses.asdict(self)))
        return {key: value for key, value in plain.items() if key not in defaults or value != defaults[key]}

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
        weights: one operand code a layer, for example ``tbbb`` for the paper's L1T on LeNet5.
        acts: one operand code a hidden activation (one fewer than layers); ``f`` is ReLU.
        width: factor on the channels of the convolutions, a multiple of 1/8; the fully connected widths stay.
        order: ``CPBA`` (convolution, pool, batch norm, activation) or ``CBAP``.
        estimator: gradient stand-in of the activations: ``identity``, ``clip`` (BNN), ``bireal`` or ``swish`` (BNN+).
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
            (``horq``); an unsigned number of one or two bits (``dorefa1``, ``dorefa2``). See ``bnnlib/planes.py``.
    """

    LATER = ("weight_scale", "act_planes")

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

    def __post_init__(self) -> None:
        _one_of("arch", self.arch, tuple(LAYERS))
        _codes("weights", self.weights, LAYERS[self.arch], self.arch)
        _codes("acts", self.acts, LAYERS[self.arch] - 1, self.arch)
        _number("width", self.width, 1 / 8)
        if self.width % (1 / 8):
            raise UserError(f"width {self.width!r} is not possible; use a multiple of 1/8, such as 0.25 or 2")
        _one_of("order", self.order, ("CPBA", "CBAP"))
        _one_of("estimator", self.estimator, ESTIMATORS)
        _number("swish_beta", self.swish_beta, 1e-6)
        _one_of("image", self.image, ("8", "b"))
        _one_of("ternary_acts", self.ternary_acts, ("running", "batch"))
        _one_of("weight_scale", self.weight_scale, ("none", "filter", "layer"))
        _one_of("act_planes", self.act_planes, PLANES)
        _booleans(self, "norm", "last_norm", "extra_norm", "conv_relu", "bias")
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
        optimizer: ``sgd``, ``adam`` or ``adamw``.
        lr: highest learning rate.
        momentum: of ``sgd`` (the Adams keep their betas).
        schedule: ``step`` (times ``gamma`` at each epoch of ``milestones``) or ``cosine`` (to zero at the last step).
        milestones: epochs (counted from 0) before which the rate falls.
        gamma: the factor of ``step``.
        warmup: epochs of linear rise from zero, for both schedules; may be a fraction.
        schedule_epochs: length of the cosine if it is not ``epochs``.
        weight_decay: L2 on the latent weights (decoupled for ``adamw``).
        bipolar: factor lambda of Tang et al.'s regulariser lambda * sum(1 - w^2) on binary layers.
        loss: ``squared_hinge`` or ``cross_entropy``.
        clip_latent: keep binary and ternary latent weights in [-1, 1].
        augment: ``none``, ``crop`` (shift by up to ``pad`` pixels, edge padding) or ``flip-crop``.
        pad: pixels of the shift.
        train_images: use only so many training images (for quick demonstrations); None is all.
        pretrain_epochs: start from the best weights of the same network in float with ReLU, trained so long by the same
            protocol (the paper's PTRELU); 0 starts from random weights.
    """

    LATER = ("pretrain_epochs",)

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

    def __post_init__(self) -> None:
        _one_of("dataset", self.dataset, (*DATASETS, OWN))
        _number("epochs", self.epochs, 1, int)
        _number("batch", self.batch, 2, int)
        _one_of("optimizer", self.optimizer, ("sgd", "adam", "adamw"))
        _one_of("schedule", self.schedule, ("step", "cosine"))
        _one_of("loss", self.loss, ("squared_hinge", "cross_entropy"))
        _one_of("augment", self.augment, ("none", "crop", "flip-crop"))
        for name in ("lr", "momentum", "gamma", "warmup", "weight_decay", "bipolar"):
            _number(name, getattr(self, name), 0)
            object.__setattr__(self, name, float(getattr(self, name)))
        _number("pad", self.pad, 0, int)
        _number("pretrain_epochs", self.pretrain_epochs, 0, int)
        for name in ("schedule_epochs", "train_images"):
            if getattr(self, name) is not None:
                _number(name, getattr(self, name), 1, int)
        if self.schedule_epochs is not None and self.schedule_epochs < max(self.epochs, self.warmup):
            raise UserError(
                f"schedule_epochs {self.schedule_epochs} is too short; use at least the epochs, {self.epochs}"
            )
        if self.schedule == "cosine" and self.warmup >= (self.schedule_epochs or self.epochs):
            raise UserError(f"warmup {self.warmup} leaves no epoch for the cosine; use fewer than {self.epochs}")
        if self.pretrain_epochs:
            self.pretraining()  # refuses what it cannot be
        object.__setattr__(self, "milestones", tuple(self.milestones))
        for milestone in self.milestones:
            _number("milestones", milestone, 0, int)
        _booleans(self, "clip_latent")

    def pretraining(self) -> "TrainSpec":
        """The protocol of the training before this one, for float weights."""
        return self.but(epochs=self.pretrain_epochs, pretrain_epochs=0, schedule_epochs=None, bipolar=0)


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

    def as_dict(self) -> dict:
        return {"model": self.model.as_dict(), "train": self.train.as_dict(), "seed": self.seed}
