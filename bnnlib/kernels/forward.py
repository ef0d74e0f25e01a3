"""A network's forward pass on the CPU by the kernels of this project, with gradients: same network, same results.

``forward(model, x)`` stands for ``model(x)``. A convolution of ±1 by ±1 is counted with XNOR, a convolution that a max
pooling follows goes backward over the winners alone, one whose gradient has few bits is done in bytes together with the
batch norm and the quantizer before it (``fused``), everything else is torch. Forward values are equal to torch's to
the last bit where both operands are binary; gradients differ by rounding.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnnlib.kernels import convolution, fused, threads
from bnnlib.kernels.simd import LANES
from bnnlib.nn.gradient_quantizer import quantized_gradient
from bnnlib.nn.layers import QuantAct, QuantConv2d, QuantLinear

BLOCKS = (96, 160, 64, LANES)  # widths that a row of kernels is cut to, the first that divides it


def forward(model: nn.Sequential, x: Tensor) -> Tensor:
    """Logits [N, 10] of uint8 images [N, C, H, W] on the CPU, in train or eval mode, as ``model(x)`` gives them."""
    modules = list(model)
    binary = False  # whether every value of x is -1 or +1
    i = 0
    while i < len(modules):
        module = modules[i]
        if len(modules) > i + 3 and fused.fits(*modules[i : i + 3], x):
            pooled = isinstance(modules[i + 3], nn.MaxPool2d)
            x, binary = fused.step(*modules[i : i + 3], x, pooled), False
            i += 3 + pooled
            continue
        if type(module) is QuantConv2d:  # others sum several products
            pooled = isinstance(modules[i + 1], nn.MaxPool2d)
            x, binary = _convolution(module, x, pooled, binary), False
            i += pooled
        elif binary and isinstance(module, QuantLinear):
            x, binary = _linear(module, x), False
        else:
            x = module(x)
            keeps = isinstance(module, nn.MaxPool2d | nn.Flatten)
            binary = module.operand == "binary" if isinstance(module, QuantAct) else binary and keeps
        i += 1
    return x


def _convolution(layer: QuantConv2d, x: Tensor, pooled: bool, binary_input: bool) -> Tensor:
    """A layer, and the 2 x 2 max pooling after it where there is one; [N, C, H, W] to [N, O, H', W']."""
    # a padded zero has no bit
    xnor = binary_input and layer.weight_operand == "binary" and not (layer.pad and layer.pad_value == 0)
    of_an_image = layer.in_channels <= 4 and not layer.out_channels % LANES and not x.requires_grad
    # sums of integers alone do not depend on their order, nor, with it, what a ReLU drops
    if of_an_image and (pooled or layer.weight_operand != "float"):
        convolution = _PooledImageConvolution if pooled else _ImageConvolution
        y = convolution.apply(layer.padded(x).contiguous(), layer.quantized_weight())
    elif layer.in_channels % LANES or layer.out_channels % LANES or not (pooled or xnor):
        return F.max_pool2d(layer(x), 2) if pooled else layer(x)
    else:
        w = layer.quantized_weight().permute(0, 2, 3, 1).contiguous()
        x = layer.padded(x).permute(0, 2, 3, 1).contiguous()
        y = _PooledConvolution.apply(x, w, xnor) if pooled else _XnorConvolution.apply(x, w)
    y = quantized_gradient(y, layer.gradient_bits)
    return layer.scaled(y.permute(0, 3, 1, 2))  # the largest of four stays the largest


def _linear(layer: QuantLinear, x: Tensor) -> Tensor:
    """A fully connected layer of ±1 inputs, [N, in] to [N, out]: a convolution of images of one pixel."""
    if layer.weight_operand != "binary" or layer.in_features % LANES or layer.out_features % LANES:
        return layer(x)
    w = layer.quantized_weight()
    return layer.scaled(_XnorLinear.apply(x.contiguous(), w))


class _PooledConvolution(torch.autograd.Function):
    """Convolution and 2 x 2 max pooling: float32 [N, H, W, C] and [O, K, K, C] to [N, H' // 2, W' // 2, O]."""

    @staticmethod
    def forward(ctx, x: Tensor, w: Tensor, xnor: bool) -> Tensor:
        y = _xnor(x, w) if xnor else _dense(x, w)
        n, height, width, outputs = y.shape
        pooled = torch.empty(n, height // 2, width // 2, outputs)
        winner = torch.empty(pooled.shape, dtype=torch.uint8)
        threads.run(convolution.max_pool, y, pooled, winner)
        ctx.save_for_backward(x, w, winner)
        return pooled

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple:
        x, w, winner = ctx.saved_tensors
        grad = grad.contiguous()
        dx = dw = None
        if ctx.needs_input_grad[0]:
            dx = torch.zeros(x.shape)
            threads.run(convolution.input_gradient, winner, grad, _blocks(w), dx)
        if ctx.needs_input_grad[1]:
            dw = torch.zeros(threads.count(), *w.shape)  # one per thread: they would overwrite each other's sums
            threads.run(convolution.weight_gradient, winner, grad, x, w.shape[1], dw)
            dw = dw.sum(0)
        return dx, dw, None


class _ImageConvolution(torch.autograd.Function):
    """Convolution of images [N, C, H, W], which need no gradient, and weights [O, C, K, K] to [N, H', W', O]."""

    @staticmethod
    def forward(ctx, x: Tensor, w: Tensor) -> Tensor:
        taps = _taps(x, w)
        n, _, rows, columns = x.shape
        y = torch.empty(n, rows - w.shape[2] + 1, columns - w.shape[3] + 1, len(w))
        threads.run(convolution.image_sums, x, w.reshape(len(w), -1).T.contiguous(), taps, y)
        ctx.save_for_backward(x)
        ctx.taps, ctx.shape = taps, w.shape
        return y

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple:
        (x,) = ctx.saved_tensors
        dw = torch.zeros(threads.count(), len(ctx.taps), ctx.shape[0])
        threads.run(convolution.image_sums_weight_gradient, grad.contiguous(), x, ctx.taps, dw)
        return None, dw.sum(0).T.reshape(ctx.shape)


def _taps(x: Tensor, w: Tensor) -> np.ndarray:
    """Where the input of each weight lies in a flat image, from the corner of its patch on."""
    channels, rows, columns = x.shape[1:]
    places = np.arange(channels * rows * columns).reshape(channels, rows, columns)
    return places[:, : w.shape[2], : w.shape[3]].ravel()


class _PooledImageConvolution(torch.autograd.Function):
    """The same of images [N, C, H, W], which need no gradient, and weights [O, C, K, K]."""

    @staticmethod
    def forward(ctx, x: Tensor, w: Tensor) -> Tensor:
        outputs, _, size, _ = w.shape
        n, _, rows, columns = x.shape
        taps = _taps(x, w)
        pooled = torch.empty(n, (rows - size + 1) // 2, (columns - size + 1) // 2, outputs)
        winner = torch.empty(pooled.shape, dtype=torch.uint8)
        threads.run(convolution.image_conv, x, w.reshape(outputs, -1).T.contiguous(), taps, pooled, winner)
        ctx.save_for_backward(x, winner)
        ctx.taps, ctx.shape = taps, w.shape
        return pooled

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple:
        x, winner = ctx.saved_tensors
        dw = torch.zeros(threads.count(), len(ctx.taps), ctx.shape[0])
        threads.run(convolution.image_weight_gradient, winner, grad.contiguous(), x, ctx.taps, dw)
        return None, dw.sum(0).T.reshape(ctx.shape)


class _XnorConvolution(torch.autograd.Function):
    """Convolution of ±1 by ±1 without pooling, shapes as above; backward is torch's."""

    @staticmethod
    def forward(ctx, x: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(x, w)
        return _xnor(x, w)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple:
        grad, x, w = (t.permute(0, 3, 1, 2) for t in (grad, *ctx.saved_tensors))
        wanted = (*ctx.needs_input_grad, False)
        gradients = torch.ops.aten.convolution_backward(
            grad, x, w, None, (1, 1), (0, 0), (1, 1), False, (0, 0), 1, wanted
        )
        return tuple(None if d is None else d.permute(0, 2, 3, 1) for d in gradients[:2])


class _XnorLinear(torch.autograd.Function):
    """[N, in] and [out, in] of ±1 to [N, out]; backward is torch's."""

    @staticmethod
    def forward(ctx, x: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(x, w)
        return _xnor(x[:, None, None], w[:, None, None])[:, 0, 0]

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple:
        x, w = ctx.saved_tensors
        return grad @ w, grad.T @ x


def _dense(x: Tensor, w: Tensor) -> Tensor:
    """Convolution by torch, [N, H, W, C] and [O, K, K, C] to [N, H', W', O]."""
    return F.conv2d(x.permute(0, 3, 1, 2), w.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).contiguous()


def _xnor(x: Tensor, w: Tensor) -> Tensor:
    """The same of ±1 by ±1, counted."""
    n, height, width, channels = x.shape
    outputs, size, _, _ = w.shape
    bits = np.empty((outputs, size, size, channels // LANES), np.uint32)
    convolution.pack(w.numpy(), bits)
    bits = np.ascontiguousarray(bits.transpose(1, 2, 3, 0))
    words = np.empty((n, height, width, channels // LANES), np.uint32)
    y = torch.empty(n, height - size + 1, width - size + 1, outputs)
    threads.run(convolution.xnor_conv, x, words, bits, y)
    return y


def _blocks(w: Tensor) -> Tensor:
    """Kernels [O, K, K, C] as ``convolution.input_gradient`` wants them, [K, K C / B, O, B]."""
    outputs, size, _, channels = w.shape
    row = size * channels
    block = next(b for b in BLOCKS if row % b == 0)
    return w.reshape(outputs, size, row // block, block).permute(1, 2, 0, 3).contiguous()
