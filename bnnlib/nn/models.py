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
    image_operand = OPERANDS[spec.image]
    modules: OrderedDict[str, nn.Module] = OrderedDict(image=Image(arch.image, arch.signed_image, image_operand))
    # a binarized image is padded with its background, -1: zero is not one of its values
    pad_value = None if arch.pad_border else -1.0 if image_operand == "binary" else 0.0
    flat = False
    for i, (layer, code) in enumerate(zip(arch.layers, spec.weights, strict=True), start=1):
        last = i == len(arch.layers)
        common = {"bias": spec.bias, "weight_operand": OPERANDS[code], "weight_scale": spec.weight_scale}
        common["balance"] = spec.balance
        planes = i > 1 and _in_planes(spec, i - 1)  # the layer quantizes its input itself
        if planes:
            common |= {"form": spec.act_planes, "estimator": spec.estimator, "beta": spec.swish_beta}
        if layer.kernel:
            outputs = int(layer.outputs * spec.width)
            modules[layer.name] = (PlaneConv2d if planes else QuantConv2d)(
                channels, outputs, layer.kernel, pad=layer.pad, pad_value=pad_value,
                input_levels=255 if i == 1 and image_operand == "fixed8" else 1, **common,
            )  # fmt: skip
            size = layer.size_after(size)
            new_norm = nn.BatchNorm2d
        else:
            if not flat:
                modules["flatten"], channels, flat = nn.Flatten(), channels * size**2, True
            outputs = layer.outputs
            modules[layer.name] = (PlaneLinear if planes else QuantLinear)(channels, outputs, **common)
            new_norm = nn.BatchNorm1d
        channels = outputs
        if spec.extra_norm and i == 1:
            modules["extra_norm"] = nn.BatchNorm2d(outputs)
        if spec.conv_relu and layer.kernel:
            modules[f"relu{i}"] = nn.ReLU()
        if last:
            if spec.norm and spec.last_norm:
                modules[f"norm{i}"] = nn.BatchNorm1d(outputs, affine=False)
            break
        norm = [(f"norm{i}", new_norm(outputs))] if spec.norm else []
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


def _in_planes(spec: ModelSpec, i: int) -> bool:
    """Whether the activation after layer ``i`` (counted from 1) is quantized by the layer behind it."""
    return spec.act_planes != "sign" and spec.acts[i - 1] == "b"
