"""A network as a spec: architecture, operands of every layer, and how it is put together.

An operand code is one letter: ``b`` binary, ``t`` ternary, a digit K for K-bit two's complement fixed point
(2..9, or ``h`` for 16), ``f`` float. A network has one weight code per layer and one activation code per hidden layer.
"""

from dataclasses import dataclass
from typing import ClassVar

from bnnlib.errors import UserError
from bnnlib.operands import OPERANDS
from bnnlib.specs.architectures import ARCHS
from bnnlib.specs.base import Spec, booleans, number, one_of

ESTIMATORS = ["identity", "clip", "bireal", "swish", "ede", "reste"]  # and those of ``bnnlib.register_estimator``
PLANES = ("sign", "xnor", "horq", "dorefa1", "dorefa2")


@dataclass(frozen=True)
class ModelSpec(Spec):
    """A network: architecture, operands of every layer, and how it is put together.

    Args:
        arch: ``lenet5`` (4 weight layers, 1 x 28 x 28 images) or ``vggnet7`` (9 weight layers, 3 x 32 x 32 images).
        weights: one operand code per layer, for example ``tbbb`` for the paper's L1T on LeNet5.
        acts: one operand code per hidden activation (one fewer than layers); ``f`` is ReLU.
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
        one_of("arch", self.arch, tuple(ARCHS))
        layers = len(ARCHS[self.arch].layers)
        _codes("weights", self.weights, layers, self.arch)
        _codes("acts", self.acts, layers - 1, self.arch)
        number("width", self.width, 1 / 8)
        if self.width % (1 / 8):
            raise UserError(f"width {self.width!r} is not possible; use a multiple of 1/8, such as 0.25 or 2")
        one_of("order", self.order, ("CPBA", "CBAP"))
        one_of("estimator", self.estimator, tuple(ESTIMATORS))
        number("swish_beta", self.swish_beta, 1e-6)
        one_of("image", self.image, ("8", "b"))
        one_of("ternary_acts", self.ternary_acts, ("running", "batch"))
        one_of("ternary_threshold", self.ternary_threshold, ("estimator", "input"))
        if "t" not in self.acts:
            object.__setattr__(self, "ternary_threshold", "estimator")  # it says nothing: equal networks are equal
        one_of("weight_scale", self.weight_scale, ("none", "filter", "layer"))
        one_of("act_planes", self.act_planes, PLANES)
        booleans(self, "norm", "last_norm", "extra_norm", "conv_relu", "bias", "balance")
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


def _codes(what: str, codes: str, length: int, arch: str) -> None:
    if not isinstance(codes, str):
        raise UserError(f"{what} {codes!r} is not a text of codes; use for example {'b' * length!r}")
    for code in codes:
        if code not in OPERANDS:
            raise UserError(f"{what} {codes!r} has the unknown code {code!r}; use {', '.join(OPERANDS)}")
    if len(codes) != length:
        raise UserError(f"{what} {codes!r} has {len(codes)} codes; {arch} needs {length}")
