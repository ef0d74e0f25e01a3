"""Networks of one's own: what ``binarize`` makes of them, what they cost, that they train, and what is refused."""

import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import pictures, small_resnet18, tiny
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import mobilenet_v2, resnet18
from tqdm import tqdm

import bnnlib
from bnnlib import Data, TrainSpec, UserError, binarize, data, energy_uj, fit, profile
from bnnlib.energy import energy_fj
from bnnlib.nn.binarization import FixedPointAct, OwnConv2d, OwnLinear
from bnnlib.nn.layers import weight_scale
from bnnlib.operands import OPERANDS


class Residual(nn.Module):
    """Convolutions with a shortcut, a name with a dot, one module under two names, and a fully connected layer."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 8, 3, padding=1, bias=False)
        self.norm1, self.relu = nn.BatchNorm2d(8), nn.ReLU()
        self.block = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=2), nn.BatchNorm2d(8))
        self.down = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.again = self.block[0]
        self.norm2 = nn.BatchNorm2d(16)
        self.fc = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.norm1(self.conv1(x)))
        x = x + self.block(x)
        return self.fc(self.norm2(self.down(self.relu(self.again(x)))).mean((2, 3)))


NAMES = ["conv1", "block.0", "down", "again", "fc"]


# --- which layer gets which operands ----------------------------------------------------------------------------------

pieces = st.sampled_from([*NAMES, "*", "block*", "*.0", "conv?", "[bd]*", "*n*", "??"])
codes = st.sampled_from(sorted(OPERANDS))


def as_regular_expression(pattern: str) -> str:
    return pattern.replace(".", r"\.").replace("*", ".*").replace("?", ".")


@given(st.dictionaries(pieces, codes, min_size=1, max_size=4), st.dictionaries(pieces, codes, min_size=1, max_size=4))
def test_the_first_pattern_that_fits_counts_and_all_else_stays_float(weights, acts):
    taken = {}
    for what, patterns in (("weights", weights), ("acts", acts)):
        for name in NAMES:
            fits = [p for p in patterns if re.fullmatch(as_regular_expression(p), name)]
            taken[what, name] = fits[0] if fits else None
        idle = set(patterns) - {pattern for (of, _), pattern in taken.items() if of == what}
        if idle:  # a pattern without any effect is a mistake
            with pytest.raises(UserError, match=rf"^{what}: (no layer is called|patterns before) '"):
                binarize(Residual(), weights, acts, image=(3, 8, 8))
            return
    torch.manual_seed(0)
    made = binarize(Residual(), weights, acts, image=(3, 8, 8)).net
    assert made.again is made.block[0]  # one module still, with the operands of its first name
    for name in NAMES:
        layer, first = made.get_submodule(name), "block.0" if name == "again" else name
        assert layer.weight_operand == OPERANDS[weights.get(taken["weights", first], "f")], name
        seen = "fixed8" if name == "conv1" else OPERANDS[acts.get(taken["acts", first], "f")]
        assert layer.input_operand == seen, name


def test_the_network_that_was_handed_over_stays_as_it_was():
    torch.manual_seed(0)
    net = Residual().eval()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    made = binarize(net, image=(3, 8, 8)).train()
    made(pictures(4, 3, 8, 8)).sum().backward()
    assert type(net.conv1) is nn.Conv2d and type(net.relu) is nn.ReLU and type(made.net.relu) is nn.Hardtanh
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())
    trained = {key.removeprefix("net."): value for key, value in made.state_dict().items()}
    assert all(
        torch.equal(trained[key], value) for key, value in before.items() if "norm" not in key and "1." not in key
    )


@pytest.mark.parametrize("net", [small_resnet18, Residual, lambda: mobilenet_v2(num_classes=10)])
def test_in_float_it_is_the_same_network(net):
    torch.manual_seed(0)
    net, x = net().eval(), pictures(3, 3, 32, 32)
    made = binarize(net, "f", "f", image=(3, 32, 32))
    assert not made.training
    with torch.no_grad():
        torch.testing.assert_close(made(x), net((2 * x.float() - 255) / 255), rtol=1e-4, atol=1e-5)
        unsigned = binarize(net, "f", "f", image=(3, 32, 32), signed=False)
        torch.testing.assert_close(unsigned(x), net(x.float() / 255), rtol=1e-4, atol=1e-5)


def test_a_single_layer_is_a_network_too():
    made = binarize(nn.Conv2d(3, 10, 8), "t", image=(3, 8, 8))
    assert isinstance(made.net, OwnConv2d) and made(pictures(2, 3, 8, 8)).shape == (2, 10, 1, 1)


# --- what a layer computes --------------------------------------------------------------------------------------------


@given(
    st.integers(1, 3), st.integers(1, 2), st.integers(0, 2), st.integers(1, 2), st.sampled_from([1, 2]), st.booleans(),
    st.sampled_from(["none", "filter", "layer"]), st.integers(0, 99),
)  # fmt: skip
def test_a_binary_convolution_sums_signs_of_a_repeated_border(kernel, stride, pad, dilation, groups, bias, scale, seed):
    torch.manual_seed(seed)
    plain = nn.Conv2d(4, 6, kernel, stride, pad, dilation, groups, bias)
    x = torch.randn(2, 4, 9, 7)
    y = OwnConv2d(plain, "binary", "binary", "clip", scale)(x)
    border = F.pad(torch.where(x >= 0, 1.0, -1.0), (pad,) * 4, "replicate")
    signs = torch.where(plain.weight >= 0, 1.0, -1.0)
    wanted = F.conv2d(border, signs, None, stride, 0, dilation, groups)
    of = {"none": 1.0, "filter": plain.weight.abs().mean((1, 2, 3)).view(6, 1, 1), "layer": plain.weight.abs().mean()}
    wanted = wanted * of[scale] + (plain.bias.view(6, 1, 1) if bias else 0)
    torch.testing.assert_close(y, wanted)


@given(
    st.sampled_from(["b", "t", "2", "3", "8", "h"]), st.sampled_from(["b", "t", "2", "5", "8", "h"]), st.integers(0, 9)
)
def test_products_are_of_the_operands_that_the_layer_declares(weight, act, seed):
    torch.manual_seed(seed)
    layer = OwnLinear(nn.Linear(12, 5), OPERANDS[weight], OPERANDS[act], "clip", "filter").train()
    seen = []
    layer.products = lambda x, w: (seen.append((x, w)), F.linear(x, w))[1]
    y = layer(3 * torch.randn(20, 12))
    x, w = seen[0]
    for values, code in ((x, act), (w, weight)):
        most = {"b": 2, "t": 3, "h": 2**16}.get(code) or 2 ** int(code)
        assert 1 < len(values.unique()) <= most
    alpha = weight_scale(layer.weight, OPERANDS[weight], "filter").flatten() if weight in "bt" else 1
    torch.testing.assert_close(y, F.linear(x, w) * alpha + layer.bias)
    y.sum().backward()
    assert layer.weight.grad.abs().sum() > 0


@given(st.integers(2, 9), st.floats(0.01, 100), st.integers(0, 99))
def test_fixed_point_takes_the_range_that_the_activation_has(bits, spread, seed):
    torch.manual_seed(seed)
    act = FixedPointAct(f"fixed{bits}").train()
    x = spread * torch.randn(50)
    act(x)
    largest = float(act.running_max)
    assert largest == float(x.abs().max())  # of the first batch, as there is none before it
    scale = 2.0 ** np.ceil(np.log2(largest))
    step = scale / 2 ** (bits - 1)
    act.eval()
    y = act(x)
    assert torch.equal(y, (y / step).round() * step) and float(y.min()) >= -scale and float(y.max()) < scale
    inside = x < scale - step / 2  # the last code is one step under the range
    assert bool(((y - x).abs()[inside] <= step / 2 * (1 + 1e-5)).all())
    assert torch.equal(act(x[:3]), y[:3])  # a prediction does not depend on its batch
    act.train()
    act(2 * x)
    assert float(act.running_max) == pytest.approx(largest * 1.1)


# --- what it costs ----------------------------------------------------------------------------------------------------


def test_macs_of_resnet18_are_those_that_torch_counts():
    net = small_resnet18().eval()
    rows = profile(binarize(net, image=(3, 32, 32)))
    with FlopCounterMode(display=False) as counter:
        net(torch.zeros(1, 3, 32, 32))
    assert rows["macs"].sum() == counter.get_total_flops() // 2 == 555_422_720
    assert len(rows) == 21 and rows["name"].iloc[[0, 1, -1]].tolist() == ["net.conv1", "net.layer1.0.conv1", "net.fc"]
    assert rows["vector_length"].iloc[[0, 1, -1]].tolist() == [27, 576, 512]
    weights = sum(m.weight.numel() for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear))
    assert rows["weight_bits"].sum() == weights  # one bit each
    large = profile(binarize(resnet18(), image=(3, 224, 224)))
    assert large["macs"].sum() == 1_814_073_344


def test_energy_of_resnet18_follows_the_operands_layer_by_layer():
    net = small_resnet18()
    weights, acts = {"conv1": "8", "fc": "8", "*": "b"}, {"fc": "8", "*downsample*": "t", "*": "b"}
    rows = profile(binarize(net, weights, acts, image=(3, 32, 32))).set_index("name")
    assert tuple(rows.loc["net.conv1", ["act", "weight"]]) == ("fixed8", "fixed8")
    assert tuple(rows.loc["net.fc", ["act", "weight"]]) == ("fixed8", "fixed8")
    shortcut = rows.index.str.contains("downsample")
    assert shortcut.sum() == 3 and (rows.loc[shortcut, "act"] == "ternary").all()
    inner = rows.iloc[1:-1]
    assert (inner["weight"] == "binary").all() and (inner.loc[~shortcut[1:-1], "act"] == "binary").all()
    assert energy_fj(rows).sum() * 1e-9 == pytest.approx(energy_uj(rows))
    uj = {code: energy_uj(binarize(net, code, code, image=(3, 32, 32))) for code in "bt8f"}
    assert uj["b"] < uj["t"] < uj["8"] == uj["f"]  # one price for wide operands in the table of the paper
    assert 40 < uj["f"] / uj["b"] < 80  # between the two networks of the paper, 31 and 68, or near


def test_products_that_are_not_counted_are_named():
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.fc(x.flatten(2))
            return (y @ y.transpose(1, 2)).flatten(1)

    made = binarize(Attention(), "b", "f", image=(3, 2, 4))
    with pytest.raises(UserError, match=r"net \(Attention\) multiplies by \w*matmul\w*, which is not counted"):
        profile(made)


# --- training ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits() -> Data:
    found = data.load("digits", (1, 12, 12))
    return Data.of((found.train_x, found.train_y), (found.val_x, found.val_y), (found.test_x, found.test_y))


PROTOCOL = TrainSpec("own", epochs=3, batch=50, lr=2e-3)


def binary_tiny() -> nn.Sequential:
    return binarize(tiny(), {"0": "8", "*": "b"}, image=(1, 12, 12))


def test_a_binarized_network_learns_the_digits_and_a_seed_gives_it_again(digits):
    first, second = (fit(binary_tiny(), digits, PROTOCOL) for _ in range(2))
    assert first.test_accuracy > 85  # of ten classes
    assert first.history == second.history and first.test_accuracy == second.test_accuracy
    assert fit(binary_tiny(), digits, PROTOCOL, seed=1).history != first.history
    assert not first.model.training
    hits = (first.model(digits.test_x).argmax(1) == digits.test_y).float().mean()
    assert 100 * float(hits) == pytest.approx(first.test_accuracy)
    assert max(row["val_accuracy"] for row in first.history) == first.history[first.best_epoch - 1]["val_accuracy"]
    assert first.data_checksum == digits.checksum
    assert profile(first.model)["weight"].tolist() == ["fixed8", "binary", "binary"]


def test_the_weights_of_a_trained_float_network_are_a_start(digits):
    shape, short = (1, 12, 12), PROTOCOL.but(epochs=1)
    floating = fit(binarize(tiny(), "f", "f", image=shape), digits, PROTOCOL)
    assert floating.test_accuracy > 90
    trained = tiny()
    trained.load_state_dict({key.removeprefix("net."): value for key, value in floating.model.state_dict().items()})
    from_float, from_nothing = (
        fit(binarize(net, "b", "f", image=shape), digits, short) for net in (trained, tiny(seed=1))
    )
    assert from_float.history[0]["train_loss"] < from_nothing.history[0]["train_loss"]
    assert from_float.test_accuracy > from_nothing.test_accuracy


def test_an_interrupted_fit_goes_on_bit_for_bit(digits, tmp_path):
    class Stops(tqdm):
        left = 30  # steps: the second epoch has not ended

        def update(self, n: float = 1) -> None:
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt

    def fresh() -> nn.Module:
        return binarize(tiny(), "t", "t", image=(1, 12, 12))

    file = tmp_path / "own.pt"
    whole = fit(fresh(), digits, PROTOCOL)
    with pytest.raises(KeyboardInterrupt):
        fit(fresh(), digits, PROTOCOL, checkpoint=file, bar=Stops(disable=True))
    assert fit(fresh(), digits, PROTOCOL, checkpoint=file, max_minutes=0) is None
    pieces = fit(fresh(), digits, PROTOCOL, checkpoint=file)
    assert pieces.history == whole.history
    state = whole.model.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in pieces.model.state_dict().items())
    with pytest.raises(UserError, match=r"own\.pt belongs to another spec"):
        fit(binary_tiny(), digits, PROTOCOL, checkpoint=file)


# --- mistakes ---------------------------------------------------------------------------------------------------------


class FunctionalRelu(Residual):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.down(F.relu(self.norm1(self.conv1(x)))).mean((2, 3)))


@pytest.mark.parametrize(
    ("net", "arguments", "message"),
    [
        (Residual, {"weights": "x"}, "weights 'x' is no operand code; use 'b', 't', 'f', 'h', '2'"),
        (Residual, {"weights": "bbtb"}, "weights 'bbtb' is no operand code; use 'b'"),
        (Residual, {"weights": {"fc": 8}}, "weights of 'fc' 8 is no operand code; use 'b'"),
        (Residual, {"acts": {"*": ["b"]}}, r"acts of '\*' \['b'\] is no operand code; use 'b'"),
        (Residual, {"acts": None}, "acts None is neither an operand code nor a dictionary of them by name pattern"),
        (Residual, {"weights": ["b"]}, r"weights \['b'\] is neither an operand code nor"),
        (Residual, {"weights": {"conv9": "b"}}, "weights: no layer is called 'conv9'; the layers are conv1, block.0, "),
        (Residual, {"acts": {"relu": "b"}}, "acts: no layer is called 'relu'; the layers are conv1"),
        (Residual, {"weights": {"*": "b", "fc": "8"}}, "weights: patterns before 'fc' take all that it fits; put it"),
        (Residual, {"estimator": "ste"}, "estimator 'ste' is unknown; use one of 'identity'"),
        (Residual, {"scale": "channel"}, "scale 'channel' is unknown; use one of 'none', 'filter', 'layer'"),
        (Residual, {"image": (8, 8)}, r"image \(8, 8\) is no shape; give \(channels, height, width\)"),
        (Residual, {"image": 3}, "image 3 is no shape"),
        (Residual, {"image": (3, 8, 0.5)}, r"image \(3, 8, 0.5\) is no shape"),
        (Residual, {"image": (1, 8, 8)}, "the network does not take images 1x8x8: .*expected input"),
        (nn.ReLU, {}, "ReLU has no nn.Conv2d and no nn.Linear to quantize"),
        (FunctionalRelu, {}, "the inputs of down are never negative, so that their signs are all .1; put a batch norm"),
        (lambda: binarize(Residual(), image=(3, 8, 8)), {}, "Sequential is quantized already; give the network that"),
        (lambda: bnnlib.build(bnnlib.ModelSpec("lenet5", "bbbb", "bbb")), {}, "Sequential is quantized already"),
    ],
)  # fmt: skip
def test_binarize_refuses_in_one_line(net, arguments, message):
    with pytest.raises(UserError, match=f"^{message}") as refused:
        binarize(net(), **({"image": (3, 8, 8)} | arguments))
    assert "\n" not in str(refused.value)


def test_a_functional_relu_may_keep_its_sign_where_the_inputs_are_no_signs():
    acts = {"down": "8", "*": "b"}
    assert profile(binarize(FunctionalRelu(), "b", acts, image=(3, 8, 8)))["act"].tolist() == [
        "fixed8",
        "fixed8",
        "binary",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"protocol": TrainSpec("mnist", epochs=1)}, "dataset 'mnist' needs a ModelSpec; use Tr"),
        ({"protocol": PROTOCOL.but(pretrain_epochs=2)}, "pretrain_epochs=2 needs a ModelSpec"),
        ({"protocol": PROTOCOL.but(teacher=PROTOCOL, distill=0.5)}, "a teacher needs a ModelSpec"),
        ({"protocol": PROTOCOL.but(batch=5000)}, "batch 5000 is too large; there are"),
        ({"protocol": PROTOCOL.but(train_images=5000)}, "train_images 5000 is too many; own has"),
        ({"shape": (1, 8, 8)}, r"the images are \[1, 12, 12\], the network takes \[1, 8, 8\]; make them equal"),
        ({"net": nn.Sequential(nn.Flatten(), nn.Linear(144, 4))}, "a label is 9; the network has 4 outputs, for "),
    ],
)  # fmt: skip
def test_fit_refuses_in_one_line(digits, change, message):
    made = binarize(change.get("net", Residual(channels=1)), image=change.get("shape", (1, 12, 12)))
    with pytest.raises(UserError, match=f"^{message}"):
        fit(made, digits, change.get("protocol", PROTOCOL))


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ((torch.zeros(4, 1, 8, 8), torch.zeros(4, dtype=torch.long)), "train images are torch.float32"),
        ((np.zeros((4, 8, 8), np.uint8), np.zeros(4, int)), r"train images are torch.uint8 \[4, 8, 8\]"),
        ((np.zeros((0, 1, 8, 8), np.uint8), np.zeros(0, int)), r"train images are torch.uint8 \[0, 1, 8, 8\]"),
        ((np.zeros((4, 1, 8, 8), np.uint8), np.zeros(3, int)), "train labels are torch.int64"),
        ((np.zeros((4, 1, 8, 8), np.uint8), np.zeros(4)), "train labels are torch.float64"),
        ((np.zeros((4, 1, 8, 8), np.uint8), np.array([0, 1, -1, 2])), "train labels are torch.int64"),
        ((np.zeros((4, 1, 9, 8), np.uint8), np.zeros(4, int)), r"val images are \[1, 8, 8\], those of train \[1, 9"),
    ],
)  # fmt: skip
def test_data_of_ones_own_are_checked(train, message):
    part = np.zeros((4, 1, 8, 8), np.uint8), np.arange(4)
    with pytest.raises(UserError, match=f"^{message}"):
        Data.of(train, part, part)


def test_what_the_package_offers_is_there():
    for name in bnnlib.__all__:
        assert getattr(bnnlib, name) is not None and name in dir(bnnlib)
    with pytest.raises(AttributeError, match="module 'bnnlib' has no attribute 'binarise'"):
        bnnlib.binarise  # noqa: B018
