"""Quantizers: properties that hold for all of them, independent oracles, and gradients against closed forms."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bnnlib.nn.quantizers import (
    GRADIENTS,
    binary,
    estimate,
    fixed_point,
    power_of_two_scale,
    swish_gradient,
    ternary,
    weight_threshold,
)

DTYPES = [torch.float16, torch.bfloat16, torch.float32]
QUANTIZERS = {
    "binary": binary,
    "ternary": lambda x: ternary(x, 0.3),
    "fixed2": lambda x: fixed_point(x, 2),
    "fixed4": lambda x: fixed_point(x, 4),
    "fixed8": lambda x: fixed_point(x, 8),
}
numbers = st.floats(-60000, 60000, width=16) | st.floats(-2, 2, width=16) | st.sampled_from([0.0, -0.0, 1.0, -1.0])
lists = st.lists(numbers, min_size=1, max_size=30)
every = pytest.mark.parametrize("name", QUANTIZERS)


@every
@given(values=lists, dtype=st.sampled_from(DTYPES))
def test_idempotent_in_range_and_same_kind(name, values, dtype):
    x = torch.tensor(values, dtype=dtype)
    before = x.clone()
    y = QUANTIZERS[name](x)
    assert torch.equal(x, before), "the input was changed"
    assert y.shape == x.shape and y.dtype == x.dtype
    assert torch.equal(QUANTIZERS[name](y), y)
    assert y.min() >= -1 and y.max() <= 1


@every
@given(values=lists, dtype=st.sampled_from(DTYPES))
def test_monotone(name, values, dtype):
    x = torch.tensor(sorted(values), dtype=dtype)
    assert (QUANTIZERS[name](x).float().diff() >= 0).all()


@pytest.mark.parametrize("name", ["binary", "ternary"])
@given(values=lists, dtype=st.sampled_from(DTYPES))
def test_odd_up_to_zero(name, values, dtype):
    x = torch.tensor(values, dtype=dtype)
    x = x[x != 0]
    assert torch.equal(QUANTIZERS[name](-x), -QUANTIZERS[name](x))


@given(values=lists, bits=st.integers(2, 8))
def test_fixed_point_is_odd_but_for_its_lowest_code(values, bits):
    x = torch.tensor(values)
    top = 1 - 2.0 ** (1 - bits)
    assert torch.equal(fixed_point(-x, bits).clamp(max=top, min=-top), -fixed_point(x, bits).clamp(min=-top, max=top))


@pytest.mark.parametrize("dtype", DTYPES)
def test_sign_of_zero_is_plus_one(dtype):
    """The released code has -1 here."""
    assert binary(torch.tensor([0.0, -0.0], dtype=dtype)).tolist() == [1, 1]


@every
@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_is_refused(name, dtype):
    x = torch.ones(3, 4, dtype=dtype)
    x[1, 2] = float("nan")
    with pytest.raises(ValueError, match="NaN"):
        QUANTIZERS[name](x)


@given(values=lists, threshold=st.floats(0, 3, width=32))
def test_ternary_of_a_threshold_in_a_tensor_on_any_device_is_the_same(values, threshold):
    """A CUDA device keeps the threshold, for which this stands: the operators there."""
    x, t = torch.tensor(values), torch.tensor(threshold)
    elsewhere = x.sub(x.clamp(-t, t)).sign()
    assert torch.equal(ternary(x, t), elsewhere) and torch.equal(ternary(x, threshold), elsewhere)


@every
def test_infinities_saturate_and_empty_stays_empty(name):
    y = QUANTIZERS[name](torch.tensor([float("-inf"), float("inf")]))
    assert y[0] == -1 and 0.5 <= y[1] <= 1
    assert QUANTIZERS[name](torch.zeros(0, 3)).shape == (0, 3)


@given(values=lists, bits=st.integers(2, 16), exponent=st.integers(-6, 6))
def test_fixed_point_against_integers(values, bits, exponent):
    scale = 2.0**exponent
    levels = 2 ** (bits - 1)
    codes = np.clip(np.rint(np.array(values, dtype=np.float64) / scale * levels), -levels, levels - 1).astype(int)
    ours = fixed_point(torch.tensor(values, dtype=torch.float64), bits, scale)
    assert ours.tolist() == (codes * scale / levels).tolist()


@pytest.mark.parametrize("bits", [1, 0, -3])
def test_fixed_point_of_too_few_bits_is_refused(bits):
    with pytest.raises(ValueError, match=f"fixed point of {bits} bits"):
        fixed_point(torch.ones(2), bits)


@given(values=st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=50))
def test_the_threshold_of_weights_is_the_papers_and_cuts_there(values):
    x = torch.tensor(values)
    mean = np.abs(np.array(values, dtype=np.float64)).mean()
    assert weight_threshold(x).item() == pytest.approx(0.7 * mean, rel=1e-5, abs=1e-12)
    t = weight_threshold(x)
    expected = [1 if v > t else -1 if v < -t else 0 for v in x]
    assert ternary(x, t).tolist() == expected


@given(values=lists)
def test_power_of_two_scale_just_covers(values):
    x = torch.tensor(values)
    scale, largest = power_of_two_scale(x).item(), x.abs().max().item()
    assert np.log2(scale) == int(np.log2(scale))
    assert scale == 1 if largest == 0 else scale / 2 < largest <= scale


CLOSED_FORMS = {
    "identity": lambda x: np.ones_like(x),
    "clip": lambda x: (np.abs(x) < 1).astype(float),
    "bireal": lambda x: np.where(np.abs(x) < 1, 2 - 2 * np.abs(x), 0),
    # written as in BNN+, where it is not yet rearranged against overflow
    "swish": lambda x: 10 * (2 - 10 * x * np.tanh(10 * x / 2)) / (1 + np.cosh(10 * x)),
}


@pytest.mark.parametrize("name", GRADIENTS)
@given(values=st.lists(st.floats(-3, 3), min_size=1, max_size=40))
def test_gradients_are_their_closed_forms(name, values):
    x = torch.tensor(values, dtype=torch.float64, requires_grad=True)
    upstream = torch.linspace(-2, 3, len(values), dtype=torch.float64)
    estimate(x, binary(x.detach()), name).backward(upstream)
    np.testing.assert_allclose(x.grad, upstream.numpy() * CLOSED_FORMS[name](np.array(values)), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("beta", [1.0, 5.0, 10.0])
def test_swish_is_the_derivative_of_signswish(beta):
    x = torch.linspace(-3, 3, 1001, dtype=torch.float64, requires_grad=True)
    s = torch.sigmoid(beta * x)
    (2 * s * (1 + beta * x * (1 - s)) - 1).sum().backward()
    torch.testing.assert_close(swish_gradient(x.detach(), beta), x.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", GRADIENTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_stay_finite_far_out(name, dtype):
    x = torch.tensor([-1e4, -50.0, 0.0, 50.0, 1e4], dtype=dtype)
    assert torch.isfinite(GRADIENTS[name](x)).all()


@pytest.mark.parametrize("name", ["clip", "bireal"])
def test_bounded_estimators_stop_at_one(name):
    assert GRADIENTS[name](torch.tensor([-1.0, 1.0, 1.5])).tolist() == [0, 0, 0]


def test_estimate_gives_the_value_and_beta_matters():
    x = torch.tensor([0.2, -0.1], requires_grad=True)
    y = estimate(x, binary(x.detach()), "swish", beta=2.0)
    assert y.tolist() == [1, -1]
    y.sum().backward()
    torch.testing.assert_close(x.grad, swish_gradient(x.detach(), 2.0))
    assert not torch.allclose(x.grad, swish_gradient(x.detach(), 10.0))
