"""The references for estimators: closed forms against sampling, the sum over all patterns against brute force."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats

from bnnlib.nn import exact_gradients
from bnnlib.nn.quantizers import GRADIENTS, binary

X = torch.linspace(-3, 3, 61, dtype=torch.float64)


@pytest.mark.parametrize("width", [0.1, 0.7, 2.0])
def test_smoothed_sign_is_the_mean_of_noisy_signs(width):
    """In closed form, P(+1) - P(-1) of scipy; and by sampling."""
    np.testing.assert_allclose(exact_gradients.smoothed_sign(X, width), 2 * stats.norm.cdf(X / width) - 1, atol=1e-12)
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal((20_000, 1)))
    sampled = binary(X + width * noise).mean(0)
    assert (sampled - exact_gradients.smoothed_sign(X, width)).abs().max() < 5 / 20_000**0.5


@pytest.mark.parametrize("width", [0.1, 0.7, 2.0])
def test_smoothed_gradient_is_its_derivative(width):
    x = X.clone().requires_grad_()
    exact_gradients.smoothed_sign(x, width).sum().backward()
    torch.testing.assert_close(exact_gradients.smoothed_gradient(X, width), x.grad)


def test_patterns_are_all_and_their_probabilities_those_of_independent_signs():
    every = exact_gradients.patterns(3)
    assert sorted(map(tuple, every.tolist())) == sorted(itertools.product((-1, 1), repeat=3))
    h = torch.tensor([[0.3, -1.0, 0.0], [5.0, 0.1, -0.2]], dtype=torch.float64)
    p = exact_gradients.pattern_probabilities(h, 0.5)
    right = [[np.prod(stats.norm.cdf(a * row / 0.5)) for a in every.numpy()] for row in h.numpy()]
    np.testing.assert_allclose(p, right, rtol=1e-9)


def by_hand(x, labels, layers, width):
    """The expected loss of two hidden layers, one path after another."""
    total = 0.0
    for image, label in zip(x, labels, strict=True):
        for first, second in itertools.product(itertools.product((-1.0, 1.0), repeat=3), repeat=2):
            a, b = (torch.tensor([p], dtype=torch.float64) for p in (first, second))
            h1 = exact_gradients.affine(image[None], *layers[0])
            h2 = exact_gradients.affine(a, *layers[1])
            p = torch.prod(torch.special.ndtr(a * h1 / width)) * torch.prod(torch.special.ndtr(b * h2 / width))
            total = total + p * F.cross_entropy(exact_gradients.affine(b, *layers[2]), label[None])
    return total / len(x)


def test_expected_loss_and_its_gradient_are_those_of_all_paths():
    x, labels, layers = exact_gradients.random_network(0, units=3, hidden=2, images=4)
    exact, slow = (f(x, labels, layers, 0.4) for f in (exact_gradients.expected_loss, by_hand))
    torch.testing.assert_close(exact, slow)
    ours, theirs = (exact_gradients.hidden_gradients(loss, layers) for loss in (exact, slow))
    assert ours.shape == (3 * 17 + 3 * 4,) and ours.norm() > 0.01
    torch.testing.assert_close(ours, theirs)


def test_estimated_loss_is_the_ordinary_network_and_with_noise_its_mean_the_expected_one():
    x, labels, layers = exact_gradients.random_network(1, units=4, hidden=2)
    a = binary(x @ layers[0][0].T / 4 + layers[0][1])
    a = binary(a @ layers[1][0].T / 2 + layers[1][1])
    plain = F.cross_entropy(a @ layers[2][0].T / 2 + layers[2][1], labels)
    for name in [*GRADIENTS, "matched"]:
        loss = exact_gradients.estimated_loss(x, labels, layers, name)
        torch.testing.assert_close(loss, plain)
        assert exact_gradients.hidden_gradients(loss, layers).abs().sum() > 0
    many = exact_gradients.estimated_loss(
        x.repeat(200, 1), labels.repeat(200), layers, "clip", 0.5, np.random.default_rng(0)
    )
    torch.testing.assert_close(many, exact_gradients.expected_loss(x, labels, layers, 0.5), rtol=0.02, atol=0)


def test_matched_is_exact_where_the_loss_is_linear_in_one_layer():
    """For a linear loss of one hidden layer the smoothed gradient is the true one, to rounding."""
    h = torch.linspace(-1, 1, 5, dtype=torch.float64, requires_grad=True)
    slope = torch.tensor([1.0, -2.0, 0.5, 3.0, -1.0], dtype=torch.float64)
    every = exact_gradients.patterns(5)
    (exact_gradients.pattern_probabilities(h[None], 0.3) @ (every @ slope)).sum().backward()
    torch.testing.assert_close(h.grad, slope * exact_gradients.smoothed_gradient(h.detach(), 0.3))
