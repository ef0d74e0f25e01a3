"""Gradients of few bits: what a convolution of binary or ternary operands sends back, quantized before its products."""

import torch
from torch import Tensor


class _QuantizedGradient(torch.autograd.Function):
    """Forward the input, backward its gradient quantized."""

    @staticmethod
    def forward(ctx, x: Tensor, bits: int) -> Tensor:
        ctx.bits = bits
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple:
        levels, unit = gradient_levels(grad, ctx.bits)
        return levels.mul_(unit), None


def gradient_levels(grad: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """A gradient as integers from -(2^(bits-1) - 1) to 2^(bits-1) - 1, to nearest and ties to even, and their unit.

    The largest magnitude of the tensor is the largest integer. (DoReFa-Net, arXiv 1606.06160, section 2.5, takes it of
    each image and adds noise before rounding.)

    Args:
        grad: any shape.
        bits: 2 or more.
    """
    most = 2 ** (bits - 1) - 1
    largest = grad.abs().amax().float()
    scale = torch.where(largest > 0, most / largest, 0)
    return (grad * scale).round_(), largest / most


def quantized_gradient(x: Tensor, bits: int) -> Tensor:
    """``x``, whose gradient is quantized in backward (``gradient_levels``); 0 bits leave it as it is."""
    return _QuantizedGradient.apply(x, bits) if bits else x
