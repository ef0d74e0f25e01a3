"""What an estimator is measured against: the exact gradient of a sign, and of a small network of signs, under noise.

A sign has no useful derivative, but its mean under Gaussian noise of width s has: E sign(x + s e) is smooth in x. Both
functions of one unit are closed forms. A network of noisy signs is a chain of random patterns of +-1; with few units a
layer all patterns can be summed, so that its gradient is exact too, without any sampling. These are the stochastic
binary networks of Shekhovtsov and Yanush (arXiv 2006.06880), who derive from them when which estimator is justified.
"""

import itertools
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bnnlib.nn.quantizers import binary, estimate

Layers = list[tuple[Tensor, Tensor]]  # weights [out, in] and shifts [out] of each layer, the last one gives logits


def smoothed_sign(x: Tensor, width: float) -> Tensor:
    """E sign(x + width * e) = erf(x / (sqrt(2) width)) for e standard normal; any shape."""
    return torch.erf(x / (math.sqrt(2) * width))


def smoothed_gradient(x: Tensor, width: float) -> Tensor:
    """Its derivative 2 phi(x / width) / width, with phi the standard normal density; any shape."""
    return torch.exp(-0.5 * (x / width) ** 2) * (math.sqrt(2 / math.pi) / width)


def patterns(units: int) -> Tensor:
    """All vectors of +-1, [2^units, units], float64."""
    return 2.0 * (torch.arange(2**units)[:, None] >> torch.arange(units) & 1).double() - 1


def pattern_probabilities(h: Tensor, width: float) -> Tensor:
    """Probability of each pattern of sign(h + width * e): [N, units] to [N, 2^units]; the noise is independent."""
    plus = (1 + patterns(h.shape[1])) / 2
    up, down = torch.special.log_ndtr(h / width), torch.special.log_ndtr(-h / width)
    return torch.exp(up @ plus.T + down @ (1 - plus).T)


def affine(a: Tensor, weight: Tensor, shift: Tensor) -> Tensor:
    """Pre-activations a w / sqrt(fan-in) + shift, [N, in] to [N, out]: of unit variance for entries of +-1."""
    return a @ weight.T / math.sqrt(weight.shape[1]) + shift


def expected_loss(x: Tensor, labels: Tensor, layers: Layers, width: float) -> Tensor:
    """Mean cross entropy of a network whose hidden signs see Gaussian noise: exact, and differentiable by autograd.

    The next pattern depends on the last one alone, so the sum over all of them is a product of matrices.

    Args:
        x: float64 [N, in].
        labels: classes [N].
        layers: all hidden layers of one size, which costs 4^units.
        width: of the noise, in the unit of the pre-activations.
    """
    every = patterns(len(layers[0][1]))
    p = pattern_probabilities(affine(x, *layers[0]), width)  # [N, 2^units]
    for layer in layers[1:-1]:
        p = p @ pattern_probabilities(affine(every, *layer), width)
    losses = -F.log_softmax(affine(every, *layers[-1]), dim=1)  # [2^units, classes]
    return (p * losses[:, labels].T).sum(1).mean()


def estimated_loss(
    x: Tensor,
    labels: Tensor,
    layers: Layers,
    estimator: str,
    width: float = 1.0,
    rng: np.random.Generator | None = None,
) -> Tensor:
    """Mean cross entropy of the same network as it is trained: signs in forward, an estimator in backward.

    Args:
        estimator: a key of ``quantizers.GRADIENTS``, taken at what the sign sees; or ``matched``: ``smoothed_gradient``
            at the pre-activation without its noise, the derivative of the mean of this one unit.
        width: of the noise.
        rng: draws the noise of the forward pass; without it the forward pass has none, the usual way of training.
    """
    a = x
    for layer in layers[:-1]:
        h = affine(a, *layer)
        seen = h if rng is None else h + width * torch.from_numpy(rng.standard_normal(tuple(h.shape)))
        value = binary(seen.detach())
        if estimator == "matched":
            soft = smoothed_sign(h, width)
            a = value + (soft - soft.detach())
        else:
            a = estimate(seen, value, estimator)
    return F.cross_entropy(affine(a, *layers[-1]), labels)


def hidden_gradients(loss: Tensor, layers: Layers) -> Tensor:
    """Gradient of the weights and shifts of all layers but the last, which needs no estimator, as one vector."""
    hidden = [p for layer in layers[:-1] for p in layer]
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, hidden)])


def random_network(seed: int, units: int, hidden: int, images: int = 64) -> tuple[Tensor, Tensor, Layers]:
    """Inputs [images, 16], their classes after a random linear map, and a network of random binary weights for them.

    Weights are +-1 and shifts normal with standard deviation 1/2, float64 and ready for gradients; four classes.
    """
    rng = np.random.default_rng(seed)
    sizes = [16] + [units] * hidden + [4]
    layers = [(rng.choice([-1.0, 1.0], (o, i)), 0.5 * rng.standard_normal(o)) for i, o in itertools.pairwise(sizes)]
    x = rng.standard_normal((images, 16))
    labels = (x @ rng.standard_normal((16, 4))).argmax(1)
    ready = [(torch.from_numpy(w).requires_grad_(), torch.from_numpy(b).requires_grad_()) for w, b in layers]
    return torch.from_numpy(x), torch.from_numpy(labels), ready
