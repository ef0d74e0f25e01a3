"""From a trained network to integers: weights as codes, everything between two sums as thresholds.

Thresholds are found by asking the network itself: the modules between a layer's sum and its quantizer are run, in eval
mode, on integers, and the place where the value changes is found by bisection, for all channels at once. So there is no
second formula of batch norm that could round otherwise. (It matters: where a sum is equal to the mean and the bias is
zero, the sign of the result is that of a rounding error.)
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from bnnlib.errors import UserError
from bnnlib.nn.layers import QuantAct, QuantConv2d, QuantLinear, eval_mode, power_of_two_scale
from bnnlib.nn.models import build
from bnnlib.operands import OPERANDS, operand_bits
from bnnlib.packed.layers import IntegerLayer, IntegerNetwork
from bnnlib.specs import ARCHS, ModelSpec

HIDDEN = ("b", "t")  # activations that are thresholds of a sum


class Frame(NamedTuple):
    """What a layer of a network is before any training.

    Attributes:
        name, weight, act, pad, border, pool: as of ``IntegerLayer``.
        shape: of its weights, (O, K_h, K_w, C).
        steps: of its output: 1 for a binary activation, 2 for a ternary one, 0 for logits.
    """

    name: str
    weight: str
    act: str
    shape: tuple[int, int, int, int]
    pad: int
    border: int | None
    pool: bool
    steps: int


def frames(spec: ModelSpec) -> list[Frame]:
    """The layers of ``spec``; UserError if a part of it is no integer operation."""
    check_packable(spec)
    with torch.device("meta"):
        model = build(spec)
    found, act, extent = [], OPERANDS[spec.image], ARCHS[spec.arch].image[1]
    for name, product, behind in _groups(model):
        pool, quantizer = _first_of(nn.MaxPool2d, behind), _first_of(QuantAct, behind)
        if isinstance(product, QuantConv2d):
            k, channels, pad, fill = product.kernel_size[0], product.in_channels, product.pad, product.pad_value
        else:
            k, channels, pad, fill = extent, product.in_features // extent**2, 0, None
        steps = 0 if quantizer is None else {"binary": 1, "ternary": 2}[quantizer.operand]
        border = None if fill is None else int(fill)
        shape = len(product.weight), k, k, channels
        found.append(Frame(name, product.weight_operand, act, shape, pad, border, pool is not None, steps))
        extent = (extent + 2 * pad - k + 1) // (2 if pool is not None else 1)
        act = quantizer.operand if quantizer is not None else ""
    return found


def _groups(model: nn.Sequential) -> list[tuple[str, nn.Module, list[nn.Module]]]:
    """Each layer that multiplies: its name, itself, and what stands between it and the next."""
    modules = [(name, module) for name, module in model.named_children() if not isinstance(module, nn.Flatten)]
    starts = [i for i, (_, module) in enumerate(modules) if isinstance(module, QuantConv2d | QuantLinear)]
    return [
        (*modules[start], [module for _, module in modules[start + 1 : stop]])
        for start, stop in pairwise([*starts, len(modules)])
    ]


def _first_of(kind: type, modules: list[nn.Module]) -> nn.Module | None:
    return next((module for module in modules if isinstance(module, kind)), None)


def pack(model: nn.Sequential, spec: ModelSpec) -> IntegerNetwork:
    """The integers of a trained network on the CPU; it is left as it was.

    Args:
        model: what ``models.build(spec)`` gave, trained.
        spec: its description.

    Raises:
        UserError: a part of it is no integer operation.
    """
    layers = []
    with torch.no_grad(), eval_mode(model):
        for frame, (_, product, behind) in zip(frames(spec), _groups(model), strict=True):
            weights, step = _codes(product, frame)
            layer = IntegerLayer(
                frame.name, frame.weight, frame.act, weights, frame.pad, frame.border, frame.pool,
                np.zeros((0, len(weights)), np.int32), np.zeros(len(weights), bool), np.zeros(len(weights), bool),
            )  # fmt: skip
            if frame.steps:
                layer = replace(layer, **_thresholds(product, step, behind, layer.largest, len(weights)))
            else:
                scale, shift = _logits(product, step, behind, len(weights))
            layers.append(layer)
    return IntegerNetwork(spec, ARCHS[spec.arch].image, tuple(layers), scale, shift)


def check_packable(spec: ModelSpec) -> None:
    """Raise UserError unless all of a network's products are of integers and all its activations thresholds."""
    for i, code in enumerate(spec.weights, start=1):
        if code == "f" or operand_bits(OPERANDS[code]) > 8:
            raise UserError(f"weights {spec.weights!r} has {code!r} in layer {i}; packed weights are b, t or 2 to 8")
    for i, code in enumerate(spec.acts, start=1):
        if code not in HIDDEN:
            raise UserError(f"acts {spec.acts!r} has {code!r} behind layer {i}; packed activations are b or t")
    if spec.act_planes != "sign":
        raise UserError(f"act_planes {spec.act_planes!r} has real scales for each patch; only 'sign' can be packed")
    if spec.ternary_acts != "running" and "t" in spec.acts:
        raise UserError(f"ternary_acts {spec.ternary_acts!r} depends on the batch; only 'running' can be packed")


def _codes(product: QuantConv2d | QuantLinear, frame: Frame) -> tuple[np.ndarray, float]:
    """Weights as int16 [O, K, K, C], and the real number that a code of one stands for."""
    values, step = product.quantized_weight(), 1.0
    if product.weight_operand.startswith("fixed"):
        step = float(power_of_two_scale(product.weight)) / 2 ** (operand_bits(product.weight_operand) - 1)
    outputs, k_h, k_w, channels = frame.shape
    codes = (values / step).numpy().astype(np.int16).reshape(outputs, channels, k_h, k_w)
    return np.ascontiguousarray(codes.transpose(0, 2, 3, 1)), step


def _function(product: QuantConv2d | QuantLinear, modules: list[nn.Module], step: float) -> Callable[[Tensor], Tensor]:
    """What the network makes of a sum: int64 [O] to float32 [O], each channel for itself."""
    plane = (1, -1, 1, 1) if isinstance(product, QuantConv2d) else (1, -1)

    def run(sums: Tensor) -> Tensor:
        x = product.scaled((sums.float() * step).reshape(plane))
        for module in modules:
            x = module(x)
        return x.flatten()

    return run


def _thresholds(
    product: QuantConv2d | QuantLinear, step: float, behind: list[nn.Module], largest: int, outputs: int
) -> dict[str, np.ndarray]:
    """The thresholds and flips of a layer whose sums lie in [-largest, largest]."""
    act = next(module for module in behind if isinstance(module, QuantAct))
    pools = [i for i, module in enumerate(behind) if isinstance(module, nn.MaxPool2d)]
    pointwise = [module for module in behind if not isinstance(module, nn.MaxPool2d)]
    whole = _function(product, pointwise, step)
    ends = torch.full((outputs,), -largest), torch.full((outputs,), largest)
    falls = whole(ends[0]) > whole(ends[1])
    steps = [1] if act.operand == "binary" else [1, 0]  # P: at least 1; Q: at least 0
    thresholds = [_first(lambda sums, v=value: (whole(sums) >= v) ^ falls, largest, outputs) for value in steps]
    if pools:
        first = _function(product, behind[: pools[0]], step)
        before = first(ends[0]) > first(ends[1])
    else:
        before = torch.zeros(outputs, dtype=torch.bool)
    return {
        "thresholds": torch.stack(thresholds).numpy().astype(np.int32),
        "before": before.numpy(),
        "after": (before ^ falls).numpy(),
    }


def _first(reached: Callable[[Tensor], Tensor], largest: int, outputs: int) -> Tensor:
    """Smallest integer for which ``reached`` holds, in [-largest, largest + 1], a channel; it holds from there on."""
    low, high = torch.full((outputs,), -largest), torch.full((outputs,), largest + 1)
    while bool((low < high).any()):
        middle = torch.div(low + high, 2, rounding_mode="floor")
        yes = reached(middle)
        low, high = torch.where(yes, low, torch.minimum(middle + 1, high)), torch.where(yes, middle, high)
    return low


def _logits(product: QuantConv2d | QuantLinear, step: float, behind: list[nn.Module], outputs: int) -> tuple:
    """Logits as float64 ``scale * sum + shift``: the layer's own scale and bias, then batch norm."""
    zero, one = (product.scaled(torch.full((1, outputs), value * step, dtype=torch.float64))[0] for value in (0, 1))
    scale, shift = one - zero, zero
    for norm in behind:
        # numpy's root is the nearest double on every processor; torch's, of MKL, differs between them in the last bit
        deviation = torch.from_numpy(np.sqrt(norm.running_var.double().numpy() + norm.eps))
        scale, shift = scale / deviation, (shift - norm.running_mean.double()) / deviation
    return scale.numpy(), shift.numpy()
