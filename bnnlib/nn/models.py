"""LeNet5, VGGNet7 and registered architectures from a ModelSpec."""

from collections import OrderedDict

from torch import nn

from bnnlib.nn.layers import Image, QuantAct, QuantConv2d, QuantLinear
from bnnlib.nn.planes import PlaneConv2d, PlaneLinear
from bnnlib.operands import OPERANDS
from bnnlib.specs import ARCHS, ModelSpec


def build(spec: ModelSpec) -> nn.Sequential:
    """The network of ``spec`` with fresh Xavier-normal weights from torch's global generator.

    It takes uint8 images [N, C, H, W] and gives logits [N, 10].
    """
    arch = ARCHS[spec.arch]
    channels, size, _ = arch.image
    modules: OrderedDict[str, nn.Module] = OrderedDict(image=Image(arch.image, arch.signed_image, OPERANDS[spec.image]))
    for i, layer in enumerate(arch.layers, start=1):
        if not layer.kernel and "flatten" not in modules:
            modules["flatten"], channels = nn.Flatten(), channels * size**2
        modules[layer.name] = _product(spec, i, channels)
        channels, new_norm = layer.outputs, nn.BatchNorm1d
        if layer.kernel:
            channels, size, new_norm = int(layer.outputs * spec.width), layer.size_after(size), nn.BatchNorm2d
        if spec.extra_norm and i == 1:
            modules["extra_norm"] = nn.BatchNorm2d(channels)
        if spec.conv_relu and layer.kernel:
            modules[f"relu{i}"] = nn.ReLU()
        if i == len(arch.layers):
            if spec.norm and spec.last_norm:
                modules[f"norm{i}"] = nn.BatchNorm1d(channels, affine=False)
            break
        norm = [(f"norm{i}", new_norm(channels))] if spec.norm else []
        pool = [(f"pool{i}", nn.MaxPool2d(2))] if layer.pool else []
        operand, batch_threshold = OPERANDS[spec.acts[i - 1]], spec.ternary_acts == "batch"
        quantizer = QuantAct(operand, spec.estimator, spec.swish_beta, batch_threshold, spec.ternary_threshold)
        act = [] if _in_planes(spec, i) else [(f"act{i}", quantizer)]
        modules.update(pool + norm + act if spec.order == "CPBA" else norm + act + pool)
    model = nn.Sequential(modules)
    for module in model:
        if isinstance(module, QuantConv2d | QuantLinear):
            nn.init.xavier_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model


def _product(spec: ModelSpec, i: int, channels: int) -> nn.Module:
    """Layer ``i`` (counted from 1) of so many input channels or inputs, with its quantized weights."""
    arch = ARCHS[spec.arch]
    layer, planes = arch.layers[i - 1], i > 1 and _in_planes(spec, i - 1)
    common = {
        "bias": spec.bias, "weight_operand": OPERANDS[spec.weights[i - 1]], "weight_scale": spec.weight_scale,
        "balance": spec.balance,
    }  # fmt: skip
    if planes:  # the layer quantizes its input itself
        common |= {"form": spec.act_planes, "estimator": spec.estimator, "beta": spec.swish_beta}
    if not layer.kernel:
        return (PlaneLinear if planes else QuantLinear)(channels, layer.outputs, **common)
    # a binarized image is padded with its background, -1: zero is not one of its values
    pad_value = None if arch.pad_border else -1.0 if spec.image == "b" else 0.0
    return (PlaneConv2d if planes else QuantConv2d)(
        channels, int(layer.outputs * spec.width), layer.kernel, pad=layer.pad, pad_value=pad_value,
        input_levels=255 if i == 1 and spec.image == "8" else 1, **common,
    )  # fmt: skip


def _in_planes(spec: ModelSpec, i: int) -> bool:
    """Whether the activation after layer ``i`` (counted from 1) is quantized by the layer behind it."""
    return spec.act_planes != "sign" and spec.acts[i - 1] == "b"
