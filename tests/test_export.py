"""ONNX files: onnxruntime predicts what PyTorch does, weights are integers, and what cannot be written is refused."""

import re
import shlex
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from helpers import pictures, small_resnet18, tiny
from onnx import numpy_helper
from torch import nn

from bnnlib import ModelSpec, UserError, binarize, build, data, export_onnx, paths
from bnnlib.nn.layers import Image, quantize_weight
from bnnlib.packed import PackedNet

BINARY = "lenet-mnist/binary-short-s1"


def session(path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def trained_like(model: nn.Module) -> nn.Module:
    """In eval mode, with batch norms as of some training."""
    shape = next(module.shape for module in model.modules() if isinstance(module, Image))
    torch.manual_seed(0)
    with torch.no_grad():
        for seed in range(3):
            model.train()(pictures(16, *shape, seed=seed))
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.affine:
                module.weight.normal_()
                module.bias.normal_()
    return model.eval()


def assert_equal_predictions(model: nn.Module, path, x: torch.Tensor, atol: float = 1e-4) -> None:
    with torch.no_grad():
        wanted = model(x)
    run = session(path)
    found = run.run(["logits"], {"image": x.numpy()})[0]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=atol)
    np.testing.assert_array_equal(found.argmax(1), wanted.argmax(1))
    one = run.run(["logits"], {"image": x[:1].numpy()})[0]  # any number of images
    np.testing.assert_allclose(one, found[:1], rtol=1e-4, atol=atol)


VARIANTS = {
    "binary": ModelSpec("lenet5", "bbbb", "bbb"),
    "ternary": ModelSpec("lenet5", "tttt", "ttt"),
    "balanced": ModelSpec("lenet5", "btbb", "bbt", balance=True),
    "float": ModelSpec("lenet5", "ffff", "fff"),
    "8 bits": ModelSpec("lenet5", "8888", "888"),
    "16 bits": ModelSpec("lenet5", "hhhh", "hhh"),
    "mixed, biases, scales": ModelSpec("lenet5", "2t3b", "4b9", bias=True, weight_scale="filter"),
    "a scale per layer, bireal": ModelSpec("lenet5", "btbt", "btb", weight_scale="layer", estimator="bireal"),
    "binary image": ModelSpec("lenet5", "bbbb", "bbb", image="b", order="CBAP"),
    "XNOR-Net": ModelSpec("lenet5", "fbbf", "bbb", weight_scale="filter", act_planes="xnor", extra_norm=True),
    "DoReFa-1-2": ModelSpec("lenet5", "fbbf", "bbb", weight_scale="layer", act_planes="dorefa2"),
    "VGGNet7": ModelSpec("vggnet7", "b" * 9, "b" * 8, width=0.125),
    "VGGNet7, ternary": ModelSpec("vggnet7", "t" * 9, "t" * 8, width=0.125),
    "VGGNet7, mixed": ModelSpec("vggnet7", "8tbbtbbb8", "btb8bbtb", width=0.125),
}


@pytest.mark.parametrize("spec", VARIANTS.values(), ids=VARIANTS)
def test_onnxruntime_predicts_what_pytorch_does(spec, tmp_path):
    model = trained_like(build(spec))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    path = export_onnx(model, tmp_path / "model.onnx")
    assert_equal_predictions(model, path, pictures(60, *model.image.shape))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())  # left as it was


@pytest.mark.parametrize(
    ("weights", "acts"), [("b", "b"), ({"conv1": "8", "fc": "8", "*": "t"}, {"fc": "8", "*downsample*": "t", "*": "b"})]
)
def test_a_residual_network_of_ones_own_is_exported(weights, acts, tmp_path):
    model = trained_like(binarize(small_resnet18(), weights, acts, image=(3, 32, 32)))
    assert_equal_predictions(model, export_onnx(model, tmp_path / "r.onnx"), pictures(8, 3, 32, 32, seed=9))


def test_weights_are_integers_with_their_step(tmp_path):
    spec = ModelSpec("lenet5", "bt8h", "bbb")
    model = trained_like(build(spec))
    proto = onnx.load(export_onnx(model, tmp_path / "model.onnx"))
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    made_by = {output: node for node in proto.graph.node for output in node.output}
    levels = {"conv1": (np.int8, 1), "conv2": (np.int8, 1), "fc1": (np.int8, 128), "fc2": (np.int16, 2**15)}
    for name, (dtype, most) in levels.items():
        node, layer = made_by[f"{name}.weight"], model.get_submodule(name)
        assert node.op_type == "DequantizeLinear" and list(node.input) == [
            f"{name}.weight.{x}" for x in ("integers", "step")
        ]
        integers, step = (tensors[name] for name in node.input)
        assert integers.dtype == dtype and np.abs(integers.astype(int)).max() <= most
        values = quantize_weight(layer.weight.detach(), layer.weight_operand).numpy()
        np.testing.assert_array_equal(integers * step, values)
    (image,), (logits,) = proto.graph.input, proto.graph.output
    shapes = [[d.dim_param or d.dim_value for d in io.type.tensor_type.shape.dim] for io in (image, logits)]
    assert image.name == "image" and image.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert shapes == [["N", 1, 28, 28], ["N", 10]] and logits.name == "logits"


def test_a_file_knows_nothing_of_the_machine_that_wrote_it(tmp_path):
    content = export_onnx(build(VARIANTS["binary"]).eval(), tmp_path / "model.onnx").read_bytes()
    assert not re.findall(rb"site-packages|\.py\b|" + re.escape(str(paths.ROOT).encode()), content)


def test_a_trained_network_of_the_repository_is_exported_by_a_command(bnn, tmp_path):
    packed = paths.DATA / "pretrained" / f"{BINARY}.safetensors"
    status, said, err = bnn("export", str(packed), str(tmp_path / "lenet.onnx"))
    size = (tmp_path / "lenet.onnx").stat().st_size
    assert (status, err) == (0, "")
    assert said == f"{tmp_path}/lenet.onnx: {size:,} bytes; image uint8 [N, 1, 28, 28], logits float32 [N, 10]\n"
    x = data.load("digits").test_x
    logits = session(tmp_path / "lenet.onnx").run(None, {"image": x.numpy()})[0]
    np.testing.assert_array_equal(logits.argmax(1), PackedNet.load(packed).predict(x))


class Branches(nn.Module):
    """Its steps depend on what it sees: no graph can say that."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.fc(x.flatten(1))
        return y if float(y.sum()) > 0 else -y


class OneByOne(Branches):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.fc(image.flatten(1)) for image in x.split(1)])


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: tiny(), "Sequential has 0 Image modules; export takes a network with one"),
        (lambda: binarize(Branches(), "b", "f", image=(1, 4, 4)), "Sequential cannot be written as ONNX: "),
        (
            lambda: binarize(OneByOne(), "b", "f", image=(1, 4, 4)),
            "Sequential cannot be written as ONNX: its steps dep",
        ),
        (
            lambda: build(ModelSpec("lenet5", "bbbb", "bbb", act_planes="horq")),
            "Sequential cannot be written as ONNX: ",
        ),
        (
            lambda: nn.Sequential(Image((1, 4, 4), True, "fixed8"), Image((1, 4, 4), True, "fixed8")),
            ".* 2 Image modules",
        ),
    ],
)
def test_what_onnx_cannot_say_is_refused_in_one_line_and_nothing_is_written(model, message, tmp_path):
    with pytest.raises(UserError, match=f"^{message}") as refused:
        export_onnx(model(), tmp_path / "model.onnx")
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 300
    assert list(tmp_path.iterdir()) == []


def test_the_readme_shows_what_the_command_prints(bnn, monkeypatch, tmp_path):
    command, line = re.search(r"^\$ bnn (export .*)\n(.*\n)", (paths.ROOT / "README.md").read_text(), re.M).groups()
    command, network, out = shlex.split(command)
    monkeypatch.chdir(tmp_path)
    assert bnn(command, str(paths.ROOT / network), out) == (0, line, "")


def test_a_file_that_cannot_be_written_or_read_is_named(bnn, tmp_path):
    (tmp_path / "file").touch()
    for arguments, said in (
        ((f"{BINARY}.safetensors", "file/x.onnx"), "cannot write"),
        (("gone.safetensors", "x.onnx"), "bnn: no file"),
    ):
        status, _, err = bnn("export", str(paths.DATA / "pretrained" / arguments[0]), str(tmp_path / arguments[1]))
        assert status == 2 and said in err and err.count("\n") == 1


def test_without_onnx_the_command_that_installs_it_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(
        UserError, match=r"ONNX export needs onnxscript; pip install -c requirements\.lock -e '\.\[onnx\]'"
    ):
        export_onnx(build(VARIANTS["binary"]), tmp_path / "x.onnx")


def test_nothing_of_onnx_is_imported_before_it_is_needed():
    code = "import sys, bnnlib.cli, bnnlib.export; print(*[m for m in sys.modules if m.startswith(('onnx', 'pandas'))])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=paths.ROOT)
    assert "onnx" not in run.stdout and not run.stderr
