"""The fast training path against torch and against the plain loop: same forward, same gradients, same training."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tqdm import tqdm

from bnnlib import UserError, build, data, files
from bnnlib.bench import agreement
from bnnlib.bench.plain import PlainTraining
from bnnlib.kernels import convolution, forward, threads
from bnnlib.nn.layers import quantize_weight
from bnnlib.paths import ROOT
from bnnlib.specs import ARCHS, ModelSpec, RunSpec, TrainSpec
from bnnlib.training.execution import Execution
from bnnlib.training.loop import Training, evaluate, train
from bnnlib.training.objective import set_rate

BINARY = ModelSpec("lenet5", "bbbb", "bbb")
FLOAT = ModelSpec("lenet5", "ffff", "fff")
QUICK = TrainSpec("digits", 3, batch=50, augment="crop", pad=2, warmup=0.5, train_images=200)


@pytest.fixture(params=[1, 2])
def thread_count(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_torch_keeps_its_threads_when_numba_starts_its_own():
    code = """
import torch
from bnnlib.kernels import threads
torch.set_num_threads(1)
threads.share(2)
print(torch.get_num_threads())
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert ran.stdout == "1\n"


def signs(*shape: int) -> torch.Tensor:
    return torch.randint(0, 2, shape).float() * 2 - 1


@given(
    n=st.integers(1, 20), height=st.integers(4, 9), width=st.integers(4, 9), kernel=st.integers(1, 4),
    inputs=st.sampled_from([32, 96, 160]), outputs=st.sampled_from([32, 64, 96]), seed=st.integers(0, 2**31),
)  # fmt: skip
@settings(max_examples=25, deadline=None)
def test_pooled_convolution_is_torchs(n, height, width, kernel, inputs, outputs, seed):
    """Values to the last bit, also of odd heights and widths, whose last row the pooling drops."""
    torch.manual_seed(seed)
    x, w = signs(n, height, width, inputs), signs(outputs, kernel, kernel, inputs)
    if min(height, width) - kernel + 1 < 2:
        return
    ours = [t.clone().requires_grad_() for t in (x, w)]
    torchs = [t.permute(0, 3, 1, 2).clone().requires_grad_() for t in (x, w)]
    y = forward._PooledConvolution.apply(*ours, True)
    expected = F.max_pool2d(F.conv2d(*torchs), 2)
    assert torch.equal(y.permute(0, 3, 1, 2), expected)
    grad = torch.randn(expected.shape)
    expected.backward(grad)
    y.backward(grad.permute(0, 2, 3, 1))
    for a, b in zip(ours, torchs, strict=True):
        torch.testing.assert_close(a.grad.permute(0, 3, 1, 2), b.grad, rtol=1e-4, atol=1e-3)


INLINED = """
from numba import njit

@njit(forceinline=True)
def value():
    return {value}
"""
CALLER = """
import pathlib, sys
from bnnlib.kernels.compiling import compiled
sys.path.insert(0, str(pathlib.Path(__file__).parent))
from inlined import value

@compiled
def twice():
    return 2 * value()

print(twice(), sum(twice.stats.cache_hits.values()))
"""


def test_compiled_code_is_kept_until_any_file_beside_it_changes(tmp_path):
    """numba itself would keep it: the file of the compiled function is the same."""
    caller, said = tmp_path / "caller.py", []
    caller.write_text(CALLER)
    for value in (1, 1, 20):
        (tmp_path / "inlined.py").write_text(INLINED.format(value=value))
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        run = subprocess.run([sys.executable, caller], env=environment, check=True, capture_output=True, text=True)
        said.append(run.stdout.split())
    assert said == [["2", "0"], ["2", "1"], ["40", "0"]]


def test_gradients_by_hand():
    """One image, one output channel, a kernel of one pixel: the winner alone hands its gradient on."""
    x = torch.zeros(1, 2, 2, 32)
    x[0, 1, 0] = 3.0
    x[0, 0, 1] = 2.0
    w = torch.zeros(32, 1, 1, 32)
    w[0, 0, 0, 0] = 1.0
    x.requires_grad_()
    w.requires_grad_()
    y = forward._PooledConvolution.apply(x, w, False)
    assert y[0, 0, 0, 0] == 3
    y[0, 0, 0, 0].backward()
    assert x.grad[0, 1, 0, 0] == 1 and x.grad.abs().sum() == 1
    assert torch.equal(w.grad[0, 0, 0], torch.full((32,), 3.0)) and w.grad.abs().sum() == 96


def test_first_of_equal_outputs_wins(thread_count):
    y = torch.zeros(3, 2, 2, 32)
    pooled, winner = torch.empty(3, 1, 1, 32), torch.empty(3, 1, 1, 32, dtype=torch.uint8)
    threads.run(convolution.max_pool, y, pooled, winner)
    assert not winner.any()
    y[:, 1, 1] = y[:, 0, 1] = 1
    threads.run(convolution.max_pool, y, pooled, winner)
    assert (winner == 1).all() and (pooled == 1).all()


def test_bits_are_signs_and_zero_is_positive():
    x = torch.randn(7, 64)
    x[0, :3] = torch.tensor([0.0, -0.0, -1e-45])
    words = np.empty((7, 2), np.uint32)
    convolution.pack(x.numpy(), words)
    bits = np.unpackbits(words.view(np.uint8), bitorder="little").reshape(7, 64)
    np.testing.assert_array_equal(bits, (x >= 0).numpy())


SPECS = [
    BINARY, FLOAT, BINARY.but(width=2), BINARY.but(weights="tttt", acts="tbt"), BINARY.but(weights="8bb4", acts="b4b"),
    BINARY.but(order="CBAP"), BINARY.but(conv_relu=True, extra_norm=True, last_norm=False), BINARY.but(image="b"),
    BINARY.but(estimator="bireal"), ModelSpec("vggnet7", "bbbbbbbbb", "bbbbbbbb"),
    ModelSpec("vggnet7", "tbtbbtbbb", "btbbtbbb"), ModelSpec("vggnet7", "fffffffff", "ffffffff"),
]  # fmt: skip


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: f"{s.arch}-{s.weights}-{s.acts}-{s.hash}")
def test_every_network_computes_what_torch_computes(spec, thread_count):
    torch.manual_seed(0)
    plain, quick = build(spec), build(spec)
    quick.load_state_dict(plain.state_dict())
    n = 20 if spec.arch == "lenet5" else 4
    x, y = torch.randint(0, 256, (n, *ARCHS[spec.arch].image), dtype=torch.uint8), torch.randint(0, 10, (n,))
    expected, logits = plain(x), forward.forward(quick, x)
    # the same sums in another order may put a value on the other side of zero only where operands are not integers
    torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-3)
    F.cross_entropy(expected, y).backward()
    F.cross_entropy(logits, y).backward()
    for (name, a), b in zip(plain.named_parameters(), quick.parameters(), strict=True):
        assert (a.grad - b.grad).norm() <= 1e-3 * a.grad.norm() + 1e-6, name
    plain.eval(), quick.eval()
    torch.testing.assert_close(forward.forward(quick, x), plain(x), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("bias", [False, True])
def test_bias_moves_the_outputs(bias):
    torch.manual_seed(0)
    model = build(BINARY.but(bias=bias, norm=False, last_norm=False))
    if bias:
        model.conv2.bias.data += 100.0
    x = torch.randint(0, 256, (4, 1, 28, 28), dtype=torch.uint8)
    assert torch.equal(forward.forward(model, x), model(x))


@pytest.mark.parametrize("model", [BINARY, FLOAT])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_steps_are_those_of_the_plain_loop(model, optimizer):
    """Same weights, same batches: after three steps every latent weight is the same, to rounding."""
    spec = TrainSpec("digits", 1, batch=40, optimizer=optimizer, lr=1e-3, loss="squared_hinge", weight_decay=1e-4)
    run = RunSpec(model, spec, 0)
    ours, plain = Training(run, Execution.choose("cpu")), PlainTraining(run)
    assert ours.execution.kernels
    set_rate(ours.optimizer, spec.lr)
    images = data.load("digits", (1, 28, 28))
    batches = [b for _, b in zip(range(3), plain.batches(images.train_x, images.train_y), strict=False)]
    # integers for both, so that ties are ties in both; batch norm takes the factor out again
    next(m for m in plain.model if isinstance(m, torch.nn.BatchNorm2d)).eps *= 255**2
    for x, y in batches:
        codes = (x * 255).round()
        plain.step(codes, y)
        ours.step(codes.to(torch.uint8), y)
    pairs = list(zip(ours.model.parameters(), plain.model.parameters(), strict=True))
    assert len(pairs) == 10
    for a, b in pairs:
        # Adam divides by the gradient's size, so rounding errors alone may move a weight by up to 3 lr; of two float
        # outputs that are equal but for rounding the other one may win
        far = ((a - b).abs() > 1e-5 + 1e-4 * b.abs()).float().mean()
        assert far <= (0 if optimizer == "sgd" and model is BINARY else 0.01), far
    assert ours.loss_sum.item() > 0


def test_plain_loop_reads_the_same_images():
    run = RunSpec(ModelSpec("vggnet7", "b" * 9, "b" * 8), TrainSpec("digits", 1, batch=4), 0)
    x = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)
    (images, labels), *_ = PlainTraining(run).batches(x, torch.arange(8))
    expected = build(run.model).image(x[labels])
    torch.testing.assert_close(images, expected)


@pytest.mark.parametrize("spec", [BINARY, BINARY.but(image="b"), ModelSpec("vggnet7", "8bbbbbbbb", "b" * 8)], ids=str)
def test_first_layer_sums_integers(spec):
    """Exactly, in either path: the sum over the codes in int64, divided once."""
    torch.manual_seed(0)
    model = build(spec)
    x = torch.randint(0, 256, (4, *ARCHS[spec.arch].image), dtype=torch.uint8)
    image = model.image(x)
    codes = (image * 255).round().long()
    pad, value = (2, 0 if spec.image == "8" else -255) if spec.arch == "lenet5" else (0, 0)
    w = quantize_weight(model.conv1.weight.detach(), model.conv1.weight_operand)
    unit = 1 if spec.weights[0] == "b" else 2.0**-20
    sums = F.conv2d(F.pad(codes, (pad,) * 4, value=value).double(), (w / unit).round().double()) * unit / 255
    assert torch.equal(model.conv1(image), sums.float())
    fast_sums = forward._convolution(model.conv1, image, spec.arch == "lenet5", False)
    assert torch.equal(fast_sums, F.max_pool2d(sums.float(), 2) if spec.arch == "lenet5" else sums.float())


def test_plain_loop_names_what_it_does_not_know():
    with pytest.raises(UserError, match="tbbb"):
        PlainTraining(RunSpec(BINARY.but(weights="tbbb"), QUICK, 0))


def test_evaluation_does_not_depend_on_the_execution():
    outcome = train(RunSpec(BINARY, QUICK, 0), execution=Execution.choose("cpu"))
    digits = data.load("digits", (1, 28, 28))
    assert outcome.test_accuracy == evaluate(outcome.model, digits.test_x, digits.test_y, "cross_entropy")[1]


@pytest.mark.parametrize(
    "options", [{"kernels": False}, {"kernels": False, "channels_last": False}, {"amp": True}], ids=str
)
def test_options_change_the_result_by_little(options):
    base = train(RunSpec(BINARY, QUICK, 0), execution=Execution.choose("cpu"))
    other = train(RunSpec(BINARY, QUICK, 0), execution=Execution.choose("cpu", **options))
    assert other.history[-1]["train_loss"] == pytest.approx(base.history[-1]["train_loss"], rel=0.2)
    assert other.execution.as_dict() == base.execution.as_dict() | {"kernels": False} | options


@pytest.mark.parametrize(
    "options",
    [{"kernels": True, "amp": True}, {"kernels": True, "compile": True}, {"graph": True}, {"device": "nowhere"}],
    ids=str,
)
def test_options_that_cannot_be_are_one_line(options):
    with pytest.raises(UserError) as caught:
        Execution.choose(**({"device": "cpu"} | options))
    assert "\n" not in str(caught.value)


def test_options_in_words():
    assert Execution.parse(["amp=on", "kernels=off"]) == {"amp": True, "kernels": False}
    for text in ("amp", "amp=yes", "device=on", "speed=on"):
        with pytest.raises(UserError, match="use on or off for kernels, amp"):
            Execution.parse([text])


def test_a_checkpoint_goes_on_under_another_execution(tmp_path):
    run, checkpoint = RunSpec(BINARY, QUICK, 0), tmp_path / "c.pt"
    state = Training(run, Execution.choose("cpu", kernels=False))
    state.epoch(tqdm(disable=True))
    state.save(checkpoint)
    outcome = train(run, execution=Execution.choose("cpu"), checkpoint=checkpoint)
    assert len(outcome.history) == 3 and outcome.execution.kernels


def test_the_committed_curves_of_both_loops_agree():
    """Ten epochs, five seeds: no epoch differs (Welch, Bonferroni), and the last means are nearer than seeds are."""
    kept = files.read_json(agreement.FILE)
    assert set(kept["curves"]) == {f"{side}-s{seed}" for side in agreement.SIDES for seed in range(5)}
    assert all(len(curve) == 10 for curve in kept["curves"].values())
    rows = agreement.compare(kept)
    assert (rows["p"] > 0.05 / len(rows)).all()
    last = rows.iloc[-1]
    assert abs(last["ours"] - last["plain"]) < max(last["ours_sd"], last["plain_sd"])


def test_curves_that_differ_are_told_apart():
    curves = {f"ours-s{s}": [98.0 + 0.1 * s] * 2 for s in range(5)}
    curves |= {f"plain-s{s}": [98.0 + 0.1 * s, 97.0 + 0.1 * s] for s in range(5)}
    rows = agreement.compare({"curves": curves})
    assert rows["p"].tolist() == [1, pytest.approx(0, abs=1e-4)]
    assert rows["ours"].tolist() == pytest.approx([98.2, 98.2]) and rows["ours_sd"][1] == pytest.approx(
        0.1581, abs=1e-4
    )
