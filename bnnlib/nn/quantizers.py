"""Quantizers: pure functions from real tensors to few values, and the gradient estimators that stand in for theirs.

Every quantizer here has derivative zero almost everywhere, so training replaces it by an *estimator* g(x): forward
q(x), backward grad * g(x) (the straight-through idea: Bengio et al., arXiv 1308.3432; Hinton's 2012 lectures).

NOTE: sign(0) is +1 here, for every caller (Hubara et al., arXiv 1602.02830). The paper's released code rounds
half to even and so has sign(0) = -1; on real-valued activations the difference has measure zero.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from bnnlib.errors import UserError
from bnnlib.specs import ESTIMATORS


def _refuse_nan(x: Tensor) -> None:
    """Stop at a NaN: a comparison would silently turn it into the lowest level."""
    if x.numel() == 0 or not x.is_floating_point() or torch.compiler.is_exporting():  # a graph has no branches
        return
    lowest = x.detach().amin()  # one pass; a NaN anywhere comes through
    if x.device.type == "cpu":
        if torch.isnan(lowest):
            raise ValueError("cannot quantize NaN; the training has diverged or the input is damaged")
    else:
        torch._assert_async(~torch.isnan(lowest))  # no wait for the device


def binary(x: Tensor) -> Tensor:
    """+1 where x >= 0, else -1, in the shape and dtype of ``x`` (BNN, arXiv 1602.02830).

    >>> binary(torch.tensor([-0.3, 0.0, 2.0]))
    tensor([-1.,  1.,  1.])

    Raises:
        ValueError: ``x`` holds a NaN.
    """
    _refuse_nan(x)
    return x.sign().add_(0.5).sign_()  # six times as fast as a comparison on the CPU, which goes through bool


def ternary(x: Tensor, threshold: Tensor | float) -> Tensor:
    """+1 where x > threshold, -1 where x < -threshold, else 0 (TWN, arXiv 1605.04711, without scale).

    Args:
        x: any shape.
        threshold: in the unit of ``x``, not negative.

    Raises:
        ValueError: ``x`` holds a NaN.
    """
    _refuse_nan(x)
    if x.device.type == "cpu" and not torch.compiler.is_compiling():  # six times as fast as a clamp between tensors
        return F.hardshrink(x, float(threshold)).sign_()
    return x.sub(x.clamp(-threshold, threshold)).sign_()  # no wait for a threshold on the device


def fixed_point(x: Tensor, bits: int, scale: Tensor | float = 1.0) -> Tensor:
    """Nearest multiple of scale / 2^(bits-1) within [-scale, scale), ties to even: ``bits``-bit two's complement.

    Args:
        x: any shape.
        bits: 2 or more.
        scale: the power of two that the most negative code stands for.

    Raises:
        ValueError: ``x`` holds a NaN or ``bits`` is under 2.
    """
    if bits < 2:
        raise ValueError(f"fixed point of {bits} bits is not possible; use 2 or more, or binary")
    _refuse_nan(x)
    levels = 2 ** (bits - 1)
    return torch.clamp(torch.round(x / scale * levels), -levels, levels - 1) / levels * scale


def weight_threshold(w: Tensor) -> Tensor:
    """Ternary threshold of a layer's latent weights: 0.7 mean|w| (TWN, arXiv 1605.04711).

    That of activations: ``bnnlib/nn/thresholds.py``.
    """
    return 0.7 * w.abs().mean()


def balanced(w: Tensor) -> Tensor:
    """Latent weights [O, ...] with mean 0 and standard deviation 1 in each output (IR-Net, arXiv 1909.10788).

    Half of the signs are then +1 or nearly so, which is where they carry most information. Gradients go through.
    """
    over = tuple(range(1, w.ndim))
    centred = w - w.mean(over, keepdim=True)
    return centred / centred.std(over, keepdim=True).clamp(min=1e-8)


def power_of_two_scale(w: Tensor) -> Tensor:
    """Smallest power of two that is at least max|w|: a shared exponent as in dynamic fixed point.

    (Courbariaux et al., arXiv 1412.7024, adjust theirs by the rate of overflows; here the maximum sets it.)

    Zero weights get scale 1.
    """
    largest = w.abs().max().float()
    return torch.where(largest > 0, torch.exp2(torch.ceil(torch.log2(largest))), torch.ones_like(largest))


def identity_gradient(x: Tensor) -> Tensor:
    """g(x) = 1: the gradient of q(x) = x."""
    return torch.ones_like(x)


def clip_gradient(x: Tensor) -> Tensor:
    """g(x) = 1 for |x| < 1, else 0: the gradient of hard tanh (BNN, arXiv 1602.02830).

    NOTE: BNN includes |x| = 1; the released code, and this, do not."""
    return (x.abs() < 1).to(x.dtype)


def bireal_gradient(x: Tensor) -> Tensor:
    """g(x) = 2 - 2|x| for |x| < 1, else 0: a piecewise quadratic sign (Bi-Real Net, arXiv 1808.00278)."""
    return (2 - 2 * x.abs()).clamp_(min=0)


def swish_gradient(x: Tensor, beta: float = 10.0) -> Tensor:
    """g(x) = beta (2 - beta x tanh(beta x / 2)) / (1 + cosh(beta x)): SignSwish of BNN+ (arXiv 1812.11800).

    NOTE: 1 + cosh(z) = 2 cosh(z/2)^2 is written as its bounded inverse, so that large |x| gives 0 and not inf/inf.
    """
    half = (beta * x / 2).clamp(-20, 20)  # the gradient is zero beyond; float16 would overflow
    return beta * (1 - half * torch.tanh(half)) * (1 - torch.tanh(half) ** 2)


def ede_gradient(x: Tensor, progress: float) -> Tensor:
    """g(x) = k t (1 - tanh^2(t x)), t = 10^(2 progress - 1), k = max(1/t, 1): EDE of IR-Net (arXiv 1909.10788).

    Almost 1 everywhere at first, almost the derivative of sign at the end of the training.

    Args:
        x: any shape.
        progress: share of the training that is over, 0 to 1.
    """
    t = 10 ** (2 * progress - 1)
    return max(1 / t, 1) * t * (1 - torch.tanh(t * x) ** 2)


RESTE_ROOT, RESTE_LINEAR, RESTE_RANGE = 3.0, 0.1, 1.5  # the released configuration of ReSTE for CIFAR-10


def reste_gradient(x: Tensor, progress: float) -> Tensor:
    """g(x) = |x|^(1/o - 1) / o for |x| <= 1.5, else 0, o from 1 to 3: the power function of ReSTE (ICCV 2023).

    For |x| <= 0.1, where the power has no bound, it is the slope of the chord, 0.1^(1/o - 1).
    (X.-M. Wu et al., "Estimator Meets Equilibrium Perspective", arXiv 2308.06689, and its released code.)

    Args:
        x: any shape.
        progress: share of the training that is over, 0 to 1.
    """
    o = 1 + (RESTE_ROOT - 1) * progress
    size = x.abs()
    slope = size.clamp(min=RESTE_LINEAR) ** (1 / o - 1) / torch.where(size <= RESTE_LINEAR, 1.0, o)
    return torch.where(size <= RESTE_RANGE, slope, 0.0).to(x.dtype)


GRADIENTS: dict[str, Callable[..., Tensor]] = {
    "identity": identity_gradient,
    "clip": clip_gradient,
    "bireal": bireal_gradient,
    "swish": swish_gradient,
}
ANNEALED: dict[str, Callable[[Tensor, float], Tensor]] = {"ede": ede_gradient, "reste": reste_gradient}


def register_estimator(name: str, gradient: Callable[[Tensor], Tensor]) -> None:
    """Add a gradient estimator, which specs and ``binarize`` then know by its name.

    The threshold of ternary activations is that of ``clip`` (``thresholds``). A spec's hash has the name, not the
    function: give another function another name.

    Args:
        name: of the estimator.
        gradient: the inputs of the quantizer to g, both of any one shape; g is 0 or larger.

    Raises:
        UserError: the name is taken, or g of some numbers is not of their shape and type, or not finite.
    """
    if name in ESTIMATORS:
        raise UserError(f"estimator {name!r} is there already; take another name")
    x = torch.linspace(-3, 3, 13)
    g = gradient(x)
    if not isinstance(g, Tensor) or g.shape != x.shape or g.dtype != x.dtype or not torch.isfinite(g).all():
        raise UserError(f"estimator {name!r} does not give a finite gradient of the shape and type of its input")
    GRADIENTS[name] = gradient
    ESTIMATORS.append(name)


class _Estimated(torch.autograd.Function):
    """Forward a given value, backward grad * g(x)."""

    @staticmethod
    def forward(ctx, x: Tensor, value: Tensor, gradient: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.gradient = gradient
        ctx.save_for_backward(x)
        return value

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple:
        (x,) = ctx.saved_tensors
        return grad * ctx.gradient(x), None, None


class _Clipped(torch.autograd.Function):
    """Forward a given value, backward grad * clip_gradient(x) in one pass: hard tanh has that gradient."""

    @staticmethod
    def forward(ctx, x: Tensor, value: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return value

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple:
        (x,) = ctx.saved_tensors
        return torch.ops.aten.hardtanh_backward(grad, x, -1.0, 1.0), None


class _PassThrough(torch.autograd.Function):
    """Forward a given value, backward grad: the identity estimator without a stored tensor."""

    @staticmethod
    def forward(ctx, x: Tensor, value: Tensor) -> Tensor:
        return value

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple:
        return grad, None


def estimate(
    x: Tensor, value: Tensor, estimator: str = "identity", beta: float = 10.0, progress: float = 0.0
) -> Tensor:
    """``value`` = q(x) in forward, gradient of the named estimator at ``x`` in backward.

    Args:
        x: input of the quantizer, any shape.
        value: its output, same shape.
        estimator: a key of ``GRADIENTS`` or ``ANNEALED``.
        beta: steepness, used by ``swish`` alone.
        progress: share of the training that is over, used by those of ``ANNEALED``.
    """
    if estimator == "identity":
        return _PassThrough.apply(x, value)
    if estimator == "clip":
        return _Clipped.apply(x, value)
    if estimator == "swish":
        return _Estimated.apply(x, value, lambda y: swish_gradient(y, beta))
    if estimator in ANNEALED:
        return _Estimated.apply(x, value, lambda y: ANNEALED[estimator](y, progress))
    return _Estimated.apply(x, value, GRADIENTS[estimator])
