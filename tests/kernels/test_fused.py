"""Training steps in bytes and bits against torch: the same products, the same gradients, the same statistics."""

import copy
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bnnlib import UserError, build
from bnnlib.bench import commits
from bnnlib.cli.bench import benchmarks
from bnnlib.kernels import forward, fused, lookups, processor, tables, threads
from bnnlib.kernels.lookup_simd import DIGIT
from bnnlib.nn.gradient_quantizer import gradient_levels, quantized_gradient
from bnnlib.nn.layers import QuantAct, QuantConv2d, set_gradient_bits
from bnnlib.paths import ROOT
from bnnlib.specs import ARCHS, ModelSpec, RunSpec, TrainSpec
from bnnlib.training.loop import Training

pytestmark = pytest.mark.skipif(not processor.looks_up_in_vectors(), reason="needs AVX2")
OPERANDS = ["binary", "ternary"]


def operand(generator: np.random.Generator, kind: str, *shape: int) -> np.ndarray:
    values = generator.integers(0, 2, shape) * 2 - 1 if kind == "binary" else generator.integers(-1, 2, shape)
    return values.astype(np.int8)


def channels_first(array: np.ndarray) -> torch.Tensor:
    return torch.tensor(array).permute(0, 3, 1, 2).double()


@given(
    n=st.integers(1, 9), height=st.integers(1, 6), width=st.integers(1, 9), kernel=st.integers(1, 5),
    channels=st.sampled_from([32, 64, 96]), outputs=st.sampled_from([32, 96, 1056]), act=st.sampled_from(OPERANDS),
    weight=st.sampled_from(OPERANDS), most=st.sampled_from([1, 7, 31, 127]), seed=st.integers(0, 2**31),
)  # fmt: skip
@settings(max_examples=30, deadline=None)
def test_products_of_the_backward_pass_are_exact(n, height, width, kernel, channels, outputs, act, weight, most, seed):
    generator = np.random.default_rng(seed)
    x = operand(generator, act, n, height + kernel - 1, width + kernel - 1, channels)
    w = operand(generator, weight, outputs, kernel, kernel, channels)
    grad = generator.integers(-most, most + 1, (n, height, width, outputs)).astype(np.int8)
    ours, other = channels_first(x).requires_grad_(), channels_first(w).requires_grad_()
    F.conv2d(ours, other).backward(channels_first(grad))
    planes = 1 + (act == "ternary"), 1 + (weight == "ternary")
    digits = 1 if most <= DIGIT else 2
    dx, dw = fused._products(torch.tensor(grad), digits, torch.tensor(x), torch.tensor(w), *planes)
    assert torch.equal(dx.double(), planes[1] * ours.grad.permute(0, 2, 3, 1))
    assert torch.equal(dw.double(), planes[0] * other.grad.permute(0, 2, 3, 1))


@pytest.mark.parametrize("shape", [(60, 8, 9, 5, 32), (40, 2, 3, 3, 32), (1, 3, 1028, 1, 32), (1, 40, 40, 3, 64)])
def test_many_products_of_one_sign_do_not_overflow(shape):
    """The largest sums that there are, over many images and places: 16 bits hold so many lookups and not more."""
    n, height, width, kernel, channels = shape
    x = np.ones((n, height + kernel - 1, width + kernel - 1, channels), np.int8)
    w = np.ones((1056, kernel, kernel, channels), np.int8)
    grad = torch.full((n, height, width, 1056), DIGIT, dtype=torch.int8)
    dx, dw = fused._products(grad, 1, torch.tensor(x), torch.tensor(w), 1, 1)
    assert (dw == DIGIT * n * height * width).all()
    taps = F.conv_transpose2d(torch.ones(1, 1, height, width), torch.ones(1, 1, kernel, kernel))[0, 0]
    assert torch.equal(dx[0, :, :, 0].float(), 1056 * DIGIT * taps)


OTHER_PROCESSOR = """
import sys, numpy as np, torch
from bnnlib.kernels import fused, processor, tables
assert processor.looks_up_in_vectors() and processor.widest_lookup() == 32
x, w, grad = (torch.tensor(array) for array in np.load(sys.argv[1]).values())
dx, dw = fused._products(grad, 1, x, w, 2, 1)
np.savez(sys.argv[2], y=tables.convolution(x, w, "ternary", "binary"), dx=dx, dw=dw)
"""


@pytest.mark.slow
@pytest.mark.skipif(processor.looks_up_in_vectors() and processor.widest_lookup() == 32, reason="has no AVX-512")
def test_a_processor_without_avx512_gives_the_same(tmp_path):
    generator = np.random.default_rng(0)
    x, w = operand(generator, "ternary", 3, 6, 7, 64), operand(generator, "binary", 96, 3, 3, 64)
    grad = generator.integers(-DIGIT, DIGIT + 1, (3, 4, 5, 96)).astype(np.int8)
    np.savez(tmp_path / "in.npz", x, w, grad)
    features = "+avx,+avx2,+popcnt,+sse4.2,+ssse3"
    forced = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": features, "NUMBA_CACHE_DIR": str(tmp_path)}
    files = [str(tmp_path / name) for name in ("in.npz", "out.npz")]
    environment = os.environ | forced | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", OTHER_PROCESSOR, *files], check=True, env=environment)
    x, w, grad = (torch.tensor(array) for array in (x, w, grad))
    dx, dw = fused._products(grad, 1, x, w, 2, 1)
    found = np.load(files[1])
    np.testing.assert_array_equal(found["y"], tables.convolution(x, w, "ternary", "binary"))
    np.testing.assert_array_equal(found["dx"], dx)
    np.testing.assert_array_equal(found["dw"], dw)


@given(
    n=st.integers(1, 4), height=st.integers(1, 9), width=st.integers(1, 9), kernel=st.integers(1, 3),
    channels=st.sampled_from([32, 64, 160]), outputs=st.sampled_from([32, 64, 96]), act=st.sampled_from(OPERANDS),
    weight=st.sampled_from(OPERANDS), seed=st.integers(0, 2**31),
)  # fmt: skip
@settings(max_examples=30, deadline=None)
def test_forward_sums_are_exact(n, height, width, kernel, channels, outputs, act, weight, seed):
    generator = np.random.default_rng(seed)
    x = operand(generator, act, n, height + kernel - 1, width + kernel - 1, channels)
    w = operand(generator, weight, outputs, kernel, kernel, channels)
    sums = tables.convolution(torch.tensor(x), torch.tensor(w), act, weight)
    assert torch.equal(sums.double(), F.conv2d(channels_first(x), channels_first(w)).permute(0, 2, 3, 1))


@given(
    n=st.integers(1, 3), size=st.integers(5, 9), kernel=st.integers(1, 5), channels=st.integers(1, 4),
    seed=st.integers(0, 2**31),
)  # fmt: skip
@settings(max_examples=20, deadline=None)
def test_convolution_of_images_is_torchs(n, size, kernel, channels, seed):
    torch.manual_seed(seed)
    x = torch.randint(-255, 256, (n, channels, size, size + 1)).float()
    w = (torch.randint(0, 2, (32, channels, kernel, kernel)) * 2.0 - 1).requires_grad_()
    torchs = w.detach().clone().requires_grad_()
    y, expected = forward._ImageConvolution.apply(x, w), F.conv2d(x, torchs)
    assert torch.equal(y.permute(0, 3, 1, 2), expected)
    grad = torch.randn(expected.shape)
    expected.backward(grad)
    y.backward(grad.permute(0, 2, 3, 1).contiguous())
    torch.testing.assert_close(w.grad, torchs.grad, rtol=1e-4, atol=1e-2)


@given(bits=st.integers(4, 8), scale=st.floats(1e-20, 1e10), seed=st.integers(0, 2**31))
@settings(max_examples=50, deadline=None)
def test_a_quantized_gradient_is_the_nearest_of_few(bits, scale, seed):
    torch.manual_seed(seed)
    grad = torch.randn(3, 5) * scale
    levels, unit = gradient_levels(grad, bits)
    most = 2 ** (bits - 1) - 1
    assert levels.abs().max() == most and torch.equal(levels, levels.round())
    assert ((levels * unit - grad).abs() <= 0.5001 * unit).all()
    x = torch.randn(3, 5, requires_grad=True)
    quantized_gradient(x, bits).backward(grad)
    assert torch.equal(x.grad, levels * unit)
    mine = torch.empty(grad.numel(), dtype=torch.int8)
    threads.run(lookups.quantize, grad.view(-1), most / float(grad.abs().max()), mine)
    assert torch.equal(mine.float(), levels.view(-1))


def test_no_gradient_at_all_stays_none_at_all():
    levels, unit = gradient_levels(torch.zeros(2, 3), 6)
    assert not levels.any() and unit == 0
    x = torch.randn(2, 3, requires_grad=True)
    quantized_gradient(x, 0).backward(torch.ones(2, 3) / 3)
    assert torch.equal(x.grad, torch.ones(2, 3) / 3)


def test_gradients_are_quantized_where_both_operands_are_few():
    model = build(ModelSpec("vggnet7", "bb8btfbbb", "bbtb8bbb"))
    set_gradient_bits(model, 6)
    bits = {name: m.gradient_bits for name, m in model.named_modules() if isinstance(m, QuantConv2d)}
    # conv1 sees the image, conv3 has 8-bit weights, conv6 is float, conv5 sees binary and conv6 8-bit inputs
    assert bits == {"conv1": 0, "conv2": 6, "conv3": 0, "conv4": 6, "conv5": 6, "conv6": 0}


@pytest.mark.parametrize("bits", [6, 8])
@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("act", OPERANDS)
@pytest.mark.parametrize("weight", OPERANDS)
@pytest.mark.parametrize("estimator", ["clip", "identity"])
def test_a_step_is_that_of_torch(bits, pooled, act, weight, estimator):
    """Sums to the last bit, gradients and running statistics to the rounding of a batch norm (torch in float64)."""
    torch.manual_seed(bits)
    norm, quantizer = nn.BatchNorm2d(64), QuantAct(act, estimator)
    layer = QuantConv2d(64, 96, 3, pad=1, pad_value=None, weight_operand=weight)
    nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
    plain = nn.Sequential(norm, quantizer, layer, *[nn.MaxPool2d(2)] * pooled)
    layer.gradient_bits = bits
    quick, plain = copy.deepcopy(plain), plain.double()
    quantizer.float()  # its threshold
    y = torch.randint(-60, 60, (5, 64, 7, 9)).float()
    ours, torchs = y.clone().requires_grad_(), y.double().requires_grad_()
    assert fused.fits(*quick[:3], ours)
    found, expected = fused.step(*quick[:3], ours, pooled), plain(torchs)
    assert torch.equal(found.double(), expected)
    grad = torch.randn(expected.shape)
    expected.backward(grad.double())
    found.backward(grad)
    for a, b in zip((ours, *quick.parameters()), (torchs, *plain.parameters()), strict=True):
        assert (a.grad - b.grad).norm() <= 1e-5 * b.grad.norm()
    for a, b in zip(quick.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(a.double(), b.double(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_a_number_stops_the_training(value):
    norm, act, layer = nn.BatchNorm2d(32), QuantAct("binary"), QuantConv2d(32, 32, 3)
    layer.gradient_bits = 6
    y = torch.randn(2, 32, 5, 5, requires_grad=True)
    grad = torch.ones(2, 32, 3, 3)
    grad[1, 2, 0, 0] = value
    with pytest.raises(ValueError, match="gradient that is not finite; the training has diverged"):
        fused.step(norm, act, layer, y, False).backward(grad)
    with torch.no_grad():
        y[0, 3, 1, 2] = value
    with pytest.raises(ValueError, match="cannot quantize NaN"):
        fused.step(norm, act, layer, y, False)


SPECS = [
    ModelSpec("vggnet7", "bbbbbbbbb", "bbbbbbbb", 0.25), ModelSpec("vggnet7", "8btbttbb8", "btbtbttb", 0.25),
    ModelSpec("vggnet7", "bbbbbbbbb", "bbbbbbbb", 0.25, estimator="bireal"), ModelSpec("lenet5", "bbbb", "btb"),
    ModelSpec("lenet5", "bbbb", "bbb", order="CBAP"), ModelSpec("vggnet7", "bbbbbbbbb", "bbbbbbbb", 0.25, bias=True),
]  # fmt: skip


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: f"{s.arch}-{s.weights}-{s.acts}-{s.hash}")
def test_a_network_learns_what_torch_learns(spec):
    """Sums of real numbers in another order put some gradients on the other side of a rounding, and not more."""
    torch.manual_seed(1)
    plain, quick = build(spec), build(spec)
    quick.load_state_dict(plain.state_dict())
    for model in (plain, quick):
        set_gradient_bits(model, 8)
    x, y = torch.randint(0, 256, (12, *ARCHS[spec.arch].image), dtype=torch.uint8), torch.randint(0, 10, (12,))
    expected, logits = plain(x), forward.forward(quick, x)
    torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-3)
    F.cross_entropy(expected, y).backward()
    F.cross_entropy(logits, y).backward()
    for (name, a), b in zip(plain.named_parameters(), quick.parameters(), strict=True):
        if a.grad.norm() > 1e-4:  # that of a bias before a batch norm is nothing but rounding
            assert F.cosine_similarity(a.grad.flatten(), b.grad.flatten(), 0) > 0.9, name


def test_sums_that_are_too_long_are_left_to_torch():
    norm, act = nn.BatchNorm2d(2048), QuantAct("binary")
    y = torch.empty(1, 2048, 1, 1)
    for kernel, fits in ((2, True), (3, False)):
        layer = QuantConv2d(2048, 32, kernel)
        layer.gradient_bits = 6
        assert fused.fits(norm, act, layer, y) is fits


def test_fused_steps_are_taken_where_they_fit():
    calls = []
    spec, real = ModelSpec("vggnet7", "bbbbbbbbb", "bbbbbbbb", 0.25), fused.step
    model = build(spec)
    set_gradient_bits(model, 6)
    x = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused, "step", lambda *a: calls.append(a[2]) or real(*a))
        forward.forward(model, x)
        assert calls == [model.conv2, model.conv3, model.conv4, model.conv5, model.conv6]
        calls.clear()
        forward.forward(model.eval(), x)  # evaluation is torch's batch norm, as packed networks have it
        set_gradient_bits(model.train(), 0)
        forward.forward(model, x)
    assert not calls


@pytest.mark.slow
def test_threads_do_not_change_what_a_step_learns():
    """All sums of products are integers, so that only those of the batch norms depend on their order."""
    before, grads = torch.get_num_threads(), []
    spec = ModelSpec("vggnet7", "bbbbbbbbb", "bbtbbbbb", 0.25)
    x = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for count in (1, 2):
        torch.set_num_threads(count)
        torch.manual_seed(0)
        model = build(spec)
        set_gradient_bits(model, 6)
        F.cross_entropy(forward.forward(model, x), torch.arange(6)).backward()
        grads.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    torch.set_num_threads(before)
    assert F.cosine_similarity(*grads, 0) > 0.9


def test_training_follows_the_spec():
    run = RunSpec(ModelSpec("lenet5", "bbbb", "bbb"), TrainSpec("digits", 1, train_images=100, gradient_bits=6), 0)
    state = Training(run)
    assert state.model.conv2.gradient_bits == 6 and state.model.conv1.gradient_bits == 0
    assert run.train.but(gradient_bits=0).as_dict() == TrainSpec("digits", 1, train_images=100).as_dict()


def test_another_checkout_is_timed_beside_this_one(tmp_path):
    small = RunSpec(ModelSpec("vggnet7", "ttttttttt", "tttttttt", 0.25), TrainSpec("cifar10", 1, batch=4), 0)
    assert commits._images_per_second(ROOT, small, 0.01) > 0
    with pytest.raises(UserError, match="no checkout of this project; make one: git worktree add"):
        next(commits.against(tmp_path, 0.01, 1))
    with pytest.raises(UserError, match="0 rounds of 1 seconds measure nothing"):
        next(commits.against(ROOT, 1, 0))
    asked = CliRunner().invoke(benchmarks, ["training", "--against", str(ROOT), "--network", "lenet5"])
    assert isinstance(asked.exception, UserError) and "leave out --network" in str(asked.exception)
    (tmp_path / "bnnlib").mkdir()
    for module in ("__init__.py", "specs.py"):
        (tmp_path / "bnnlib" / module).touch()
    with pytest.raises(UserError, match="cannot train ttttttttt: ImportError"):
        commits._images_per_second(tmp_path, small, 0.01)
