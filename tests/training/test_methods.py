"""Training-only methods: each against its equation, written out another way, and all of them resumed bit for bit."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from tqdm import tqdm

from bnnlib import UserError, build, data
from bnnlib.nn.layers import QuantConv2d, QuantLinear
from bnnlib.nn.quantizers import ANNEALED, balanced, binary, ede_gradient, estimate, reste_gradient
from bnnlib.packed import PackedNet, pack
from bnnlib.specs import ModelSpec, RunSpec, TrainSpec
from bnnlib.training import stages
from bnnlib.training.augment import DRAWN, affine, batches, cutout
from bnnlib.training.averaging import Average, estimate_norms
from bnnlib.training.bop import Bop
from bnnlib.training.loop import Training, train
from bnnlib.training.objective import learning_rate, make_optimizer, set_rate, training_loss
from bnnlib.training.pretraining import float_run, teacher_path

BINARY = ModelSpec("lenet5", "bbbb", "bbb")
HYBRID = ModelSpec("lenet5", "tb8b", "tbt", balance=True, estimator="ede")
QUICK = TrainSpec("digits", 3, batch=50, warmup=0.5, train_images=200)
EVERYTHING = QUICK.but(
    epochs=4, augment="affine", pad=1, cutout=6, average=0.8, stages="bits", label_smoothing=0.1, logit_scale=2,
    teacher=QUICK.but(epochs=1), distill=0.5, schedule="linear",
)  # fmt: skip
MORE = {"sgd": {"momentum": QUICK.momentum}, "adam": {}, "adamw": {"weight_decay": 0}}
shares = st.floats(0, 1)


@pytest.mark.parametrize("progress", [0.0, 0.3, 0.5, 1.0])
def test_annealed_estimators_are_derivatives_of_their_functions(progress):
    x = torch.linspace(-3, 3, 601, dtype=torch.float64, requires_grad=True)
    t = 0.1 * 100**progress
    (max(1 / t, 1) * torch.tanh(t * x)).sum().backward()
    torch.testing.assert_close(ede_gradient(x.detach(), progress), x.grad)
    x.grad, o = None, 1 + 2 * progress
    (x.sign() * x.abs() ** (1 / o)).sum().backward()
    ours, size = reste_gradient(x.detach(), progress), x.detach().abs()
    curved = (size > 0.1) & (size <= 1.5)
    torch.testing.assert_close(ours[curved], x.grad[curved])
    torch.testing.assert_close(ours[size <= 0.1], torch.full_like(ours[size <= 0.1], 0.1 ** (1 / o) / 0.1))
    assert not ours[size > 1.5].any()


@given(progress=shares, values=st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=20))
def test_annealed_estimators_are_finite_even_and_used_at_their_progress(progress, values):
    x = torch.tensor(values, requires_grad=True)
    for name, gradient in ANNEALED.items():
        g = gradient(x.detach(), progress)
        assert torch.isfinite(g).all() and (g >= 0).all() and torch.equal(g, gradient(-x.detach(), progress))
        x.grad = None
        y = estimate(x, binary(x.detach()), name, progress=progress)
        y.sum().backward()
        assert torch.equal(x.grad, g) and torch.equal(y, binary(x.detach()))


def test_annealing_starts_wide_and_ends_at_the_sign():
    x = torch.tensor([0.01, 0.9])
    for gradient in ANNEALED.values():
        first, last = gradient(x, 0.0), gradient(x, 1.0)
        assert first.min() > 0.95 and last[0] > 4 and last[1] < 0.5


@given(
    values=st.lists(st.floats(-10, 10, width=16), min_size=12, max_size=12).filter(
        lambda v: min(np.std(v[:6]), np.std(v[6:])) > 0.1
    ),
    scale=st.floats(0.5, 4),
    shift=st.floats(-2, 2),
)
def test_balanced_weights_have_mean_zero_and_deviation_one(values, scale, shift):
    w = torch.tensor(values, dtype=torch.float64).reshape(2, 3, 2)
    b = balanced(w)
    np.testing.assert_allclose(b.mean((1, 2)), 0, atol=1e-9)
    np.testing.assert_allclose(b.std((1, 2)), 1, rtol=1e-9)
    torch.testing.assert_close(balanced(scale * w + shift), b)


@pytest.mark.parametrize("layer", [QuantConv2d(3, 4, 3, balance=True), QuantLinear(27, 4, balance=True)])
def test_a_balanced_layer_executes_the_signs_around_its_mean(layer):
    with torch.no_grad():
        layer.weight += 0.05  # most of the latent weights are now positive
    rows = layer.weight.detach().flatten(1)
    assert torch.equal(layer.quantized_weight().flatten(1), torch.where(rows >= rows.mean(1, keepdim=True), 1.0, -1.0))
    layer.quantized_weight().flatten(1)[:, 0].sum().backward()
    np.testing.assert_allclose(layer.weight.grad.flatten(1).sum(1), 0, atol=1e-5)  # a shift changes nothing
    layer.weight_operand = "float"
    assert torch.equal(layer.quantized_weight(), layer.weight)


def test_balance_leaves_no_scale():
    with pytest.raises(UserError, match="balance=True leaves no scale to weight_scale='filter'"):
        BINARY.but(balance=True, weight_scale="filter")


def test_bop_flips_as_its_rule_says_and_leaves_the_rest_to_adam():
    torch.manual_seed(0)
    model = build(ModelSpec("lenet5", "bt8b", "bbb"))
    other = copy.deepcopy(model)
    spec = TrainSpec("digits", 5, optimizer="bop", lr=0.01, bop_gamma=0.2, bop_threshold=0.3)
    bop, adam = make_optimizer(spec, model), torch.optim.Adam(other.parameters(), lr=0.01)
    assert isinstance(bop, Bop)
    flipped = {name: getattr(model, name).weight for name in ("conv1", "fc2")}
    w = {name: p.detach().numpy().copy() for name, p in flipped.items()}
    assert all(set(np.unique(v)) == {-1, 1} for v in w.values())
    m = {name: np.zeros_like(v) for name, v in w.items()}
    flips = 0
    for step in range(6):
        rate = 0.01 / (1 + step)
        for optimizer in (bop, adam):
            for group in optimizer.param_groups:
                group["lr"] = rate
        for (name, p), q in zip(model.named_parameters(), other.parameters(), strict=True):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
            if (key := name.removesuffix(".weight")) in m:
                gamma = 0.2 * rate / 0.01
                m[key] = (1 - gamma) * m[key] + gamma * p.grad.numpy()
                flip = (np.abs(m[key]) > 0.3) & (np.sign(m[key]) == np.sign(w[key]))
                flips += flip.sum()
                w[key] = np.where(flip, -w[key], w[key])
        bop.step()
        adam.step()
    assert flips > 100
    for (name, p), q in zip(model.named_parameters(), other.parameters(), strict=True):
        if name.removesuffix(".weight") in w:
            np.testing.assert_array_equal(p.detach(), w[name.removesuffix(".weight")])
        else:
            torch.testing.assert_close(p, q)


@pytest.mark.parametrize("name, graph", [("sgd", False), ("sgd", True), ("adam", False), ("adamw", False)])
def test_biases_of_norms_have_a_rate_of_their_own(name, graph):
    """As two optimizers of torch; a recorded graph's rates are tensors, which are filled and not replaced."""
    torch.manual_seed(0)
    model, spec = build(BINARY.but(bias=True)), QUICK.but(optimizer=name, lr=0.01, norm_bias_rate=8)
    other = copy.deepcopy(model)
    own = ["norm1.bias", "norm2.bias", "norm3.bias"]
    fast, slow = ([p for n, p in other.named_parameters() if (n in own) == wanted] for wanted in (True, False))
    kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name]
    twins = [kind(part, **MORE[name]) for part in (fast, slow)]
    optimizer = make_optimizer(spec, model, graph=graph)
    first = [group["lr"] for group in optimizer.param_groups]
    for rate in (0.01, 0.003, 0.001):
        set_rate(optimizer, rate)
        for twin, factor in zip(twins, (8, 1), strict=True):
            twin.param_groups[0]["lr"] = factor * rate
        for p, q in zip(model.parameters(), other.parameters(), strict=True):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        for one in (optimizer, *twins):
            one.step()
    assert not graph or all(group["lr"] is rate for group, rate in zip(optimizer.param_groups, first, strict=True))
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q)


def test_a_rate_for_biases_of_norms_needs_them():
    model = build(BINARY.but(norm=False, last_norm=False))
    with pytest.raises(UserError, match="needs a batch norm with a bias; set norm_bias_rate=1"):
        make_optimizer(QUICK.but(norm_bias_rate=4), model)
    assert len(make_optimizer(QUICK, model).param_groups) == 1


def test_an_average_is_its_sum_and_gives_the_network_back():
    torch.manual_seed(0)
    model, decay = build(BINARY), 0.7
    average = Average(model, decay)
    seen = [model.fc1.weight.detach().double().clone()]
    for _ in range(4):
        with torch.no_grad():
            for p in model.parameters():
                p += 0.05 * torch.randn_like(p)
        average.update(model)
        seen.append(model.fc1.weight.detach().double().clone())
    expected = decay**4 * seen[0] + sum((1 - decay) * decay ** (4 - i) * seen[i] for i in range(1, 5))
    torch.testing.assert_close(average.values["fc1.weight"].double(), expected, rtol=1e-5, atol=1e-6)
    before = copy.deepcopy(model.state_dict())
    x = torch.randint(0, 256, (70, 1, 28, 28), dtype=torch.uint8)
    with average.in_place(model, model, x):
        assert torch.equal(model.fc1.weight, average.values["fc1.weight"])
        assert not torch.equal(model.norm1.running_mean, before["norm1.running_mean"])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_norms_are_the_mean_over_the_batches(monkeypatch):
    monkeypatch.setattr("bnnlib.training.averaging.NORM_BATCH", 4)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3))
    x = torch.randn(12, 2, 6, 6)
    estimate_norms(model, model, x)
    parts = [model[0](part).detach().transpose(0, 1).flatten(1) for part in x.split(4)]
    torch.testing.assert_close(model[1].running_mean, torch.stack([p.mean(1) for p in parts]).mean(0))
    torch.testing.assert_close(model[1].running_var, torch.stack([p.var(1) for p in parts]).mean(0))
    assert model[1].momentum == 0.1


def test_stages_quantize_more_and_more():
    model = build(ModelSpec("lenet5", "bt8b", "bbb", estimator="reste"))
    layers = [m for m in model if hasattr(m, "weight_operand")]
    seen = {}
    for kind in ("none", "acts-first", "bits"):
        for epoch in range(8):
            with stages.of_epoch(model, QUICK.but(epochs=8, stages=kind), epoch):
                seen[kind, epoch] = [layer.weight_operand for layer in layers]
                assert model.act1.progress == epoch / 8
            assert [layer.weight_operand for layer in layers] == ["binary", "ternary", "fixed8", "binary"]
    own = ["binary", "ternary", "fixed8", "binary"]
    assert all(seen["none", e] == own for e in range(8))
    assert [seen["acts-first", e][0] for e in range(8)] == ["float"] * 4 + ["binary"] * 4
    assert [seen["bits", e][1] for e in range(8)] == ["fixed8"] * 2 + ["fixed4"] * 2 + ["fixed2"] * 2 + ["ternary"] * 2
    assert all(operands[2] == "fixed8" for operands in seen.values())


def test_stages_end_even_if_an_epoch_fails():
    model = build(BINARY)
    inside = stages.of_epoch(model, QUICK.but(stages="acts-first"), 0)
    inside.__enter__()
    assert model.conv1.weight_operand == "float"
    assert not inside.__exit__(KeyError, KeyError(), None)
    assert model.conv1.weight_operand == "binary"


@given(seed=st.integers(0, 99), smoothing=st.floats(0, 0.5), scale=st.floats(0.1, 8), share=st.floats(0.05, 1))
def test_the_loss_is_its_sum(seed, smoothing, scale, share):
    rng = np.random.default_rng(seed)
    logits, teacher, labels = rng.normal(size=(5, 10)), rng.normal(size=(5, 10)), rng.integers(0, 10, 5)
    p, q = (np.exp(scale * z) / np.exp(scale * z).sum(1, keepdims=True) for z in (logits, teacher))
    target = smoothing / 10 + (1 - smoothing) * np.eye(10)[labels]
    cross = -(target * np.log(p)).sum(1).mean()
    divergence = (q * np.log(q / p)).sum(1).mean()
    spec = QUICK.but(label_smoothing=smoothing, logit_scale=scale)
    tensors = torch.tensor(logits), torch.tensor(labels)
    assert training_loss(spec, *tensors).item() == pytest.approx(cross, rel=1e-9)
    taught = spec.but(distill=share, teacher=QUICK)
    both = (1 - share) * cross + share * divergence
    assert training_loss(taught, *tensors, torch.tensor(teacher)).item() == pytest.approx(both, rel=1e-9, abs=1e-12)


def test_a_linear_schedule_falls_by_equal_steps():
    rates = [learning_rate(TrainSpec("mnist", 10, lr=1.0, warmup=2, schedule="linear"), s, 100) for s in range(1000)]
    np.testing.assert_allclose(np.diff(rates[200:]), -1 / 800)
    assert max(rates) == pytest.approx(1) and rates[-1] == pytest.approx(1 / 800)


def test_a_drawing_of_the_middle_changes_nothing_and_others_move_the_middle_of_mass():
    x = torch.zeros(2, 1, 28, 28, dtype=torch.uint8)
    x[:, :, 12:16, 10:18] = 200
    middle = torch.full((3, 1), DRAWN // 2)
    middle[2] += (504 - middle.sum() % 1009) % 1009  # a scale of one; the angle moves by less than a millionth
    assert torch.equal(affine(x[:1], middle, 2), x[:1])
    draws = torch.stack([torch.tensor([0, DRAWN - 1]), middle[1].repeat(2), middle[2].repeat(2)])
    weights = affine(x, draws, 2).double().sum(2).squeeze(1)
    centres = (weights * torch.arange(28)).sum(1) / weights.sum(1)
    assert abs(centres[0] - centres[1]) == pytest.approx(4, abs=0.2)


@given(row=st.integers(0, 10**6), column=st.integers(0, 10**6), side=st.integers(1, 9))
def test_cutout_covers_one_square(row, column, side):
    x = torch.full((1, 3, 8, 6), 9, dtype=torch.uint8)
    y = cutout(x, torch.tensor([[row], [column]]), side, torch.tensor(4, dtype=torch.uint8))
    top, left = row % 8 - side // 2, column % 6 - side // 2
    for i in range(8):
        for j in range(6):
            covered = top <= i < top + side and left <= j < left + side
            assert y[0, :, i, j].tolist() == [4 if covered else 9] * 3


def test_alternating_flip_mirrors_each_image_in_every_other_epoch():
    x = torch.arange(40, dtype=torch.uint8).reshape(40, 1, 1, 1).repeat(1, 1, 4, 4)
    x[..., 0] += 100
    spec, generator = TrainSpec("cifar10", 4, batch=10, augment="alt-flip-crop", pad=0), torch.Generator()
    sides = []
    for epoch in range(4):
        mirrored = {}
        for images, _ in batches(x, torch.zeros(40), spec, generator, epoch, seed=3):
            mirrored |= {int(image[0, 0, 1]): bool(image[0, 0, 3] >= 100) for image in images}
        sides.append([mirrored[i] for i in range(40)])
    assert 5 < sum(sides[0]) < 35
    assert sides[0] == sides[2] == [not side for side in sides[1]] == [not side for side in sides[3]]


@pytest.mark.parametrize("optimizer, bias_rate", [("adam", 1), ("adam", 4), ("bop", 1)])
def test_pieces_with_every_method_equal_one_run(tmp_path, optimizer, bias_rate):
    run = RunSpec(HYBRID, EVERYTHING.but(optimizer=optimizer, norm_bias_rate=bias_rate), 3)
    whole = train(run, checkpoint=tmp_path / "whole" / "c.pt")
    state, checkpoint = Training(run), tmp_path / "c.pt"
    state.learn_from(train(float_run(run, run.train.teacher)).model)
    state.epoch(tqdm(disable=True))
    state.save(checkpoint)
    assert train(run, checkpoint=checkpoint, max_minutes=0) is None
    pieces = train(run, checkpoint=checkpoint)
    assert pieces.history == whole.history and pieces.test_accuracy == whole.test_accuracy
    for a, b in zip(whole.model.state_dict().values(), pieces.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_a_teacher_is_trained_once_for_all_of_a_seed(tmp_path):
    run = RunSpec(BINARY, QUICK.but(epochs=1, teacher=QUICK.but(epochs=2), distill=0.5), 1)
    path = teacher_path(tmp_path / "a.pt", run)
    one = train(run, checkpoint=tmp_path / "a.pt")
    written = path.stat().st_mtime_ns
    pupil = run.but(model=BINARY.but(estimator="ede", weights="tbbb"), train=run.train.but(label_smoothing=0.2))
    assert teacher_path(tmp_path / "b.pt", pupil) == path
    train(pupil, checkpoint=tmp_path / "b.pt")
    assert path.stat().st_mtime_ns == written
    assert one.history != train(run.but(train=QUICK.but(epochs=1))).history
    assert teacher_path(tmp_path / "a.pt", run.but(seed=2)) != path


@pytest.mark.parametrize("acts", ["bbb", "tbt"])
def test_what_was_trained_so_is_an_ordinary_network_of_bits(acts):
    spec = HYBRID.but(acts=acts)
    outcome = train(RunSpec(spec, EVERYTHING.but(stages="acts-first"), 0))
    assert outcome.model.conv1.weight_operand == "ternary"
    images = data.load("digits", (1, 28, 28)).test_x
    with torch.no_grad():
        expected = outcome.model(images).argmax(1)
    assert np.array_equal(PackedNet(pack(outcome.model, spec)).predict(images.numpy()), expected.numpy())


@pytest.mark.parametrize(
    "method",
    [{"average": 0.8}, {"stages": "acts-first"}, {"optimizer": "bop"}, {"cutout": 5}, {"norm_bias_rate": 4}],
)
def test_every_method_changes_the_training_and_learns(method):
    plain, other = (train(RunSpec(BINARY, QUICK.but(epochs=4, **m), 0)) for m in ({}, method))
    assert plain.history != other.history
    assert math.isfinite(other.history[-1]["train_loss"]) and other.test_accuracy > 30
