"""Where a ternary activation is zero: between -t and t, t = 0.4 mean|f(x)| of a batch of inputs x.

f is the function that the activation's estimator believes in: the estimator is its derivative. The paper's released
code passes x through f first, takes t from what comes out, and gives +1 where f(x) > t and -1 where f(x) < -t.

============= =========================================== ====================================================
estimator     f(x)                                        f(x) > t where x is larger than
============= =========================================== ====================================================
identity      x                                           t
clip          min(max(x, -1), 1)                          t, which is at most 0.4
bireal        2 x - x |x| for |x| < 1, else sign(x)       1 - sqrt(1 - t)
swish         2 s (1 + b x (1 - s)) - 1, s = sigmoid(b x) the one x with f(x) = t: f has no value under 1 beyond
ede, reste    as clip                                     t
============= =========================================== ====================================================

So f(x) > t is always one comparison of x itself, and the thresholds here are those of x: what is executed needs no f.
(f of swish rises to 1.2 and falls to 1 again, but t is at most 0.4 * 1.2.)

TBN (ECCV 2018, doi 10.1007/978-3-030-01216-8_20), where the rule comes from, has no f: t = 0.4 mean|x|, as of identity.

NOTE: ede and reste are not in the release. The function of each changes over the training; both take hard tanh, so that
the threshold does not move with it.
"""

from functools import cache

import torch
from torch import Tensor

from bnnlib.nn.quantizers import swish_gradient

FACTOR = 0.4
NEWTON_STEPS = 4  # after which float32 no longer changes, for all t that occur


def activation_threshold(x: Tensor, estimator: str = "identity", beta: float = 10.0) -> Tensor:
    """Ternary threshold of a batch of activations, in the unit of ``x``: f^-1(0.4 mean|f(x)|), a scalar.

    Args:
        x: any shape; float32 or more, as a mean over a batch is no sum for 16 bits.
        estimator: whose f; ``identity`` is the threshold of TBN.
        beta: steepness of ``swish``.
    """
    return _inverse(FACTOR * _believed(x.abs(), estimator, beta).mean(), estimator, beta)


@cache
def unit_normal_threshold(estimator: str, beta: float = 10.0) -> float:
    """The threshold of a standard normal x, which is what a batch norm hands on at first."""
    x = torch.linspace(0, 9, 9001, dtype=torch.float64, device="cpu")  # the kink of hard tanh is one of them
    density = (2 / torch.pi) ** 0.5 * torch.exp(-(x**2) / 2)
    mean = torch.trapezoid(_believed(x.clone(), estimator, beta) * density, x)
    return _inverse(FACTOR * mean, estimator, beta).item()


def _believed(size: Tensor, estimator: str, beta: float) -> Tensor:
    """f of what is not negative, in few passes over ``size``, which it may overwrite; f is odd, so this is |f(x)|."""
    if estimator == "identity":
        return size
    if estimator == "swish":
        half = size.mul_(beta / 2).clamp_(max=20)  # f is 1 beyond
        s = torch.tanh(half)  # 2 sigmoid(b x) - 1
        return s + half * (1 - s * s)
    size.clamp_(max=1)
    return size * (2 - size) if estimator == "bireal" else size


def _inverse(t: Tensor, estimator: str, beta: float) -> Tensor:
    """The x with f(x) = t, for a scalar t from 0 to 0.48; any t for ``identity``."""
    if estimator == "bireal":
        return t / (1 + torch.sqrt(1 - t))  # 1 - sqrt(1 - t) without cancellation
    if estimator == "swish":
        x = t / beta  # f is concave up to its highest value, so that each step of Newton's goes up to x and no further
        for _ in range(NEWTON_STEPS):
            x = x + (t - _believed(x.clone(), estimator, beta)) / swish_gradient(x, beta)
        return x
    return t
