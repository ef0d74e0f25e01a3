"""Layers whose operands are quantized in forward.

The latent weights are the ordinary ``weight`` parameter, so that a checkpoint resumes exactly and any torch optimizer
works; their gradient is the identity estimator (BinaryConnect, arXiv 1511.00363).

NOTE: VGGNet7 pads by repeating the border (Larq's ``same`` padding with pad_values=1 is another way): a padded zero is
not a value of a binary operand, and would turn XNOR into a third state.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnnlib.nn.gradient_quantizer import quantized_gradient
from bnnlib.nn.quantizers import balanced, binary, estimate, fixed_point, power_of_two_scale, ternary, weight_threshold
from bnnlib.nn.thresholds import activation_threshold, unit_normal_threshold


def quantize_weight(w: Tensor, operand: str) -> Tensor:
    """Latent weights of any shape to the values of ``operand``, with identity gradient."""
    if operand == "float":
        return w
    latent = w.detach()
    if operand == "binary":
        return estimate(w, binary(latent))
    if operand == "ternary":
        return estimate(w, ternary(latent, weight_threshold(latent)))
    return estimate(w, fixed_point(latent, int(operand.removeprefix("fixed")), power_of_two_scale(latent)))


def weight_scale(w: Tensor, operand: str, scale: str) -> Tensor:
    """Mean |w| over the latent weights that ``operand`` does not set to zero, [O, 1, ...] or [1, 1, ...].

    Least squares: alpha q(w) is nearest to w for this alpha (XNOR-Net, arXiv 1603.05279; TWN, arXiv 1605.04711).

    Args:
        w: latent weights [O, ...].
        operand: ``binary`` or ``ternary``.
        scale: ``filter`` (one per output) or ``layer`` (one for all: DoReFa-Net, arXiv 1606.06160).
    """
    over = tuple(range(w.ndim))[1 if scale == "filter" else 0 :]
    kept = quantize_weight(w.detach(), operand).abs()
    return (w.abs() * kept).sum(over, keepdim=True) / kept.sum(over, keepdim=True).clamp(min=1)


class Image(nn.Module):
    """uint8 images [N, C, H, W] to the network's number range; the first step of every network.

    Args:
        shape: (C, H, W) that the network takes.
        signed: [-1, 1] instead of [0, 1].
        operand: ``fixed8``, or ``binary`` for a threshold at mid-grey (then -1 and +1, signed or not).
    """

    def __init__(self, shape: tuple[int, int, int], signed: bool, operand: str) -> None:
        super().__init__()
        self.shape, self.signed, self.operand = shape, signed, operand

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype != torch.uint8 or x.ndim != 4 or tuple(x.shape[1:]) != self.shape:
            wanted = "x".join(map(str, self.shape))
            raise ValueError(f"images are {x.dtype} {list(x.shape)}; this network takes torch.uint8 [N, {wanted}]")
        centred = x.float().mul_(2).sub_(255)
        if self.operand == "binary":
            return binary(centred)
        return centred.div_(255) if self.signed else x.float().div_(255)

    def extra_repr(self) -> str:
        return f"shape={self.shape}, signed={self.signed}, operand={self.operand}"


class QuantLayer:
    """What convolutions and fully connected layers share: latent weights, and what the products see of them.

    Attributes:
        weight_operand: ``binary``, ``ternary``, ``fixedK`` or ``float``.
    """

    weight_operand: str
    balance = False
    gradient_bits = 0  # of the gradient of the sums, 0 for float32; see ``set_gradient_bits``

    def quantized_weight(self) -> Tensor:
        """The weights of the products, in the shape of ``weight``."""
        few = self.weight_operand in ("binary", "ternary")
        return quantize_weight(balanced(self.weight) if self.balance and few else self.weight, self.weight_operand)


class QuantConv2d(QuantLayer, nn.Conv2d):
    """Stride-1 convolution with quantized weights, [N, C_in, H, W] to [N, C_out, H', W'].

    Args:
        pad: pixels added on each side.
        pad_value: the value to pad with, or None to repeat the border.
        weight_operand: ``binary``, ``ternary``, ``fixedK`` or ``float``.
        input_levels: L if the inputs are integers over L, as those of an 8-bit image are. They are then summed as
            integers: float32 does that exactly, so that neither the order of the sum nor the device decides a tie.
        weight_scale: factor on the outputs of binary and ternary weights: ``none``, ``filter`` or ``layer``.
        balance: take binary and ternary weights of ``balanced`` latent ones.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        pad: int = 0,
        pad_value: float | None = None,
        bias: bool = False,
        weight_operand: str = "binary",
        input_levels: int = 1,
        weight_scale: str = "none",
        balance: bool = False,
    ) -> None:
        super().__init__(inputs, outputs, kernel, bias=bias)
        self.balance = balance
        self.weight_scale = weight_scale if weight_operand in ("binary", "ternary") else "none"
        self.pad, self.pad_value, self.weight_operand = pad, pad_value, weight_operand
        self.input_levels = input_levels

    def forward(self, x: Tensor) -> Tensor:
        w = self.quantized_weight()
        x = self.padded(x)
        of_an_image = x.device.type == "cpu" and not x.requires_grad and self.in_channels <= 3
        product = self._patches_times_weights if of_an_image and not torch.compiler.is_exporting() else F.conv2d
        return self.scaled(quantized_gradient(product(x, w), self.gradient_bits))

    def padded(self, x: Tensor) -> Tensor:
        """The input with its border, as integers if it has levels: [N, C, H, W] to [N, C, H + 2 pad, W + 2 pad]."""
        if self.pad:
            sides = (self.pad,) * 4
            x = F.pad(x, sides, "replicate") if self.pad_value is None else F.pad(x, sides, value=self.pad_value)
        return (x * self.input_levels).round() if self.input_levels > 1 else x

    def scaled(self, y: Tensor) -> Tensor:
        """The sums over ``padded`` in the unit of the input, with scale and bias; [N, C_out, H', W']."""
        y = y / self.input_levels if self.input_levels > 1 else y
        if self.weight_scale != "none":
            y = y * weight_scale(self.weight, self.weight_operand, self.weight_scale)[:, 0]
        return y if self.bias is None else y + self.bias[:, None, None]

    def _patches_times_weights(self, x: Tensor, w: Tensor) -> Tensor:
        """The same convolution as one matrix product, for the one to three channels of an image.

        Its result lies channels last in memory, which the pooling after it needs to be fast; torch's convolution of a
        single channel gives no such result. Forward and backward of the binary LeNet5 for 100 images took 134 ms with
        torch's convolution and 101 ms with this one (medians of 20 in turn; one thread, AVX2).
        """
        k = self.kernel_size[0]
        patches = x.unfold(2, k, 1).unfold(3, k, 1).permute(0, 2, 3, 1, 4, 5)  # [N, H', W', C, k, k]
        n, h, width = patches.shape[:3]
        y = F.linear(patches.reshape(n * h * width, -1), w.reshape(self.out_channels, -1))
        return y.reshape(n, h, width, -1).permute(0, 3, 1, 2)  # [N, C_out, H', W'], channels last in memory

    def extra_repr(self) -> str:
        padding = (
            ""
            if not self.pad
            else f", pad={self.pad} with {self.pad_value if self.pad_value is not None else 'border'}"
        )
        return f"{self.in_channels}, {self.out_channels}, {self.kernel_size[0]}{padding}, weights {self.weight_operand}"


class QuantLinear(QuantLayer, nn.Linear):
    """Fully connected layer with quantized weights, [N, in] to [N, out]; arguments as of ``QuantConv2d``."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        bias: bool = False,
        weight_operand: str = "binary",
        weight_scale: str = "none",
        balance: bool = False,
    ) -> None:
        super().__init__(inputs, outputs, bias=bias)
        self.balance = balance
        self.weight_operand = weight_operand
        self.weight_scale = weight_scale if weight_operand in ("binary", "ternary") else "none"

    def forward(self, x: Tensor) -> Tensor:
        return self.scaled(F.linear(x, self.quantized_weight()))

    def scaled(self, y: Tensor) -> Tensor:
        """The sums with scale and bias; [N, out]."""
        if self.weight_scale != "none":
            y = y * weight_scale(self.weight, self.weight_operand, self.weight_scale)[:, 0]
        return y if self.bias is None else y + self.bias

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, weights {self.weight_operand}"


class QuantAct(nn.Module):
    """Activation of any shape: sign, ternary, fixed point of the range [-1, 1), or ReLU for ``float``.

    A ternary activation compares with a threshold of the batch while it trains (``bnnlib/nn/thresholds.py``), and with
    the running mean of that in eval mode, so that a prediction does not depend on its batch.

    Args:
        operand: ``binary``, ``ternary``, ``fixedK`` or ``float``.
        estimator: gradient stand-in, a key of ``quantizers.GRADIENTS`` or ``ANNEALED``.
        beta: steepness of the ``swish`` estimator.
        batch_threshold: take the threshold from the batch in eval mode too, as the released code does.
        threshold: of what a ternary activation takes its threshold: ``estimator``, of the input as the estimator's
            function bounds it (the released code), or ``input``, of the input as it is (TBN).

    Attributes:
        progress: share of the training that is over, for annealed estimators; who trains sets it.
    """

    progress = 0.0

    def __init__(
        self,
        operand: str,
        estimator: str = "clip",
        beta: float = 10.0,
        batch_threshold: bool = False,
        threshold: str = "estimator",
    ) -> None:
        super().__init__()
        self.operand, self.estimator, self.beta, self.batch_threshold = operand, estimator, beta, batch_threshold
        self.believed = estimator if threshold == "estimator" else "identity"  # whose function the threshold is of
        if operand == "ternary":
            self.register_buffer("running_threshold", torch.tensor(unit_normal_threshold(self.believed, beta)))

    def forward(self, x: Tensor) -> Tensor:
        if self.operand == "float":
            return F.relu(x)
        latent = x.detach()
        if self.operand == "binary":
            value = binary(latent)
        elif self.operand == "ternary":
            value = ternary(latent, self._threshold(latent))
        else:
            value = fixed_point(latent, int(self.operand.removeprefix("fixed")))
        return estimate(x, value, self.estimator, self.beta, self.progress)

    def _threshold(self, x: Tensor) -> Tensor:
        if not self.training and not self.batch_threshold:
            return self.running_threshold
        threshold = activation_threshold(x.float(), self.believed, self.beta)
        if self.training:
            self.running_threshold.lerp_(threshold, 0.1)  # batch norm's momentum
        return threshold

    def extra_repr(self) -> str:
        ternary_threshold = f", threshold of {self.believed}" if self.operand == "ternary" else ""
        return f"{self.operand}, estimator={self.estimator}{ternary_threshold}"


def set_gradient_bits(model: nn.Sequential, bits: int) -> None:
    """Let the gradients of the sums be quantized in training, in convolutions of binary or ternary weights and inputs.

    Args:
        model: a network of ``models.build``.
        bits: 0 for float32.
    """
    few, inputs = ("binary", "ternary"), ""
    for module in model.modules():
        if isinstance(module, QuantAct):
            inputs = module.operand
        elif isinstance(module, QuantConv2d):
            module.gradient_bits = bits if module.weight_operand in few and inputs in few else 0


def layers_with(model: nn.Module, *operands: str) -> list[nn.Module]:
    """The layers of a network whose weights have one of these operands, such as ``binary``."""
    return [
        module for module in model.modules() if isinstance(module, QuantLayer) and module.weight_operand in operands
    ]


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Every module in eval mode (nothing running is updated), and back to the mode that each had."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
