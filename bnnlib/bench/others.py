"""Other ways to run the networks of ``packed``: OpenVINO's binary convolution, int8 in torch and onnxruntime.

None of what is imported in here but torch is needed by anything else; a side that is not installed is left out.
"""

import logging
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnnlib.errors import UserError
from bnnlib.export import export_onnx
from bnnlib.nn.layers import QuantConv2d, QuantLinear


def openvino_binary(x: Tensor, w: Tensor) -> Callable | None:
    """The same layer as OpenVINO's BinaryConvolution; a call gives the seconds of this one operation, by its profiler.

    None where openvino is not installed.
    """
    try:
        import openvino as ov
        from openvino import opset1
    except ImportError:
        return None
    values = opset1.parameter(list(x.shape), np.float32)
    ends = [opset1.constant(np.full((1, 1, 1, 1), value, np.float32)) for value in (0, 0, -1, 1)]
    bits = np.packbits(w.numpy().reshape(-1) > 0)
    weights = ov.op.Constant(ov.Tensor(bits, ov.Shape(list(w.shape)), ov.Type.u1))
    signs = opset1.fake_quantize(values, *ends, 2)
    none = [0, 0]
    y = opset1.binary_convolution(signs, weights, [1, 1], none, none, [1, 1], "xnor-popcount", -1.0)
    options = {"PERF_COUNT": True, "INFERENCE_NUM_THREADS": torch.get_num_threads(), "PERFORMANCE_HINT": "LATENCY"}
    request = ov.Core().compile_model(ov.Model([y], [values]), "CPU", options).create_infer_request()

    def run() -> float:
        request.infer([x.numpy()])
        nodes = [node for node in request.profiling_info if node.node_type == "BinaryConvolution"]
        return sum(node.real_time.total_seconds() for node in nodes)

    return run


def int8_network(model: nn.Sequential, x: Tensor) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """A float network with 8-bit weights and activations by torch's quantized operators, and its first input.

    Batch norm is folded into the weights, and ReLU into the operators; activations are scaled by their largest value.
    """
    operators, steps = torch.ops.quantized, []
    modules = list(model)
    with torch.no_grad():
        value = modules[0](x)
        codes = torch.quantize_per_tensor(value, 2 / 255, 128, torch.quint8)
        for i, module in enumerate(modules):
            if not isinstance(module, QuantConv2d | QuantLinear):
                continue
            behind = modules[i + 1 : i + 4]
            norm = next(m for m in behind if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d))
            pool = any(isinstance(m, nn.MaxPool2d) for m in behind)
            conv = isinstance(module, QuantConv2d)
            gain = (1 if norm.weight is None else norm.weight) / torch.sqrt(norm.running_var + norm.eps)
            shift = (0 if norm.bias is None else norm.bias) - norm.running_mean * gain
            w = module.weight * gain.reshape(-1, *[1] * (module.weight.ndim - 1))
            w = torch.quantize_per_tensor(w, float(w.abs().max() / 127), 0, torch.qint8)
            value = module.padded(value) / module.input_levels if conv else value.flatten(1)
            product = F.conv2d if conv else F.linear
            value = product(value, w.dequantize(), shift).relu()
            scale = float(value.max() / 255) or 1.0
            if conv:
                pads = [module.pad] * 2
                packed_weights = operators.conv2d_prepack(w, shift, [1, 1], pads, [1, 1], 1)
                steps.append(lambda q, p=packed_weights, s=scale: operators.conv2d_relu(q, p, s, 0))
            else:
                packed_weights = operators.linear_prepack(w, shift)
                steps.append(lambda q, p=packed_weights, s=scale: operators.linear_relu(q.flatten(1), p, s, 0))
            if pool:
                value = F.max_pool2d(value, 2)
                steps.append(lambda q: F.max_pool2d(q, 2))

    def run(q: Tensor) -> Tensor:
        for step in steps:
            q = step(q)
        return q

    return run, codes


def onnxruntime_int8(model: nn.Sequential, x: Tensor) -> Callable | None:
    """A float network with 8-bit weights, a scale for each channel, and activations, by onnxruntime's own quantization.

    None where onnx or onnxruntime is not installed.
    """
    logging.disable(logging.WARNING)  # it names every tensor that it does not quantize
    try:
        import onnxruntime as ort
        from onnxruntime import quantization as q
        from onnxruntime.quantization.shape_inference import quant_pre_process

        with tempfile.TemporaryDirectory() as folder:
            written = str(export_onnx(model, Path(folder) / "float.onnx"))
            quant_pre_process(written, written, skip_symbolic_shape=True)  # folds the batch norms
            batches = iter([{"image": x.numpy()}])
            reader = type("Images", (q.CalibrationDataReader,), {"get_next": lambda self: next(batches, None)})()
            small = str(Path(folder) / "int8.onnx")
            q.quantize_static(  # QOperator was 10 to 20 % faster than QDQ, and unsigned activations than signed ones
                written, small, reader, quant_format=q.QuantFormat.QOperator, activation_type=q.QuantType.QUInt8,
                weight_type=q.QuantType.QInt8, per_channel=True,
            )  # fmt: skip
            options = ort.SessionOptions()
            options.intra_op_num_threads = torch.get_num_threads()
            session = ort.InferenceSession(small, options, providers=["CPUExecutionProvider"])
    except (ImportError, UserError):
        return None
    finally:
        logging.disable(logging.NOTSET)
    return lambda: session.run(None, {"image": x.numpy()})
