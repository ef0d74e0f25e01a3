"""ONNX files of quantized networks, for runtimes that know nothing of this package.

Binary, ternary and fixed-point weights are stored as integers that a DequantizeLinear multiplies by their step (the QDQ
format of https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html); activations are quantized by
ordinary operators. So any ONNX runtime computes what the network does, in float32: the energy and speed of binary
operations are those of ``bnnlib.packed``.
"""

import contextlib
import copy
import io
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from bnnlib.errors import UserError
from bnnlib.files import write_atomic
from bnnlib.nn.layers import Image, QuantLayer, weight_scale
from bnnlib.nn.quantizers import power_of_two_scale
from bnnlib.operands import operand_bits

OPSET = 21  # the first whose DequantizeLinear takes 16-bit integers


def export_onnx(model: nn.Module, path: Path | str) -> Path:
    """Write ``model`` in eval mode as ONNX: input ``image`` uint8 [N, C, H, W], output ``logits`` [N, classes].

    N is free. The model is left as it was.

    Args:
        model: a network of ``bnnlib.build`` or ``bnnlib.binarize``, on any device.
        path: file to write, ``.onnx``.

    Raises:
        UserError: onnx and onnxscript are not installed, or the network holds what ONNX cannot say.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401, torch.onnx.export imports it
    except ImportError as error:
        raise UserError(f"ONNX export needs {error.name}; pip install -c requirements.lock -e '.[onnx]'") from error
    images = [module for module in model.modules() if isinstance(module, Image)]
    if len(images) != 1:
        raise UserError(f"{type(model).__name__} has {len(images)} Image modules; export takes a network with one")
    plain, steps = _baked(model)
    example = torch.zeros(2, *images[0].shape, dtype=torch.uint8)
    try:
        proto = _export(plain, example).model_proto
    except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise UserError(f"{type(model).__name__} cannot be written as ONNX: {reason}") from error
    if not proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param:
        raise UserError(f"{type(model).__name__} cannot be written as ONNX: its steps depend on the number of images")
    _store_integers(proto, steps)
    _forget_the_machine(proto)
    onnx.checker.check_model(proto)
    return write_atomic(path, proto.SerializeToString())


def _baked(model: nn.Module) -> tuple[nn.Module, dict[str, tuple[int, float]]]:
    """A copy on the CPU whose weights are their quantized values; bits and step of those, by parameter name."""
    plain = copy.deepcopy(model).cpu().eval()
    steps = {}
    for name, layer in plain.named_modules():
        if not isinstance(layer, QuantLayer) or layer.weight_operand == "float":
            continue
        operand, latent = layer.weight_operand, layer.weight.detach()
        bits, step = operand_bits(operand), 1.0
        if operand.startswith("fixed"):
            step = float(power_of_two_scale(latent)) / 2 ** (bits - 1)
        steps[f"{name}.weight"] = bits, step
        if layer.weight_scale != "none":
            layer.register_buffer("alpha", weight_scale(latent, operand, layer.weight_scale).flatten())
        layer.register_buffer("last_bias", None if layer.bias is None else layer.bias.detach())
        layer.register_forward_hook(_scale_and_bias)
        layer.weight = nn.Parameter(layer.quantized_weight().detach(), requires_grad=False)
        layer.weight_operand, layer.weight_scale, layer.bias = "float", "none", None
    return plain, steps


def _scale_and_bias(layer: nn.Module, inputs: tuple, y: Tensor) -> Tensor:
    """What the layer does after its products, in the same order."""
    over = (-1,) + (1,) * (layer.weight.ndim - 2)
    y = y * layer.alpha.reshape(over) if hasattr(layer, "alpha") else y
    return y if layer.last_bias is None else y + layer.last_bias.reshape(over)


def _export(plain: nn.Module, example: Tensor) -> torch.onnx.ONNXProgram:
    """torch's exporter, silent; constants are folded, but operators are not merged: roundings stay."""
    from onnxscript.optimizer import fold_constants, remove_unused_nodes

    with warnings.catch_warnings(), torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            plain, (example,), dynamo=True, verbose=False, optimize=False, opset_version=OPSET,
            input_names=["image"], output_names=["logits"], dynamic_shapes=({0: torch.export.Dim("N")},),
        )  # fmt: skip
        fold_constants(program.model)
        remove_unused_nodes(program.model)
        return program


def _store_integers(proto: object, steps: dict[str, tuple[int, float]]) -> None:
    """Let each weight of ``steps`` in an ``onnx.ModelProto`` be integers and a DequantizeLinear of its name."""
    from onnx import helper, numpy_helper

    graph = proto.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    nodes = []
    for name, (bits, step) in steps.items():
        values = numpy_helper.to_array(tensors[name])
        integers = np.rint(values / step).astype(np.int8 if bits <= 8 else np.int16)
        tensors[name].CopyFrom(numpy_helper.from_array(integers, f"{name}.integers"))
        graph.initializer.append(numpy_helper.from_array(np.float32(step), f"{name}.step"))
        inputs = [f"{name}.integers", f"{name}.step"]
        nodes.append(helper.make_node("DequantizeLinear", inputs, [name], name=f"{name}.dequantize"))
    for node in reversed(nodes):
        graph.node.insert(0, node)
    for value in [value for value in graph.value_info if value.name in steps]:
        graph.value_info.remove(value)


def _forget_the_machine(proto: object) -> None:
    """Drop what torch notes of each operator: lines of code, with the paths that they have here."""
    graph = proto.graph
    for part in (proto, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.ClearField("doc_string")
        if "metadata_props" in part.DESCRIPTOR.fields_by_name:
            part.ClearField("metadata_props")
