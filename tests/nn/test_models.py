"""Layers and networks: shapes, operands that really occur, every option, and convolutions against a plain loop."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bnnlib import ModelSpec, build
from bnnlib.nn.layers import QuantConv2d, QuantLinear, quantize_weight
from bnnlib.operands import OPERANDS
from bnnlib.specs import ESTIMATORS

SHAPES = {
    "lenet5": {"conv1": (32, 28, 28), "conv2": (64, 10, 10), "fc1": (512,), "fc2": (10,)},
    "vggnet7": {
        "conv1": (128, 30, 30), "conv2": (128, 30, 30), "conv3": (256, 15, 15), "conv4": (256, 15, 15),
        "conv5": (512, 7, 7), "conv6": (512, 7, 7), "fc1": (1024,), "fc2": (1024,), "fc3": (10,),
    },
}  # fmt: skip
WEIGHTS = {"lenet5": 876_320, "vggnet7": 10_352_000}


def images(spec: ModelSpec, n: int = 4) -> torch.Tensor:
    shape = (1, 28, 28) if spec.arch == "lenet5" else (3, 32, 32)
    return torch.randint(0, 256, (n, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def all_binary(arch: str, **options) -> ModelSpec:
    n = {"lenet5": 4, "vggnet7": 9}[arch]
    return ModelSpec(arch, "b" * n, "b" * (n - 1), **options)


def outputs_of(model: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    found = {}

    def note(name):
        return lambda module, inputs, output: found.update({name: output})

    handles = [module.register_forward_hook(note(name)) for name, module in model.named_children()]
    model(x)
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("arch", SHAPES)
@pytest.mark.parametrize("width", [1, 2])
def test_layers_have_the_papers_shapes(arch, width):
    spec = all_binary(arch, width=width)
    with torch.device("meta"):
        model, x = build(spec), torch.zeros((1, *images(spec).shape[1:]), dtype=torch.uint8)
    found = outputs_of(model.eval(), x)
    for name, (channels, *size) in SHAPES[arch].items():
        widened = channels * width if name.startswith("conv") else channels
        assert tuple(found[name].shape[1:]) == (widened, *size)
    if width == 1:
        assert sum(m.weight.numel() for m in model if isinstance(m, QuantConv2d | QuantLinear)) == WEIGHTS[arch]


def test_xavier_normal_weights_and_no_biases():
    torch.manual_seed(0)
    model = build(all_binary("lenet5"))
    assert model.conv2.weight.std().item() == pytest.approx((2 / (25 * (32 + 64))) ** 0.5, rel=0.02)
    assert model.fc1.weight.std().item() == pytest.approx((2 / (1600 + 512)) ** 0.5, rel=0.02)
    assert all(m.bias is None for m in model if isinstance(m, QuantConv2d | QuantLinear))


codes = st.sampled_from(list(OPERANDS))
options = {
    "order": st.sampled_from(["CPBA", "CBAP"]), "estimator": st.sampled_from(ESTIMATORS),
    "image": st.sampled_from(["8", "b"]), "last_norm": st.booleans(), "conv_relu": st.booleans(), "bias": st.booleans(),
    "ternary_acts": st.sampled_from(["running", "batch"]), "ternary_threshold": st.sampled_from(["estimator", "input"]),
    "norms": st.sampled_from([(True, True), (True, False), (False, False)]),
}  # fmt: skip


def check_learns(arch: str, weights: str, acts: str, norms: tuple[bool, bool], **rest) -> None:
    """Forward and backward work, and every parameter gets a finite gradient."""
    spec = ModelSpec(arch, weights, acts, norm=norms[0], extra_norm=norms[1], **rest)
    torch.manual_seed(0)
    model = build(spec)
    logits = model(images(spec, 2))
    assert logits.shape == (2, 10)
    F.cross_entropy(logits, torch.tensor([3, 7])).backward()
    for name, p in model.named_parameters():
        assert p.grad is not None and torch.isfinite(p.grad).all(), name


@settings(max_examples=30)
@given(weights=st.text(codes, min_size=4, max_size=4), acts=st.text(codes, min_size=3, max_size=3), **options)
def test_every_option_works_with_lenet5(weights, acts, **rest):
    check_learns("lenet5", weights, acts, **rest)


@settings(max_examples=4)
@given(weights=st.text(codes, min_size=9, max_size=9), acts=st.text(codes, min_size=8, max_size=8), **options)
def test_every_option_works_with_vggnet7(weights, acts, **rest):
    check_learns("vggnet7", weights, acts, **rest)


@pytest.mark.parametrize("order", ["CPBA", "CBAP"])
def test_layers_see_only_their_operands(order):
    spec = ModelSpec("lenet5", "tb4f", "tb4", order=order)
    model = build(spec).eval()
    inputs = {}
    for name in ("conv2", "fc1", "fc2"):
        getattr(model, name).register_forward_hook(lambda m, i, o, name=name: inputs.update({name: i[0]}))
    model(images(spec))
    assert set(inputs["conv2"].unique().tolist()) == {-1, 0, 1}
    assert set(inputs["fc1"].unique().tolist()) == {-1, 1}
    assert torch.equal(inputs["fc2"] * 8, (inputs["fc2"] * 8).round()) and inputs["fc2"].abs().max() <= 1


@given(operand=st.sampled_from(["binary", "ternary", "fixed2", "fixed4", "fixed8", "float"]), seed=st.integers(0, 99))
def test_latent_weights_stay_and_their_gradient_is_the_identity(operand, seed):
    w = torch.randn(5, 7, generator=torch.Generator().manual_seed(seed), requires_grad=True)
    before = w.detach().clone()
    quantized = quantize_weight(w, operand)
    upstream = torch.randn(5, 7)
    quantized.backward(upstream)
    assert torch.equal(w.detach(), before) and torch.equal(w.grad, upstream)
    levels = {"binary": 2, "ternary": 3, "fixed2": 4, "fixed4": 16}.get(operand, 35)
    assert len(quantized.unique()) <= levels


@pytest.mark.parametrize("mode", ["running", "batch"])
def test_a_prediction_depends_on_its_batch_only_where_asked(mode):
    spec = ModelSpec("lenet5", "bbbb", "ttt", ternary_acts=mode)
    torch.manual_seed(0)
    model = build(spec)
    for _ in range(3):
        model(images(spec, 16))
    model.eval()
    x = images(spec, 16)
    x[8:] //= 8  # the other half of the batch is dark
    state = {k: v.clone() for k, v in model.state_dict().items()}
    together, alone = model(x)[:8], model(x[:8])
    assert torch.allclose(together, alone, atol=1e-5) == (mode == "running")
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items()), "eval mode changed the network"


def convolve_plainly(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Correlation of [N, C, H, W] with [O, C, k, k], one output at a time."""
    k = w.shape[-1]
    height, width = x.shape[2] - k + 1, x.shape[3] - k + 1
    y = np.zeros((len(x), len(w), height, width))
    for n, o, i, j in np.ndindex(*y.shape):
        y[n, o, i, j] = (x[n, :, i : i + k, j : j + k] * w[o]).sum()
    return y


@pytest.mark.parametrize("pad_value", [None, 0.0, -1.0])
@pytest.mark.parametrize("channels", [1, 3, 5])  # up to 3 take the matrix product of patches
def test_convolution_and_padding_against_a_plain_loop(pad_value, channels):
    torch.manual_seed(channels)
    layer = QuantConv2d(channels, 4, 3, pad=1, pad_value=pad_value, bias=True, weight_operand="ternary")
    x = torch.randn(2, channels, 5, 6)
    sides = ((0, 0), (0, 0), (1, 1), (1, 1))
    padded = np.pad(x, sides, "edge") if pad_value is None else np.pad(x, sides, constant_values=pad_value)
    expected = convolve_plainly(padded, quantize_weight(layer.weight, "ternary").detach().numpy())
    expected += layer.bias.detach().numpy()[:, None, None]
    np.testing.assert_allclose(layer(x).detach(), expected, atol=1e-5)


@pytest.mark.parametrize("channels, kernel", [(1, 5), (3, 3)])
def test_patches_times_weights_equal_torchs_convolution(channels, kernel):
    torch.manual_seed(0)
    layer = QuantConv2d(channels, 8, kernel, weight_operand="float")
    x = torch.randn(3, channels, 12, 11)
    upstream = torch.randn(3, 8, 13 - kernel, 12 - kernel)
    layer(x).backward(upstream)
    fast, layer.weight.grad = layer.weight.grad, None
    y = F.conv2d(x, layer.weight)
    torch.testing.assert_close(layer(x), y)
    y.backward(upstream)
    torch.testing.assert_close(fast, layer.weight.grad, rtol=1e-4, atol=1e-4)


def test_image_ranges():
    x = torch.arange(256, dtype=torch.uint8).repeat(3 * 1024 // 256).reshape(1, 3, 32, 32)
    vggnet, lenet = build(all_binary("vggnet7")).image(x), build(all_binary("lenet5")).image(x[:, :1, :28, :28])
    assert torch.equal(lenet, x[:, :1, :28, :28] / 255) and (vggnet.min(), vggnet.max()) == (-1, 1)
    torch.testing.assert_close(vggnet, x / 127.5 - 1)
    bits = build(all_binary("lenet5", image="b")).image(x[:, :1, :28, :28])
    assert torch.equal(bits > 0, x[:, :1, :28, :28] >= 128) and set(bits.unique().tolist()) == {-1, 1}


def test_a_binarized_image_is_padded_with_its_background():
    """A zero pad would be a third value; the released code crashes on a binarized input."""
    assert build(all_binary("lenet5", image="b")).conv1.pad_value == -1
    assert build(all_binary("lenet5")).conv1.pad_value == 0
    assert build(all_binary("vggnet7", image="b")).conv2.pad_value is None


@pytest.mark.parametrize(
    "x",
    [torch.zeros(1, 1, 28, 28), torch.zeros(1, 3, 32, 32, dtype=torch.uint8), torch.zeros(28, 28, dtype=torch.uint8)],
)
def test_other_images_are_refused(x):
    with pytest.raises(ValueError, match=r"takes torch.uint8 \[N, 1x28x28\]"):
        build(all_binary("lenet5"))(x)
