"""Thresholds of ternary activations: the rule of the released code, written anew in float64, for every estimator."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, optimize, stats

from bnnlib import ModelSpec, build
from bnnlib.nn.layers import QuantAct
from bnnlib.nn.thresholds import activation_threshold, unit_normal_threshold


def bireal(x: np.ndarray, beta: float) -> np.ndarray:
    parabolas = np.where(x < 0, 2 * x + x**2, 2 * x - x**2)
    return np.where(x < -1, -1.0, np.where(x >= 1, 1.0, parabolas))


def sign_swish(x: np.ndarray, beta: float) -> np.ndarray:
    s = 1 / (1 + np.exp(-beta * x))
    return 2 * s * (1 + beta * x * (1 - s)) - 1


BELIEVED = {
    "identity": lambda x, beta: x,
    "clip": lambda x, beta: np.clip(x, -1, 1),
    "bireal": bireal,
    "swish": sign_swish,
}
every = pytest.mark.parametrize("estimator", BELIEVED)
batches = st.tuples(st.integers(0, 10**6), st.floats(0.02, 4), st.floats(-1, 1))


def inputs(seed: int, scale: float, shift: float) -> np.ndarray:
    """A batch [50, 40] of float32 numbers."""
    return np.random.default_rng(seed).normal(shift, scale, (50, 40)).astype(np.float32)


def released(x: np.ndarray, estimator: str, beta: float = 10.0) -> tuple[np.ndarray, np.ndarray, float]:
    """Values, which of them are no matter of rounding, and the threshold of f(x)."""
    f = BELIEVED[estimator](x.astype(np.float64), beta)
    t = 0.4 * np.abs(f).mean()
    return np.where(f > t, 1, np.where(f < -t, -1, 0)), np.abs(np.abs(f) - t) > 1e-5, t


def where_it_reaches(t: float, estimator: str, beta: float = 10.0) -> float:
    """The x with f(x) = t, by bisection."""
    top = 2.4 / beta if estimator == "swish" else max(1.0, t)  # up to the highest value of f
    return optimize.brentq(lambda x: float(BELIEVED[estimator](np.float64(x), beta)) - t, 0, top, xtol=1e-14)


@every
@pytest.mark.parametrize("batch_in_eval", [False, True])
@given(batch=batches)
def test_a_batch_is_quantized_as_the_release_does(estimator, batch_in_eval, batch):
    x = inputs(*batch)
    act = QuantAct("ternary", estimator, batch_threshold=batch_in_eval).train(not batch_in_eval)
    expected, clear, _ = released(x, estimator)
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(act(torch.from_numpy(x)).numpy()[clear], expected[clear])


@every
@given(batch=batches, beta=st.sampled_from([2.0, 5.0, 10.0]))
def test_the_running_value_is_the_mean_of_the_batches(estimator, batch, beta):
    seed, scale, shift = batch
    act = QuantAct("ternary", estimator, beta)
    running = act.running_threshold.item()
    for i in range(3):
        x = inputs(seed + i, scale, shift)
        act(torch.from_numpy(x))
        running += 0.1 * (where_it_reaches(released(x, estimator, beta)[2], estimator, beta) - running)
    assert act.running_threshold.item() == pytest.approx(running, rel=1e-5)
    edge = torch.tensor([running * (1 + side * 1e-4) for side in (-1, 1)], dtype=torch.float32)
    assert act.eval()(torch.cat([edge, -edge])).tolist() == [0, 1, 0, -1]


@every
@given(batch=batches)
def test_the_gradient_is_that_of_the_function_that_the_threshold_is_of(estimator, batch):
    numbers = inputs(*batch)
    x = torch.from_numpy(numbers).double().requires_grad_()
    upstream = torch.linspace(-2, 3, x.numel(), dtype=torch.float64).reshape(x.shape)
    QuantAct("ternary", estimator)(x).backward(upstream)
    wide, h = numbers.astype(np.float64), 1e-6
    f = BELIEVED[estimator]
    slope = (f(wide + h, 10.0) - f(wide - h, 10.0)) / (2 * h)
    smooth = np.abs(np.abs(wide) - 1) > 2 * h  # clip has a kink there
    expected = (upstream.numpy() * slope)[smooth]
    np.testing.assert_allclose(x.grad.numpy()[smooth], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("estimator", [*BELIEVED, "ede", "reste"])
@given(batch=batches)
def test_of_the_input_as_it_is_the_rule_is_tbns(estimator, batch):
    x = inputs(*batch)
    act = QuantAct("ternary", estimator, threshold="input")
    assert act.running_threshold.item() == pytest.approx(0.4 * (2 / np.pi) ** 0.5, rel=1e-6)
    expected, clear, t = released(x, "identity")
    np.testing.assert_array_equal(act(torch.from_numpy(x)).numpy()[clear], expected[clear])
    assert activation_threshold(torch.from_numpy(x)).item() == pytest.approx(t, rel=1e-5)


@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("estimator", ["ede", "reste"])
def test_the_annealed_take_hard_tanh_all_along(estimator, progress):
    x = torch.from_numpy(inputs(0, 1.5, 0))
    act = QuantAct("ternary", estimator)
    act.progress = progress
    assert torch.equal(act(x), QuantAct("ternary", "clip")(x))


@every
@pytest.mark.parametrize("beta", [2.0, 10.0])
def test_it_starts_as_a_unit_normal_has_it(estimator, beta):
    mean = 2 * integrate.quad(
        lambda x: float(BELIEVED[estimator](np.float64(x), beta)) * stats.norm.pdf(x), 0, 12, points=(1,)
    )[0]  # fmt: skip
    expected = where_it_reaches(0.4 * mean, estimator, beta)
    assert unit_normal_threshold(estimator, beta) == pytest.approx(expected, rel=1e-6)
    with torch.device("meta"):  # a network may be described without being made
        assert build(ModelSpec("lenet5", "bbbb", "btb", estimator=estimator)).act2.running_threshold.is_meta


def test_for_hard_tanh_that_is_a_quarter_and_without_it_a_third():
    assert unit_normal_threshold("clip") == pytest.approx(0.2525, abs=1e-4)
    assert unit_normal_threshold("identity") == pytest.approx(0.3192, abs=1e-4)


@pytest.mark.parametrize("choice, settled", [("estimator", 0.4), ("input", 1.2)])
def test_a_network_has_the_threshold_that_its_spec_says(choice, settled):
    """What is far out counts as 1 behind hard tanh, and as it is without."""
    act = build(ModelSpec("lenet5", "bbbb", "btb", ternary_threshold=choice)).act2
    for _ in range(150):
        act(torch.full((4, 4), 3.0))
    assert act.running_threshold.item() == pytest.approx(settled, rel=1e-3)
    assert act.eval()(torch.tensor([settled - 0.01, settled + 0.01, -settled - 0.01])).tolist() == [0, 1, -1]
