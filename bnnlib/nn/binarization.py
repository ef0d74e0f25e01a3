"""A network of your own: any ``nn.Module`` with its convolutions and fully connected layers quantized in place.

A layer quantizes its input as well as its weights, so that it does not matter what stands between two layers: a
residual sum stays real (Bi-Real Net, arXiv 1808.00278), and each layer that reads it takes its sign.
"""

import copy
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnnlib.errors import UserError
from bnnlib.nn.layers import Image, QuantAct, QuantLayer, eval_mode, weight_scale
from bnnlib.nn.quantizers import estimate, fixed_point, power_of_two_scale
from bnnlib.operands import OPERANDS
from bnnlib.specs import ESTIMATORS

SCALES = ("none", "filter", "layer")


class FixedPointAct(nn.Module):
    """Activation of any shape to K-bit two's complement, of the range that it has: [-s, s), s a power of two.

    s is the smallest power of two that the running maximum of |x| does not exceed (the maximum of the batch while it
    trains enters with weight 0.1, batch norm's momentum): dynamic fixed point (arXiv 1412.7024), as for the weights.
    """

    def __init__(self, operand: str) -> None:
        super().__init__()
        self.operand, self.bits = operand, int(operand.removeprefix("fixed"))
        self.register_buffer("running_max", torch.tensor(0.0))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            largest = x.detach().abs().amax().float()
            self.running_max.copy_(torch.where(self.running_max > 0, self.running_max.lerp(largest, 0.1), largest))
        scale = power_of_two_scale(self.running_max).to(x.dtype)
        unit = x / scale
        return estimate(unit, fixed_point(unit.detach(), self.bits), "clip") * scale

    def extra_repr(self) -> str:
        return self.operand


class _OwnLayer(QuantLayer):
    """What ``OwnConv2d`` and ``OwnLinear`` share: they take over a layer with its parameters, and quantize.

    Attributes:
        act: quantizes the input; nn.Identity leaves it as it is.
        input_operand, weight_operand: what they then are; ``bnnlib.profile`` reads and checks them.
        weight_scale: factor on the outputs of binary and ternary weights: ``none``, ``filter`` or ``layer``.
    """

    def take(self, layer: nn.Module, weight: str, act: str, estimator: str, scale: str) -> None:
        self.weight, self.bias = layer.weight, layer.bias
        self.weight_operand, self.input_operand = weight, act
        self.weight_scale = scale if weight in ("binary", "ternary") else "none"
        if act == "float":
            self.act = nn.Identity()
        else:
            self.act = FixedPointAct(act) if act.startswith("fixed") else QuantAct(act, estimator)
        self.train(layer.training)

    def forward(self, x: Tensor) -> Tensor:
        y = self.products(self.act(x), self.quantized_weight())
        over = (1,) * (self.weight.ndim - 2)  # behind the channels: none, or height and width
        if self.weight_scale != "none":
            y = y * weight_scale(self.weight, self.weight_operand, self.weight_scale).reshape(-1, *over)
        return y if self.bias is None else y + self.bias.reshape(-1, *over)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, inputs {self.input_operand}, weights {self.weight_operand}"


class OwnConv2d(_OwnLayer, nn.Conv2d):
    """A convolution of any stride, padding, dilation and groups on quantized operands.

    NOTE: zero is not a value of a binary input: where the layer pads with zeros, that input's border is repeated.
    """

    def __init__(self, layer: nn.Conv2d, weight: str, act: str, estimator: str, scale: str) -> None:
        mode = "replicate" if act == "binary" and layer.padding_mode == "zeros" else layer.padding_mode
        super().__init__(
            layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding, layer.dilation,
            layer.groups, bias=False, padding_mode=mode, device="meta",
        )  # fmt: skip
        self.take(layer, weight, act, estimator, scale)

    def products(self, x: Tensor, w: Tensor) -> Tensor:
        return self._conv_forward(x, w, None)


class OwnLinear(_OwnLayer, nn.Linear):
    """A fully connected layer on quantized operands."""

    def __init__(self, layer: nn.Linear, weight: str, act: str, estimator: str, scale: str) -> None:
        super().__init__(layer.in_features, layer.out_features, bias=False, device="meta")
        self.take(layer, weight, act, estimator, scale)

    def products(self, x: Tensor, w: Tensor) -> Tensor:
        return F.linear(x, w)


REPLACED = {nn.Conv2d: OwnConv2d, nn.Linear: OwnLinear}


def binarize(
    model: nn.Module,
    weights: str | Mapping[str, str] = "b",
    acts: str | Mapping[str, str] = "b",
    *,
    image: tuple[int, int, int],
    signed: bool = True,
    estimator: str = "clip",
    scale: str = "filter",
    relu: Callable[[], nn.Module] = nn.Hardtanh,
) -> nn.Sequential:
    """A copy of ``model`` with the operands of its layers quantized, which takes uint8 images.

    Its Conv2d and Linear layers quantize their weights and their inputs; the layer that sees the image takes its 8 bits
    as they are. Parameters are copied, so that those of a trained network are a start. ``bnnlib.fit`` trains the
    result, ``bnnlib.energy`` prices it, ``bnnlib.export`` writes it as ONNX.

    >>> network = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10))
    >>> binarize(network, weights={"0": "t", "*": "b"}, image=(1, 8, 8))[-1][-1]
    OwnLinear(
      in_features=288, out_features=10, bias=True, inputs binary, weights binary
      (act): QuantAct(binary, estimator=clip)
    )

    Args:
        model: takes float images [N, C, H, W], gives logits.
        weights: operand code of the weights of every layer (``b``, ``t``, ``2`` to ``9``, ``h``, ``f``: see
            ``bnnlib.specs``), or codes by name pattern, such as ``{"conv1": "8", "fc": "8", "*": "b"}``. The first
            pattern that fits a layer counts; a layer that none fits stays float.
        acts: the same for the inputs of the layers.
        image: (C, H, W) of the images.
        signed: hand the image on as [-1, 1] rather than [0, 1].
        estimator: gradient stand-in of binary and ternary inputs.
        scale: real factor of binary and ternary weights, mean |w| of each output (``filter``, XNOR-Net), of the
            ``layer``, or ``none``.
        relu: factory of the module that replaces each nn.ReLU if any input is binary or ternary (after a ReLU every
            sign would be +1). Hard tanh (BNN, arXiv 1602.02830); Bi-Real Net has nn.Identity, ReActNet nn.PReLU.

    Raises:
        UserError: a code or a pattern fits nothing, the network does not take such images or has no such layer, or a
            layer would take the sign of what is never negative.
    """
    _check("estimator", estimator, ESTIMATORS)
    _check("scale", scale, SCALES)
    if not (isinstance(image, Sequence) and len(image) == 3 and all(isinstance(n, int) and n > 0 for n in image)):
        raise UserError(f"image {image!r} is no shape; give (channels, height, width), such as (3, 32, 32)")
    if any(isinstance(module, Image | QuantLayer) for module in model.modules()):
        raise UserError(f"{type(model).__name__} is quantized already; give the network that it was made of")
    net = copy.deepcopy(model)
    named = dict(net.named_modules(remove_duplicate=False))  # a module may have two names
    layers = {name: module for name, module in named.items() if type(module) in REPLACED}
    if not layers:
        raise UserError(f"{type(model).__name__} has no nn.Conv2d and no nn.Linear to quantize")
    weight_codes, act_codes = _codes("weights", weights, layers), _codes("acts", acts, layers)
    one_sided = nn.ReLU | nn.ReLU6 if {"b", "t"} & set(act_codes.values()) else ()
    made = {}
    for name, module in named.items():
        if name in layers:
            operands = OPERANDS[weight_codes[name]], OPERANDS[act_codes[name]]
            made.setdefault(module, REPLACED[type(module)](module, *operands, estimator, scale))
        elif isinstance(module, one_sided):
            made.setdefault(module, relu())
        if module in made:
            net = _replaced(net, name, made[module])
    whole = nn.Sequential(OrderedDict(image=Image(tuple(image), signed, "fixed8"), net=net))
    _probe(whole)
    return whole.train(model.training)


def _check(what: str, value: object, allowed: tuple) -> None:
    if value not in allowed:
        raise UserError(f"{what} {value!r} is unknown; use one of {', '.join(map(repr, allowed))}")


def _codes(what: str, codes: str | Mapping[str, str], layers: Mapping[str, nn.Module]) -> dict[str, str]:
    """The operand code of each layer."""
    if not isinstance(codes, str | Mapping):
        raise UserError(f"{what} {codes!r} is neither an operand code nor a dictionary of them by name pattern")
    patterns = {"*": codes} if isinstance(codes, str) else codes
    for pattern, code in patterns.items():
        if not isinstance(code, str) or code not in OPERANDS:
            of = "" if isinstance(codes, str) else f" of {pattern!r}"
            raise UserError(f"{what}{of} {code!r} is no operand code; use {', '.join(map(repr, OPERANDS))}")
        if not any(fnmatchcase(name, pattern) for name in layers):
            raise UserError(f"{what}: no layer is called {pattern!r}; the layers are {', '.join(layers)}")
    first = {name: next((p for p in patterns if fnmatchcase(name, p)), None) for name in layers}
    for pattern in patterns:
        if pattern not in first.values():
            raise UserError(f"{what}: patterns before {pattern!r} take all that it fits; put it before them")
    return {name: patterns.get(pattern, "f") for name, pattern in first.items()}


def _replaced(net: nn.Module, name: str, module: nn.Module) -> nn.Module:
    """``net`` with another module under a name; the module itself if the name is empty, that of ``net``."""
    if not name:
        return module
    parent, _, child = name.rpartition(".")
    setattr(net.get_submodule(parent), child, module)
    return net


def _probe(whole: nn.Sequential) -> None:
    """One forward pass of a random image: the layer that sees it is told so, a sign of what has none is refused."""
    seen, hooks = {}, []
    names = {module: name for name, module in whole.net.named_modules()}

    def look(layer: nn.Module, inputs: tuple) -> None:
        if inputs[0] is seen["image"]:
            layer.act, layer.input_operand = nn.Identity(), "fixed8"
        elif layer.input_operand == "binary" and bool((inputs[0] >= 0).all()):
            raise UserError(
                f"the inputs of {names[layer]} are never negative, so that their signs are all +1; put a batch norm "
                "before it, write its ReLU as an nn.ReLU module, which binarize replaces, or give it other acts"
            )

    hooks.append(whole.image.register_forward_hook(lambda module, inputs, y: seen.update(image=y)))
    hooks += [m.register_forward_pre_hook(look) for m in whole.net.modules() if isinstance(m, _OwnLayer)]
    device = next(whole.parameters()).device
    shape = whole.image.shape
    try:
        pixels = torch.randint(0, 256, (2, *shape), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
        with eval_mode(whole), torch.no_grad():
            whole(pixels.to(device))
    except (RuntimeError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"the network does not take images {'x'.join(map(str, shape))}: {reason}") from error
    finally:
        for hook in hooks:
            hook.remove()
