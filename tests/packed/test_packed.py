"""Packed networks: the same integers as PyTorch and as a brute-force count, from files that nobody has to trust."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import load as read_tensors
from safetensors.numpy import save as tensor_bytes
from torch import nn

from bnnlib import ModelSpec, RunSpec, TrainSpec, UserError, build, data, paths, studies
from bnnlib.energy.profiling import profile
from bnnlib.files import read_json
from bnnlib.kernels import layouts, processor
from bnnlib.kernels.layouts import layout, table
from bnnlib.packed import IntegerLayer, PackedNet, as_bytes, load, norms, pack, restored, save
from bnnlib.packed.network import _Layer, _words
from bnnlib.runs import runner
from bnnlib.runs.attempt import packed_path
from bnnlib.runs.verification import torch_sums, verify
from bnnlib.specs import ARCHS

COUNTINGS = ("table", "word") if processor.looks_up_in_vectors() else ("word",)


def trained_like(spec: ModelSpec, seed: int = 0) -> nn.Sequential:
    """Random weights, and batch norms of both signs with some gains of zero and some ties at the threshold."""
    torch.manual_seed(seed)
    model = build(spec)
    with torch.no_grad():
        for module in model:
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.running_mean.normal_(0, 8).round_()  # an integer, as sums are: a tie where the bias is zero
                module.running_var.uniform_(1, 300)
                if module.affine:
                    module.weight.normal_()
                    module.weight[torch.rand_like(module.weight) < 0.1] = 0
                    module.bias.normal_()
                    module.bias[torch.rand_like(module.bias) < 0.3] = 0
    return model.eval()


def images(spec: ModelSpec, count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, *ARCHS[spec.arch].image), dtype=torch.uint8, generator=generator)


def assert_equal_to_torch(model: nn.Sequential, spec: ModelSpec, x: torch.Tensor, countings=COUNTINGS) -> None:
    network = pack(model, spec)
    sums, logits = torch_sums(model, network.layers[-1].weights.reshape(10, -1), x)
    for counting in countings:
        net = PackedNet(network, counting, threads=1)
        np.testing.assert_array_equal(net.sums(x), sums)
        np.testing.assert_allclose(net.logits(x), logits, rtol=1e-4, atol=1e-4)


@st.composite
def specs(draw) -> ModelSpec:
    arch = draw(st.sampled_from(("lenet5", "lenet5", "vggnet7")))
    layers = len(ARCHS[arch].layers)
    code = st.sampled_from("bbttb")
    weights = draw(st.lists(st.one_of(code, st.sampled_from("b8t25")), min_size=layers, max_size=layers))
    return ModelSpec(
        arch, "".join(weights), "".join(draw(st.lists(code, min_size=layers - 1, max_size=layers - 1))),
        draw(st.integers(1, 3 if arch == "vggnet7" else 10)) / 8, order=draw(st.sampled_from(("CPBA", "CPBA", "CBAP"))),
        image=draw(st.sampled_from("88b")), last_norm=draw(st.booleans()), extra_norm=draw(st.booleans()),
        conv_relu=draw(st.sampled_from((False, False, True))), bias=draw(st.booleans()),
        weight_scale=draw(st.sampled_from(("none", "none", "filter", "layer"))),
        estimator=draw(st.sampled_from(("clip", "bireal", "swish"))),
        ternary_threshold=draw(st.sampled_from(("estimator", "input"))),
    )  # fmt: skip


@pytest.mark.slow
@given(specs(), st.integers(0, 1000), st.integers(1, 5))
@settings(max_examples=40)
def test_any_network_has_the_sums_of_pytorch(spec, seed, count):
    """Widths from 1/8 on give channel counts that are no multiples of 64, 32 or 4."""
    assert_equal_to_torch(trained_like(spec, seed), spec, images(spec, count, seed))


PACKABLE = {
    f"{study}-{name}": spec
    for study in ("lenet-mnist", "vggnet-cifar10")
    for name, spec in studies.get_study(study).networks.items()
    if "f" not in spec.weights
}


@pytest.mark.parametrize("name", PACKABLE)
def test_every_network_of_the_studies_has_the_sums_of_pytorch(name):
    spec = PACKABLE[name]
    assert_equal_to_torch(trained_like(spec), spec, images(spec, 2), COUNTINGS[:1])


def brute_force(layer: IntegerLayer, x: np.ndarray) -> np.ndarray:
    """Values of a layer's activations [N, H', W', O] from values [N, H, W, C]: sums, pooling of sums, thresholds."""
    pad = layer.pad
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode="edge")
    k_h, k_w = layer.weights.shape[1:3]
    windows = np.lib.stride_tricks.sliding_window_view(x, (k_h, k_w), axis=(1, 2))
    sums = np.einsum("nijcab,oabc->nijo", windows.astype(np.int64), layer.weights.astype(np.int64))
    if layer.pool:
        n, height, width, outputs = sums.shape
        four = sums[:, : height // 2 * 2, : width // 2 * 2].reshape(n, height // 2, 2, width // 2, 2, outputs)
        sums = four.max((2, 4))
    steps = [(sums >= threshold) ^ layer.after for threshold in layer.thresholds]
    return 2 * steps[0] - 1 if len(steps) == 1 else steps[0].astype(int) + steps[1] - 1


def as_bits(x: np.ndarray, operand: str) -> np.ndarray:
    """uint64 [planes, N, H, W, words] of values [N, H, W, C]."""
    planes = [x > 0] if operand == "binary" else [x > 0, x >= 0]
    words = -(-x.shape[3] // 64)
    return np.array([[_words(row, words) for row in plane.reshape(-1, x.shape[3])] for plane in planes]).reshape(
        len(planes), *x.shape[:3], words
    )


@given(
    st.tuples(st.integers(1, 3), st.integers(3, 7), st.integers(3, 7), st.integers(1, 70)),
    st.integers(1, 70), st.integers(1, 3), st.integers(0, 1), st.booleans(),
    st.sampled_from(("binary", "ternary")), st.sampled_from(("binary", "ternary", "fixed8")), st.sampled_from((1, 2)),
    st.integers(0, 10**6),
)  # fmt: skip
def test_a_layer_of_any_shape_is_what_a_count_by_numpy_gives(
    shape, outputs, kernel, pad, pool, act, weight, steps, seed
):
    rng = np.random.default_rng(seed)
    size = min(shape[1:3]) + 2 * pad - kernel + 1
    assume(size >= (2 if pool else 1))
    values = {"binary": [-1, 1], "ternary": [-1, 0, 1], "fixed8": range(-128, 128)}
    x = rng.choice(values[act], shape)
    layer = IntegerLayer(
        "conv", weight, act, rng.choice(values[weight], (outputs, kernel, kernel, shape[3])).astype(np.int16), pad,
        None, pool, np.zeros((0, outputs), np.int32), np.zeros(outputs, bool), rng.random(outputs) < 0.3,
    )  # fmt: skip
    spread = 1 + layer.largest // 20
    thresholds = np.sort(rng.integers(-spread, spread + 1, (steps, outputs)), 0)[::-1].astype(np.int32)
    # where the function falls, P is reached earlier than Q
    thresholds = np.where(layer.after, thresholds[::-1], thresholds).astype(np.int32)
    layer = IntegerLayer(**{**vars(layer), "thresholds": thresholds})
    expected = as_bits(brute_force(layer, x), "binary" if steps == 1 else "ternary")
    for counting in COUNTINGS:
        kernels_layer = _Layer(layer, shape[1:3], counting)
        bits, executed = kernels_layer.bits(kernels_layer.code(as_bits(x, act), 1), len(x), 1)
        np.testing.assert_array_equal(bits[:, :, :, : expected.shape[3]], expected)
        dots = expected[0, ..., 0].size * (4 if pool else 1)
        assert executed == dots * 64 * -(-outputs // 64)


def test_a_table_holds_what_the_products_take_off_a_sum():
    form = layout("ternary", "ternary", "table")
    rows = table(form)
    value = {0b00: -1, 0b01: 0, 0b11: 1}  # Q, and P above it
    for p, first in value.items():
        for q, second in value.items():
            code = (p & 1) | (q & 1) << 1 | (p >> 1) << 2 | (q >> 1) << 3
            assert rows[code, 0b1111, 0b1111] == (2 - first - second) + 16 * 0
            assert rows[0b1111, code, 0b1111] == 16 * (2 - first - second)


def test_thresholds_are_where_the_batch_norm_changes_sign():
    """All sums of all channels, one by one."""
    spec = ModelSpec("lenet5", "bbbb", "tbb", 1 / 4)
    model = trained_like(spec, 3)
    layer = pack(model, spec).layers[1]
    sums = torch.arange(-layer.largest, layer.largest + 1)
    with torch.no_grad():
        # as dense as in a forward pass: torch rounds a tie otherwise where the memory has gaps or overlaps
        real = model.norm2(sums.float()[:, None, None, None].repeat(1, len(layer.weights), 1, 1))
    positive = (real[:, :, 0, 0] >= 0).numpy()
    assert positive.any() and not positive.all() and (model.norm2.weight < 0).any() and (model.norm2.weight == 0).any()
    np.testing.assert_array_equal((sums.numpy()[:, None] >= layer.thresholds[0]) ^ layer.after, positive)


@pytest.mark.parametrize("spec", [ModelSpec("lenet5", "tbbt", "tbt"), ModelSpec("vggnet7", "b" * 9, "b" * 8, 1 / 8)])
def test_executed_products_are_those_that_are_costed(spec):
    """All that the energy model counts, but what a pooling of an odd size drops is not computed."""
    net = PackedNet(pack(trained_like(spec), spec), threads=1)
    net.sums(images(spec, 3))
    dropped = {"vggnet7": {"conv4": 15**2 - 14**2, "conv6": 7**2 - 6**2}}.get(spec.arch, {})
    for row, layer in zip(profile(spec).itertuples(), net.layers, strict=True):
        channels = len(layer.layer.weights)
        assert net.executed[row.name] == 3 * (row.outputs - dropped.get(row.name, 0) * channels)
        assert layer.layer.length == row.vector_length


def test_threads_and_batches_change_nothing():
    spec = ModelSpec("lenet5", "tbbb", "tbt")
    network, x = pack(trained_like(spec), spec), images(spec, 130)
    alone = PackedNet(network, threads=1)
    np.testing.assert_array_equal(PackedNet(network, threads=2).sums(x), alone.sums(x))
    np.testing.assert_array_equal(np.concatenate([alone.sums(x[i : i + 1]) for i in range(130)]), alone.sums(x))
    assert alone.sums(x[:0]).shape == (0, 10) and alone.predict(x).shape == (130,)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"weights": "fbbb"}, "weights 'fbbb' has 'f' in layer 1; packed weights are b, t or 2 to 8"),
        ({"weights": "bbb9"}, "weights 'bbb9' has '9' in layer 4"),
        ({"acts": "bb8"}, "acts 'bb8' has '8' behind layer 3; packed activations are b or t"),
        ({"act_planes": "xnor"}, "act_planes 'xnor' has real scales"),
        ({"acts": "btb", "ternary_acts": "batch"}, "ternary_acts 'batch' depends on the batch"),
    ],
)
def test_what_is_no_integer_is_refused(changes, message):
    spec = ModelSpec("lenet5", "bbbb", "bbb").but(**changes)
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        pack(build(spec), spec)


@pytest.mark.parametrize(
    "wrong", [np.zeros((2, 1, 28, 28)), np.zeros((1, 28, 28), np.uint8), np.zeros((2, 3, 28, 28), np.uint8)]
)
def test_images_of_another_kind_are_refused(wrong):
    spec = ModelSpec("lenet5", "bbbb", "bbb", 1 / 8)
    with pytest.raises(UserError, match=r"this network takes uint8 \[N, 1x28x28\]"):
        PackedNet(pack(build(spec), spec)).sums(wrong)


SMALL = ModelSpec("lenet5", "8tbt", "tbt", 1 / 8)


@pytest.fixture(scope="module")
def content() -> bytes:
    return as_bytes(pack(trained_like(SMALL), SMALL))


def test_a_file_holds_the_whole_network(tmp_path, content):
    network = pack(trained_like(SMALL), SMALL)
    again = load(save(network, tmp_path / "a.safetensors"))
    assert (tmp_path / "a.safetensors").read_bytes() == content and again.spec == SMALL
    for one, other in zip(network.layers, again.layers, strict=True):
        for field, value in vars(one).items():
            np.testing.assert_array_equal(value, getattr(other, field))
    np.testing.assert_array_equal(
        PackedNet(again).logits(images(SMALL, 3)), PackedNet(network).logits(images(SMALL, 3))
    )


@pytest.mark.parametrize(
    "spec, most", [(ModelSpec("lenet5", "bbbb", "bbb"), 115_000), (ModelSpec("vggnet7", "b" * 9, "b" * 8), 1_320_000)]
)
def test_a_binary_network_is_small(spec, most):
    bits = int((profile(spec)["weight_bits"]).sum())
    assert bits / 8 < len(as_bytes(pack(trained_like(spec), spec))) < most


@given(st.data())
@settings(max_examples=100)
def test_a_damaged_file_gives_one_line_or_a_network(tmp_path_factory, content, data):
    """Cut anywhere, or a byte changed anywhere: never a traceback."""
    at = data.draw(st.one_of(st.integers(0, len(content) - 1), st.integers(0, 2000)))
    cut = data.draw(st.booleans())
    damaged = (
        content[:at]
        if cut
        else content[:at] + bytes([content[at] ^ data.draw(st.integers(1, 255))]) + content[at + 1 :]
    )
    path = tmp_path_factory.mktemp("damaged") / "a.safetensors"
    path.write_bytes(damaged)
    try:
        network = load(path)
    except UserError as error:
        said = str(error)
    else:
        said = f"{path}" * (not cut)
        PackedNet(network).predict(images(SMALL, 1))
    assert said.startswith(str(path)) and "\n" not in said


def with_tensor(content: bytes, name: str, change) -> bytes:
    """The file with one tensor changed, its metadata as they were."""
    tensors = dict(read_tensors(content))
    tensors[name] = change(tensors.get(name))
    if tensors[name] is None:
        del tensors[name]
    size = int.from_bytes(content[:8], "little")
    return tensor_bytes(tensors, json.loads(content[8 : 8 + size])["__metadata__"])


@pytest.mark.parametrize(
    "name, change, message",
    [
        ("conv2.weights", lambda t: None, "'conv2.weights' is missing"),
        ("conv2.weights", lambda t: t[:-1], r"conv2.weights is uint8 \[\d+\], not uint8"),
        ("conv2.weights", lambda t: t | 255, "have a zero with a sign"),
        ("conv1.weights", lambda t: t.astype(np.int16), "conv1.weights is int16"),
        ("fc1.thresholds", lambda t: t + 10**6, "fc1.thresholds exceed what a sum can be"),
        ("conv1.flips", lambda t: t | 255, "conv1.flips has bits behind its last"),
        ("logits.scale", lambda t: t * np.nan, "a logit is not finite"),
        ("more", lambda t: np.zeros(3, np.uint8), "'more' does not belong to it"),
    ],
)
def test_a_file_that_does_not_fit_its_spec_is_refused(tmp_path, content, name, change, message):
    (tmp_path / "a.safetensors").write_bytes(with_tensor(content, name, change))
    with pytest.raises(UserError, match=message):
        load(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    "old, new, message",
    [
        (b"bnnlib packed 1", b"bnnlib packed 9", "its format is 'bnnlib packed 9'"),
        (b"tbt", b"tbb", "its spec has the hash"),
        (b"lenet5", b"lenet6", "its spec cannot be read|arch 'lenet6' is unknown"),
    ],
)
def test_a_spec_that_is_not_the_files_is_refused(tmp_path, content, old, new, message):
    (tmp_path / "a.safetensors").write_bytes(content.replace(old, new))
    with pytest.raises(UserError, match=message):
        load(tmp_path / "a.safetensors")


def test_a_missing_file_says_where_there_are_some(tmp_path):
    with pytest.raises(UserError, match=r"no file .*; data/pretrained has some"):
        load(tmp_path / "none.safetensors")


@pytest.mark.parametrize("spec", [SMALL, ModelSpec("vggnet7", "bbbbbbbb8", "b" * 8, 1 / 8)])
def test_pytorch_can_be_restored_from_the_integers_and_the_norms(spec):
    model = trained_like(spec)
    network, x = pack(model, spec), images(spec, 3)
    again = restored(network, norms(model))
    with torch.no_grad():
        torch.testing.assert_close(again(x), model(x), rtol=0, atol=0)
    assert as_bytes(pack(again, spec)) == as_bytes(network)
    with pytest.raises(UserError, match="do not fit it"):
        restored(network, norms(trained_like(spec.but(width=spec.width * 2))))


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> dict[str, str]:
    """Environment with two packed runs on the digits: seeds 0 and 1."""
    folder = tmp_path_factory.mktemp("trained")
    variables = {f"BNN_{name}": str(folder / name.lower()) for name in ("RESULTS", "CHECKPOINTS", "PACKED")}
    protocol = TrainSpec("digits", 2, batch=50, train_images=300)
    runs = [RunSpec(SMALL, protocol, seed, "scratch", "small") for seed in (0, 1)]
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        assert runner.train_runs(runs, "cpu", say=lambda line: None, pack=True) == 0
        packed_path(runs[1]).rename(folder / "away")
        with pytest.raises(UserError, match="was trained and not packed; --overwrite trains it again"):
            runner.train_runs(runs, "cpu", say=lambda line: None, pack=True)
        (folder / "away").rename(packed_path(runs[1]))
    return variables


def test_verify_compares_with_pytorch_and_with_the_result(bnn, trained, monkeypatch):
    for name, value in trained.items():
        monkeypatch.setenv(name, value)
    status, out, _ = bnn("verify")
    assert status == 0 and out.count("all sums and predictions equal") == 2 and "300 test images" in out
    folder = paths.packed_dir() / "scratch"
    result = json.loads((paths.results_dir() / "scratch" / "small-s0.json").read_text())
    assert f"small-s0: {(folder / 'small-s0.safetensors').stat().st_size:,} bytes" in out
    assert f"PyTorch {result['test_accuracy']:.2f} %, packed {result['test_accuracy']:.2f} %" in out


def test_verify_finds_the_norms_of_another_training(bnn, trained, monkeypatch, tmp_path):
    for name, value in trained.items():
        monkeypatch.setenv(name, value)
    folder = tmp_path / "scratch"
    shutil.copytree(paths.packed_dir() / "scratch", folder)
    shutil.copy(folder / "small-s1.norms", folder / "small-s0.norms")
    status, out, _ = bnn("verify", str(folder / "small-s0.safetensors"))
    assert status == 1 and "DIFFERENT: " in out and "images with other sums" in out and "gives another file" in out
    (folder / "small-s0.norms").unlink()
    status, out, err = bnn("verify", str(folder / "small-s0.safetensors"))
    assert status == 2 and "which has the batch norms of the network" in err
    monkeypatch.setenv("BNN_PACKED", str(tmp_path / "none"))
    assert "no packed network in" in bnn("verify")[2]


def test_predict_reads_pictures(bnn, trained, monkeypatch, tmp_path):
    digits = data.load("digits", (1, 28, 28))
    network = f"{trained['BNN_PACKED']}/scratch/small-s0.safetensors"
    names = [str(tmp_path / f"{i}.png") for i in range(4)]
    for i, name in enumerate(names):
        Image.fromarray(digits.test_x[i, 0].numpy()).save(name)
    status, out, _ = bnn("predict", *names, "--network", network)
    expected = PackedNet.load(network).predict(digits.test_x[:4])
    assert status == 0 and [line.split(": ")[1][0] for line in out.splitlines()] == [str(label) for label in expected]
    Image.fromarray(255 - digits.test_x[0, 0].numpy()).save(tmp_path / "ink.png")
    inverted = bnn("predict", str(tmp_path / "ink.png"), "--invert", "--network", network)[1]
    assert inverted.split(": ")[1] == out.splitlines(keepends=True)[0].split(": ")[1]
    Image.fromarray(digits.test_x[0, 0].numpy()).convert("RGB").resize((90, 70)).save(tmp_path / "large.jpg")
    assert bnn("predict", str(tmp_path / "large.jpg"), "--network", network)[0] == 0
    (tmp_path / "text.png").write_text("no picture")
    for name, wrong in (("text.png", "is no picture that can be read"), ("none.png", "no file")):
        status, _, err = bnn("predict", str(tmp_path / name), "--network", network)
        assert status == 2 and wrong in err and name in err and err.count("\n") == 1


def test_packing_what_cannot_be_packed_is_refused_before_training(bnn):
    status, _, err = bnn("train", "lenet-mnist", "--name", "float", "--pack", "--overwrite")
    assert status == 2 and "packed weights are b, t or 2 to 8" in err


COMMITTED = sorted((paths.DATA / "pretrained").glob("*/*.safetensors"))


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_committed_network_is_that_of_its_run(path):
    network = load(path)
    run, _, seed = path.stem.rpartition("-s")
    assert network.spec == studies.runs(path.parent.name, run, seed=int(seed))[0].model
    model = restored(network, path.with_suffix(".norms").read_bytes())
    assert as_bytes(pack(model, network.spec)) == path.read_bytes()
    assert_equal_to_torch(model, network.spec, images(network.spec, 20), COUNTINGS[:1])
    accuracy = f"{read_json(paths.RESULTS / path.parent.name / f'{path.stem}.json')['test_accuracy']:.2f} %"
    line = (
        f"{path.parent.name}/{path.stem}: {path.stat().st_size:,} bytes; 10,000 test images: PyTorch {accuracy}, "
        f"packed {accuracy}; all sums and predictions equal\n"
    )
    assert line in (paths.ROOT / "README.md").read_text(), "README.md does not say what `bnn verify` prints"


def test_a_committed_network_has_its_accuracy_on_all_test_images():
    try:
        data.verify("mnist")
    except UserError as error:
        pytest.skip(f"real MNIST is not here: {error}")
    assert verify(paths.DATA / "pretrained" / "lenet-mnist" / "binary-short-s1.safetensors").equal


def test_numbers_are_bytes_where_they_fit(monkeypatch):
    """An input of 2 g - 255 is 255 - 2 (255 - g); a border of zero is none of these values."""
    monkeypatch.setattr(layouts, "multiplies_bytes", lambda: True)
    grey = np.arange(256)
    assert layout("fixed8", "binary", None, np.append(2 * grey - 255, 0)).name == "product"
    for values, top, factor in ((grey, 255, 1), (2 * grey - 255, 255, 2), (np.array([-1, 1]), 1, 2)):
        form = layout("fixed8", "binary", None, values)
        assert (form.name, form.top, form.factor) == ("bytes", top, factor)
    monkeypatch.setattr(layouts, "multiplies_bytes", lambda: False)
    assert layout("fixed8", "fixed8", None, grey).name == "product"


OTHER_PROCESSOR = """
import sys, numpy as np
from bnnlib.kernels import processor
from bnnlib.packed import PackedNet
assert processor.counting() == sys.argv[4]
assert not processor.counts_bits_in_vectors() and not processor.multiplies_bytes()
np.save(sys.argv[2], PackedNet.load(sys.argv[1], threads=1).sums(np.load(sys.argv[3])))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, features, counting", [("generic", "", "word"), ("haswell", "+avx,+avx2,+popcnt,+sse4.2,+ssse3", "table")]
)
def test_an_older_processor_gives_the_same(tmp_path, content, name, features, counting):
    if counting not in COUNTINGS:
        pytest.skip("this processor has no AVX2")
    (tmp_path / "a.safetensors").write_bytes(content)
    x = images(SMALL, 2).numpy()
    np.save(tmp_path / "x.npy", x)
    forced = {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": features, "NUMBA_CACHE_DIR": str(tmp_path)}
    environment = os.environ | forced | {"PYTHONPATH": str(paths.ROOT)}
    files = [str(tmp_path / file) for file in ("a.safetensors", "y.npy", "x.npy")]
    subprocess.run([sys.executable, "-c", OTHER_PROCESSOR, *files, counting], check=True, env=environment)
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), PackedNet.load(files[0]).sums(x))


VECTOR_COUNT = """
import sys
from numba import njit, types
from bnnlib.kernels import deficits, layouts, processor
assert processor.counting() == "word" and processor.counts_bits_in_vectors()
assert layouts.triples() == (sys.argv[1] == "vnni")
@njit(error_model="numpy")
def add(sums, acts, starts, tables, weights, run):
    deficits.add_deficits(sums, 0, acts, starts, 0, 0, 0, tables, weights, 0, 1, run)
array = lambda kind, axes: types.Array(kind, axes, "C")
signature = (array(types.int32, 1), array(types.uint32, 1), array(types.intp, 1), array(types.uint8, 2),
             array(types.uint32, int(sys.argv[2])), types.intp)
add.compile(signature)
print(add.inspect_asm(signature))
"""


@pytest.mark.skipif(COUNTINGS == ("word",), reason="names x86 processors")
@pytest.mark.parametrize("vnni", [True, False])
@pytest.mark.parametrize("planes", [1, 2])
def test_a_processor_that_counts_bits_in_vectors_is_used(vnni, planes):
    """Compiled for it, not run: 3 pixels times 64 outputs are 12 vectors of 16 counts, all kept in registers."""
    features = "+avx512f,+avx512bw,+avx512vl,+avx512dq,+avx512vpopcntdq,+avx2,+popcnt,-prefer-256-bit"
    features += ",+avx512vnni" * vnni
    forced = {"NUMBA_CPU_NAME": "icelake-server", "NUMBA_CPU_FEATURES": features, "PYTHONPATH": str(paths.ROOT)}
    run = subprocess.run(
        [sys.executable, "-c", VECTOR_COUNT, "vnni" if vnni else "", str(3 + planes)],
        check=True, env=os.environ | forced, capture_output=True, text=True,
    )  # fmt: skip
    counts = [line for line in run.stdout.splitlines() if "vpopcntd" in line]
    assert len(counts) >= 12 and all("%zmm" in line and "(%rsp)" not in line for line in counts)
    doubled = sum("vpdpbusd" in line and "%zmm" in line for line in run.stdout.splitlines())
    assert doubled == (12 if vnni and planes == 1 else 0), "a full adder for every three words of binary weights"
