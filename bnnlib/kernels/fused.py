"""A batch norm, a quantizer and the convolution behind them as one step of training on the CPU, in bytes.

The step takes the sums of the layer before, float32 [N, h, w, C], and gives its own, pooled if a max pooling follows.
In between nothing is float: binary and ternary values are bytes and bits, and the gradient of the sums is quantized to
``gradient_bits`` before the two products of the backward pass, as ``gradient_quantizer`` does it. Sums of products are
exact integers. Running statistics are kept as torch's batch norm keeps them.
"""

import math

import torch
from torch import Tensor, nn

from bnnlib.kernels import blocks, convolution, lookups, processor, tables, threads
from bnnlib.kernels.lookup_simd import DIGIT, LOOKUPS, tile_columns
from bnnlib.kernels.simd import LANES
from bnnlib.nn.layers import QuantAct, QuantConv2d
from bnnlib.nn.thresholds import FACTOR

BOUNDS = {"clip": 1.0, "identity": math.inf}  # estimators that are z up to a bound of |z|, and their bounds


def fits(norm: nn.Module, act: nn.Module, layer: nn.Module, y: Tensor) -> bool:
    """Whether these modules in training are a step that ``step`` can do."""
    return (
        isinstance(norm, nn.BatchNorm2d)
        and isinstance(act, QuantAct)
        and type(layer) is QuantConv2d
        and norm.training
        and norm.affine
        and norm.momentum is not None
        and act.operand in ("binary", "ternary")
        and act.estimator in BOUNDS
        and act.believed in BOUNDS
        and bool(layer.gradient_bits)
        and layer.weight_operand in ("binary", "ternary")
        and (not layer.pad or layer.pad_value is None)
        and layer.in_channels % LANES == 0
        and layer.out_channels % LANES == 0
        and y.shape[3] + 2 * layer.pad <= 4 * LOOKUPS
        and layer.weight[0].numel() <= tables.LONGEST
        and processor.looks_up_in_vectors()
    )


def step(norm: nn.BatchNorm2d, act: QuantAct, layer: QuantConv2d, y: Tensor, pooled: bool) -> Tensor:
    """Sums [N, C, h, w] of the layer before to those of ``layer``, [N, O, h', w'], pooled 2 x 2 or not."""
    w = layer.quantized_weight().permute(0, 2, 3, 1)
    y = y.permute(0, 2, 3, 1).contiguous()
    y = _Step.apply(y, norm.weight, norm.bias, w, norm, act, layer, pooled)
    return layer.scaled(y.permute(0, 3, 1, 2))


class _Step(torch.autograd.Function):
    """The step on channels-last arrays: y [N, h, w, C], weight and bias [C], w [O, K, K, C]."""

    @staticmethod
    def forward(ctx, y: Tensor, weight: Tensor, bias: Tensor, w: Tensor, norm, act, layer, pooled: bool) -> Tensor:
        n, height, width, channels = y.shape
        mean, scale = _normalize(norm, y)
        factor = weight * scale
        shift = bias - mean * factor
        if not torch.isfinite(shift).all():  # a comparison would silently turn a NaN into the lowest level
            raise ValueError("cannot quantize NaN; the training has diverged or the input is damaged")
        outputs, pad = len(w), layer.pad
        x = torch.empty(n, height + 2 * pad, width + 2 * pad, channels, dtype=torch.int8)
        threshold = _threshold(act, y, factor, shift) if act.operand == "ternary" else -1.0
        threads.run(blocks.quantize_values, y, factor, shift, threshold, pad, x)
        w = w.to(torch.int8, memory_format=torch.contiguous_format)
        sums = tables.convolution(x, w, act.operand, layer.weight_operand)
        winner = torch.empty(0, dtype=torch.uint8)
        if pooled:
            largest = torch.empty(n, sums.shape[1] // 2, sums.shape[2] // 2, outputs)
            winner = torch.empty(largest.shape, dtype=torch.uint8)
            threads.run(convolution.max_pool, sums, largest, winner)
            sums = largest
        ctx.save_for_backward(y, mean, scale, factor, shift, x, w, winner)
        ctx.bound, ctx.pad, ctx.bits = BOUNDS[act.estimator], pad, layer.gradient_bits
        ctx.planes = 1 + (act.operand == "ternary"), 1 + (layer.weight_operand == "ternary")
        return sums

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple:
        y, mean, scale, factor, shift, x, w, winner = ctx.saved_tensors
        grad, digits, unit = _quantized(grad.contiguous(), winner, ctx.bits)
        dx, dw = _products(grad, digits, x, w, *ctx.planes)
        channels = y.shape[3]
        dz, sums = torch.empty(y.shape), torch.zeros(threads.count(), 2, channels, dtype=torch.float64)
        of_z = y, factor, shift, ctx.bound, ctx.pad, mean, scale
        threads.run(blocks.masked_gradient, dx, unit / ctx.planes[1], *of_z, dz, sums)
        first, second = sums.sum(0).float()
        count = y.numel() // channels
        slope = -factor * scale * second / count
        threads.run(blocks.norm_gradient, y, slope, factor, -factor * first / count - slope * mean, dz)
        return dz, second, first, dw.float().mul_(unit / ctx.planes[0]), None, None, None, None


def _quantized(grad: Tensor, winner: Tensor, bits: int) -> tuple[Tensor, int, float]:
    """Gradient of the sums before the pooling, int8 [N, h, w, O]; its digits (``lookups``) and its unit."""
    levels = 2 ** (bits - 1) - 1
    low, high = torch.aminmax(grad)  # a NaN is both
    top = max(float(high), -float(low))
    if not math.isfinite(top):
        raise ValueError("cannot quantize a gradient that is not finite; the training has diverged")
    small = torch.empty(grad.shape, dtype=torch.int8)
    threads.run(lookups.quantize, grad.view(-1), levels / top if top else 0.0, small.view(-1))
    if winner.numel():
        n, height, width, outputs = grad.shape
        pooled, small = small, torch.empty(n, 2 * height, 2 * width, outputs, dtype=torch.int8)
        threads.run(lookups.unpool, winner, pooled, small)
    return small, 1 if levels <= DIGIT else 2, top / levels


def _products(grad: Tensor, digits: int, x: Tensor, w: Tensor, act_planes: int, weight_planes: int) -> tuple:
    """Gradients of the inputs times ``weight_planes`` and of the kernels times ``act_planes``, int32."""
    n, rows, _, channels = x.shape
    outputs, size = w.shape[:2]
    length = size * channels
    tile = tile_columns(length)
    codes = torch.empty(weight_planes, size, length // tile, outputs // 4, tile, dtype=torch.uint8)
    lookups.code_kernels(w.view(outputs, size, length).numpy(), codes.numpy())
    dx = torch.empty(x.shape, dtype=torch.int32)
    threads.run(lookups.input_gradient, grad, digits, size, codes, dx)
    codes = torch.empty(n, act_planes, length // tile, rows, (grad.shape[2] + 3) // 4, tile, dtype=torch.uint8)
    threads.run(lookups.code_inputs, x, codes)
    dw = torch.zeros(outputs, size, length, dtype=torch.int32)
    threads.run(lookups.weight_gradient, grad, digits, size, codes, 0, dw)
    return dx, dw.view(w.shape)


def _normalize(norm: nn.BatchNorm2d, y: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and 1 / deviation of each channel of this batch, [C]; the running statistics follow."""
    sums = torch.zeros(threads.count(), 2, y.shape[3], dtype=torch.float64)
    threads.run(blocks.moments, y, sums)
    count = y.numel() // y.shape[3]
    mean, square = sums.sum(0) / count
    variance = (square - mean**2).clamp(min=0)
    norm.num_batches_tracked.add_(1)
    norm.running_mean.lerp_(mean.float(), norm.momentum)
    norm.running_var.lerp_((variance * count / max(count - 1, 1)).float(), norm.momentum)
    return mean.float(), (variance + norm.eps).rsqrt().float()


def _threshold(act: QuantAct, y: Tensor, factor: Tensor, shift: Tensor) -> float:
    """The ternary threshold of this batch, 0.4 mean |f(z)|; the running one follows."""
    sums = torch.zeros(threads.count(), dtype=torch.float64)
    threads.run(blocks.magnitude, y, factor, shift, BOUNDS[act.believed], sums)
    threshold = (FACTOR * sums.sum() / y.numel()).float()
    act.running_threshold.lerp_(threshold, 0.1)
    return float(threshold)
