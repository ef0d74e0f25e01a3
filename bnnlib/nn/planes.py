"""Layers that quantize their real-valued input themselves, into one or more planes of ±1, each times a scale.

The methods that the paper's figure compares with, beside plain binary and ternary activations. With q_m the planes of
an input x, s_m their scales and c a constant, x is replaced by ``sum_m s_m q_m + c``:

======== ================================== ============================= ==========================================
form     planes                             scales                        source
======== ================================== ============================= ==========================================
xnor     sign(x)                            K = mean |x| of the patch     XNOR-Net, arXiv 1603.05279, section 3.2
horq     sign(x), sign(|x| - K) sign(x)     K, mean ||x| - K| of the      HORQ, arXiv 1708.08687, order two
                                            patch
dorefaK  2 bit_m - 1 of the K-bit number    2^m / (2 (2^K - 1)), c = 1/2  DoReFa-Net, arXiv 1606.06160, equations 5
         round((2^K - 1) min(max(x, 0), 1))                               and 3
======== ================================== ============================= ==========================================

A patch is what one output of a convolution sees; for a fully connected layer, the whole input of an image. In inference
every plane is a product of its own, which is what is costed; in training the weights meet the sum of the planes at
once, which is the same number. The gradient of the input is that of the estimator (for dorefa: 1 within [0, 1]); scales
are taken as constants.

NOTE: HORQ's second plane depends on the patch, since K does; that its scales are taken for every patch is recalled, not
read (see HORQ in data/literature.csv). What is not a product - comparisons, the difference |x| - K - is not counted.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnnlib.nn.layers import QuantConv2d, QuantLinear
from bnnlib.nn.quantizers import binary, estimate

PATCHED_IMAGES = 10  # at once: patches hold a convolution's input k x k times


class MeanMagnitude(nn.Module):
    """Mean of |x| over each dot product of a layer, by sums with weights of one: [..., in] to [..., 1].

    It is summed as the values come, before they are quantized, so that nothing of it is stored.
    """

    # an addition is a product with ±1; no weight_operand, which says that there are weights to train
    ones_operand, input_operand, stored = "binary", "float", False

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.abs(), x.new_ones(1, x.shape[-1])) / x.shape[-1]


class MeanMagnitude2d(MeanMagnitude):
    """The same for every patch of k x k, first over channels and then over pixels: [N, C, H, W] to [N, 1, H', W']."""

    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.kernel = kernel

    def forward(self, x: Tensor) -> Tensor:
        sums = F.conv2d(x.abs(), x.new_ones(1, x.shape[1], 1, 1))
        return F.conv2d(sums, x.new_ones(1, 1, self.kernel, self.kernel)) / (x.shape[1] * self.kernel**2)


class Multiply(nn.Module):
    """y times a real scale that broadcasts, one multiplication per value: what no batch norm can take in."""

    act, weight = "float", "float"

    def forward(self, y: Tensor, scale: Tensor) -> Tensor:
        return y * scale


class Plane(nn.Module):
    """Says that what passes is ±1: the operand of the product that follows."""

    operand = "binary"

    def forward(self, x: Tensor) -> Tensor:
        return x


class _Planes:
    """What the layers below share. They say what a product (``_product``) and a patch (``_patches``) is."""

    progress = 0.0  # as of QuantAct

    def _set_up(self, form: str, estimator: str, beta: float, magnitude: MeanMagnitude) -> None:
        self.form, self.estimator, self.beta = form, estimator, beta
        self.plane = Plane()
        if form in ("xnor", "horq"):
            self.magnitude, self.multiply = magnitude, Multiply()
        if form == "horq":
            self.rest_magnitude, self.rest_multiply = MeanMagnitude(), Multiply()

    def forward(self, x: Tensor) -> Tensor:
        w = self.quantized_weight()
        x = self.padded(x)
        if self.form == "horq":
            return self.scaled(torch.cat([self._horq(part, w) for part in x.split(PATCHED_IMAGES)]))
        return self.scaled(self._xnor(x, w) if self.form == "xnor" else self._dorefa(x, w))

    def _xnor(self, x: Tensor, w: Tensor) -> Tensor:
        scale = self.magnitude(x.detach())
        signs = estimate(x, binary(x.detach()), self.estimator, self.beta, self.progress)
        return self.multiply(self._product(self.plane(signs), w), scale)

    def _horq(self, x: Tensor, w: Tensor) -> Tensor:
        rows = w.flatten(1)  # [O, in]
        with torch.no_grad():
            scale = self.magnitude(x)
            scale = scale.movedim(1, -1) if x.ndim == 4 else scale  # [N, ..., 1]
            first = self._patches(binary(x))  # [N, ..., in]
            rest = self._patches(x.abs()) - scale
            second, rest_scale = binary(rest) * first, self.rest_magnitude(rest)
        if not self.training:
            y = self.multiply(F.linear(self.plane(first), rows), scale)
            y = y + self.rest_multiply(F.linear(self.plane(second), rows), rest_scale)
            return y.movedim(-1, 1)
        y = F.linear(first.mul_(scale).addcmul_(second, rest_scale), rows).movedim(-1, 1)
        # what has the gradient of the input: backward through patches is slow, through a convolution it is not
        through = self._product(estimate(x, x.detach(), self.estimator, self.beta, self.progress), w.detach())
        return y + (through - through.detach())

    def _dorefa(self, x: Tensor, w: Tensor) -> Tensor:
        most = 2 ** int(self.form[-1]) - 1
        number = (most * x.detach().clamp(0, 1)).round()
        if self.training:
            inside = x.clamp(0, 1)
            return self._product(estimate(inside, number / most), w)
        constant = w.flatten(1).sum(1).view(-1, *[1] * (x.ndim - 2)) / 2  # of each output; batch norm takes it in
        for m in range(most.bit_length()):
            bit = torch.div(number, 2**m, rounding_mode="floor") % 2
            constant = constant + self._product(self.plane(2 * bit - 1), w) * (2**m / (2 * most))  # a shift
        return constant


class PlaneConv2d(_Planes, QuantConv2d):
    """``QuantConv2d`` of a real-valued input, [N, C_in, H, W] to [N, C_out, H', W'].

    Args:
        form: a row of the table above.
        estimator: gradient stand-in of the sign, a key of ``quantizers.GRADIENTS`` or ``ANNEALED``.
        beta: steepness of the ``swish`` estimator.
        arguments: those of ``QuantConv2d``.
    """

    def __init__(self, *sizes: int, form: str, estimator: str = "clip", beta: float = 10.0, **arguments) -> None:
        super().__init__(*sizes, **arguments)
        self._set_up(form, estimator, beta, MeanMagnitude2d(self.kernel_size[0]))

    def _product(self, x: Tensor, w: Tensor) -> Tensor:
        return F.conv2d(x, w)

    def _patches(self, x: Tensor) -> Tensor:
        k = self.kernel_size[0]
        return x.unfold(2, k, 1).unfold(3, k, 1).permute(0, 2, 3, 1, 4, 5).flatten(3)


class PlaneLinear(_Planes, QuantLinear):
    """``QuantLinear`` of a real-valued input, [N, in] to [N, out]; arguments as of ``PlaneConv2d``."""

    def __init__(self, *sizes: int, form: str, estimator: str = "clip", beta: float = 10.0, **arguments) -> None:
        super().__init__(*sizes, **arguments)
        self._set_up(form, estimator, beta, MeanMagnitude())

    def padded(self, x: Tensor) -> Tensor:
        return x

    def _product(self, x: Tensor, w: Tensor) -> Tensor:
        return F.linear(x, w)

    def _patches(self, x: Tensor) -> Tensor:
        return x
