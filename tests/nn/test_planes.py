"""Layers of several planes: against a loop over patches in numpy, against their training form, and in the networks."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tqdm import tqdm

from bnnlib import ModelSpec, UserError, build, studies
from bnnlib.energy import energy_fj, energy_uj, profile
from bnnlib.kernels import forward
from bnnlib.nn.layers import QuantConv2d, QuantLinear, quantize_weight, weight_scale
from bnnlib.nn.planes import PlaneConv2d, PlaneLinear
from bnnlib.nn.quantizers import GRADIENTS
from bnnlib.specs import PLANES, RunSpec, TrainSpec
from bnnlib.training.loop import Training

FORMS = [form for form in PLANES if form != "sign"]
LAYERS = {"lenet5": 4, "vggnet7": 9}
ONE_STEP = TrainSpec("digits", 1, batch=50, lr=0.5, train_images=50)


def planes_of(patch: np.ndarray, form: str) -> np.ndarray:
    """What stands for a patch, straight from the definitions of the papers."""
    sign = np.where(patch >= 0, 1.0, -1.0)
    if form.startswith("dorefa"):
        most = 2 ** int(form[-1]) - 1
        return np.round(most * np.clip(patch, 0, 1)) / most
    first = np.mean(np.abs(patch)) * sign
    if form == "xnor":
        return first
    rest = patch - first
    return first + np.mean(np.abs(rest)) * np.where(rest >= 0, 1.0, -1.0)


def layer_of(kind: str, form: str, **options):
    torch.manual_seed(3)
    if kind == "linear":
        return PlaneLinear(24, 7, form=form, **options)
    return PlaneConv2d(4, 7, 3, form=form, pad=1, pad_value=None, **options)


def input_of(kind: str) -> torch.Tensor:
    shape = (13, 24) if kind == "linear" else (13, 4, 6, 5)  # 13: not a whole number of parts
    return torch.randn(shape, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("kind", ["conv", "linear"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_its_definition(form, kind, mode):
    layer, x = layer_of(kind, form), input_of(kind)
    y = getattr(layer, mode)()(x).detach().numpy()
    w = np.where(layer.weight.detach().numpy() >= 0, 1.0, -1.0)
    if kind == "linear":
        expected = np.stack([w @ planes_of(row, form) for row in x.double().numpy()])
    else:
        padded = np.pad(x.double().numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
        expected = np.empty(y.shape)
        for n, i, j in np.ndindex(len(x), *y.shape[2:]):
            patch = planes_of(padded[n, :, i : i + 3, j : j + 3], form)
            expected[n, :, i, j] = (w * patch).sum((1, 2, 3))
    assert np.allclose(y, expected, atol=2e-5)


@pytest.mark.parametrize("estimator", GRADIENTS)
@pytest.mark.parametrize("kind", ["conv", "linear"])
@pytest.mark.parametrize("form", FORMS)
def test_gradients_are_those_of_one_product(form, kind, estimator):
    """Of the input: the transposed product times the estimator. Of the weights: as if the planes were the input."""
    layer, x = layer_of(kind, form, estimator=estimator).train(), input_of(kind).requires_grad_()
    y = layer(x)
    grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(5))
    y.backward(grad)
    scale = layer.magnitude(layer.padded(x.detach())) if form == "xnor" else torch.ones(())
    probe = x.detach().clone().requires_grad_()
    w = quantize_weight(layer.weight.detach(), "binary")
    (layer._product(layer.padded(probe), w) * scale).backward(grad)
    local = ((x >= 0) & (x <= 1)).float() if form.startswith("dorefa") else GRADIENTS[estimator](x.detach())
    if kind == "linear":  # a border's gradient is summed before and after the estimator alike, but not bit for bit
        stands = torch.stack([torch.as_tensor(planes_of(r, form)) for r in x.detach().double().numpy()]).float()
        assert torch.allclose(layer.weight.grad, grad.T @ stands, atol=1e-4)
    assert torch.allclose(x.grad, probe.grad * local, atol=1e-4)


@given(st.integers(0, 10**6), st.sampled_from(["binary", "ternary"]), st.sampled_from(["filter", "layer"]))
def test_the_scale_of_weights_is_least_squares(seed, operand, scale):
    w = torch.randn(5, 3, 2, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    alpha, q = weight_scale(w, operand, scale), quantize_weight(w, operand)
    over = (1, 2, 3) if scale == "filter" else (0, 1, 2, 3)
    best = (w - alpha * q).square().sum(over)
    for factor in (0.99, 1.01):
        assert (best <= (w - factor * alpha * q).square().sum(over) + 1e-12).all()


def test_a_filter_of_zeros_has_scale_zero():
    assert weight_scale(torch.zeros(2, 3), "binary", "filter").tolist() == [[0.0], [0.0]]


@pytest.mark.parametrize("arch", LAYERS)
@pytest.mark.parametrize("form", FORMS)
def test_planes_work_with_both_networks(arch, form):
    n = LAYERS[arch]
    spec = ModelSpec(arch, "b" * n, "b" * (n - 1), 1 / 4, act_planes=form, weight_scale="filter")
    model = build(spec)
    x = torch.randint(0, 256, (6, *model[0].shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    logits = model(x)
    logits.square().sum().backward()
    assert logits.shape == (6, 10)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    model.eval()
    once, alone = model(x), torch.cat([model(image[None]) for image in x])
    assert torch.allclose(once, alone, atol=1e-3)  # no prediction depends on its batch


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("changes", [*({"act_planes": form} for form in FORMS), {}, {"acts": "tt8"}, {"acts": "ttt"}])
def test_kernels_leave_planes_and_scales_alone(changes, training):
    spec = ModelSpec("lenet5", "8bb8", "bb8", weight_scale="filter").but(**changes)
    torch.manual_seed(0)
    model = build(spec).train(training)
    x = torch.randint(0, 256, (8, 1, 28, 28), dtype=torch.uint8)
    plain, quick = model(x), forward.forward(model, x)
    assert torch.allclose(plain, quick, atol=1e-3)


@pytest.mark.parametrize("scale", ["filter", "layer"])
def test_scales_of_weights_vanish_in_batch_norm(scale):
    """Which is why BWN is no network of its own here, beside BC."""
    plain = ModelSpec("lenet5", "bbbb", "fff")
    x = torch.randint(0, 256, (50, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    logits = {}
    for spec in (plain, plain.but(weight_scale=scale)):
        torch.manual_seed(0)
        model = build(spec)
        for module in model.modules():
            module.eps = 1e-12  # what is left of a scale is the little constant in the norm's root
        logits[spec.weight_scale] = model(x)
    assert torch.allclose(logits["none"], logits[scale], atol=1e-3)


# training


@pytest.mark.parametrize("name", studies.STUDIES["comparators-mnist"].networks)
def test_every_method_trains(name):
    """One step on digits changes the weights of every layer, and the clip keeps those that are quantized in [-1, 1]."""
    model = studies.STUDIES["comparators-mnist"].networks[name]
    before = Training(RunSpec(model, ONE_STEP, 0))
    state = Training(RunSpec(model, ONE_STEP, 0))
    state.epoch(tqdm(disable=True))
    old, new = (
        {n: m.weight.detach() for n, m in t.model.named_modules() if isinstance(m, QuantConv2d | QuantLinear)}
        for t in (before, state)
    )
    assert len(old) == LAYERS["lenet5"] and all(not torch.equal(old[layer], new[layer]) for layer in old)
    few = [layer for layer, code in zip(old, model.weights, strict=True) if code == "b"]
    assert len(state.clipped) == len(few) and all(new[layer].abs().max() <= 1 for layer in few)


# what it costs


@pytest.mark.parametrize("arch", LAYERS)
def test_two_bits_cost_one_more_product_of_every_inner_layer(arch):
    networks = studies.STUDIES["comparators-mnist" if arch == "lenet5" else "comparators-cifar10"].networks
    one, two = (profile(networks[f"DoReFa-1-{bits}"]) for bits in (1, 2))
    inner = two["name"].duplicated()
    assert inner.sum() == LAYERS[arch] - 2
    assert two[~inner].reset_index(drop=True).equals(one)
    assert two.loc[inner, "macs"].to_list() == one["macs"].to_list()[1:-1]
    assert two.loc[inner, "weight_bits"].sum() == 0  # the same weights


@pytest.mark.parametrize("arch", LAYERS)
def test_the_papers_tbn_and_xnor_net_are_costed_like_ours(arch):
    """Within reading error; XNOR-Net without the scale K, whose operations the figure does not contain."""
    study, points = ("comparators-mnist", {"TBN": 0.0730}) if arch == "lenet5" else (
        "comparators-cifar10", {"TBN": 1.662, "XNOR-Net": 0.9165}
    )  # fmt: skip
    for name, uj in points.items():
        rows = profile(studies.STUDIES[study].networks[name])
        layers = rows[~rows["name"].str.contains(".", regex=False)]
        assert energy_fj(layers).sum() * 1e-9 == pytest.approx(uj, rel=0.008)


def test_the_operations_of_k_are_counted():
    spec = studies.STUDIES["comparators-mnist"].networks["XNOR-Net"]
    rows = profile(spec)
    extra = rows[rows["name"].str.contains(".", regex=False)].groupby("name")["macs"].sum().to_dict()
    assert extra == {
        "conv2.magnitude": 32 * 14 * 14 + 25 * 10 * 10,  # channels first, then the 5 x 5 pixels of each output
        "conv2.multiply": 64 * 10 * 10,
        "fc1.magnitude": 1600,
        "fc1.multiply": 512,
    }
    sign = spec.but(act_planes="sign")
    assert energy_uj(spec) - energy_uj(sign) == pytest.approx(
        1e-9 * (18.2 * (6272 + 2500 + 1600) + 90.8 * (6400 + 512))
    )


def test_horq_runs_two_products_and_their_scales():
    rows = profile(studies.STUDIES["comparators-mnist"].networks["HORQ"])
    conv2 = rows[rows["name"].str.startswith("conv2")]
    products = conv2[conv2["name"] == "conv2"]
    assert products["macs"].to_list() == [5_120_000] * 2 and set(products["act"]) == {"binary"}
    assert conv2[conv2["name"] == "conv2.rest_magnitude"]["macs"].item() == 800 * 10 * 10  # K is of the patch
    multiplications = conv2[conv2["name"].str.contains("multiply")]
    assert multiplications["macs"].to_list() == [6400] * 2 and set(multiplications["vector_length"]) == {1}


# mistakes


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"act_planes": "abc"}, "act_planes 'abc'"),
        ({"act_planes": "xnor", "acts": "ttt"}, "acts 'ttt' has none"),
        ({"act_planes": "xnor", "order": "CBAP"}, "order='CPBA'"),
        ({"weight_scale": "K"}, "weight_scale 'K'"),
        ({"width": 0.3}, "width 0.3"),
        ({"width": 0}, "width 0"),
    ],
)
def test_mistakes_are_named(changes, named):
    with pytest.raises(UserError, match=named) as error:
        ModelSpec("lenet5", "bbbb", "bbb").but(**changes)
    assert "\n" not in str(error.value)


def test_fields_that_came_later_change_no_hash():
    spec = ModelSpec("lenet5", "bbbb", "bbb")
    assert not set(spec.LATER) & spec.as_dict().keys()
    changed = spec.but(weight_scale="filter")
    assert changed.as_dict()["weight_scale"] == "filter" and changed.hash != spec.hash


@settings(max_examples=8)
@given(eighths=st.integers(1, 24))
def test_a_fraction_of_the_width(eighths):
    spec = ModelSpec("vggnet7", "b" * 9, "b" * 8, eighths / 8)
    with torch.device("meta"):
        model = build(spec)
    assert model.conv1.out_channels == 16 * eighths and model.fc1.out_features == 1024
    assert spec.width == eighths / 8
