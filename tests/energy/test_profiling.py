"""Profiles: what is counted is what is executed, and operands are what the tensors hold."""

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from bnnlib import ModelSpec, UserError, build, studies
from bnnlib.energy.profiling import profile
from bnnlib.energy.recording import on_grid
from bnnlib.nn.layers import QuantConv2d, QuantLinear
from bnnlib.specs import ARCHS, PLANES

LENET = ModelSpec("lenet5", "bbbb", "bbb")
VGGNET = ModelSpec("vggnet7", "b" * 9, "b" * 8)
WIDTHS = [LENET.but(width=w) for w in (1, 2, 4, 8)] + [VGGNET.but(width=w) for w in (1, 2, 4)]
LENETS = [spec for spec in studies.STUDIES["lenet-mnist"].networks.values() if spec.width == 1]


def macs_by_counting(spec: ModelSpec) -> list[int]:
    """Every position of the kernel and every tap, counted one by one from the layers as the paper gives them."""
    w = spec.width
    if spec.arch == "lenet5":  # inputs, outputs, image, padding, kernel; then inputs, outputs
        convs = [(1, 32 * w, 28, 2, 5), (32 * w, 64 * w, 14, 0, 5)]
        linears = [(64 * w * 5 * 5, 512), (512, 10)]
    else:
        convs = [(3, 128 * w, 32, 0, 3), (128 * w, 128 * w, 30, 1, 3), (128 * w, 256 * w, 15, 1, 3),
                 (256 * w, 256 * w, 15, 1, 3), (256 * w, 512 * w, 7, 1, 3), (512 * w, 512 * w, 7, 1, 3)]  # fmt: skip
        linears = [(512 * w * 3 * 3, 1024), (1024, 1024), (1024, 10)]
    counts = []
    for inputs, outputs, size, pad, kernel in convs:
        taps = 0
        for top in range(-pad, size + pad - kernel + 1):
            for left in range(-pad, size + pad - kernel + 1):
                taps += sum(1 for _ in range(top, top + kernel) for _ in range(left, left + kernel))
        counts.append(taps * inputs * outputs)
    return counts + [inputs * outputs for inputs, outputs in linears]


@given(st.data())
def test_the_shapes_of_a_spec_give_what_its_network_executes(data):
    arch = data.draw(st.sampled_from(list(ARCHS)))
    layers = len(ARCHS[arch].layers)
    planes = data.draw(st.sampled_from(PLANES))
    acts = data.draw(st.text("bt82f" if planes == "sign" else "bbbt8", min_size=layers - 1, max_size=layers - 1))
    spec = ModelSpec(
        arch, data.draw(st.text("bt84hf", min_size=layers, max_size=layers)), acts,
        data.draw(st.sampled_from([1 / 8, 3 / 8, 1, 2])), image=data.draw(st.sampled_from("8b")),
        act_planes=planes if "b" in acts else "sign", extra_norm=data.draw(st.booleans()),
    )  # fmt: skip
    with torch.device("meta"):
        network = build(spec)
    pd.testing.assert_frame_equal(profile(spec), profile(network))


def test_mac_counts_of_the_paper():
    lenet, vggnet = profile(LENET), profile(VGGNET)
    assert dict(zip(lenet["name"], lenet["macs"], strict=True)) == {
        "conv1": 627_200, "conv2": 5_120_000, "fc1": 819_200, "fc2": 5_120,
    }  # fmt: skip
    assert dict(zip(vggnet["name"], vggnet["macs"], strict=True)) == {
        "conv1": 3_110_400, "conv2": 132_710_400, "conv3": 66_355_200, "conv4": 132_710_400, "conv5": 57_802_752,
        "conv6": 115_605_504, "fc1": 4_718_592, "fc2": 1_048_576, "fc3": 10_240,
    }  # fmt: skip
    assert (lenet["macs"].sum(), vggnet["macs"].sum()) == (6_571_520, 514_072_064)
    assert (lenet["weight_bits"].sum(), vggnet["weight_bits"].sum()) == (876_320, 10_352_000)
    assert vggnet["vector_length"].tolist() == [27, 1152, 1152, 2304, 2304, 4608, 4608, 1024, 1024]
    assert lenet["activation_bits"].tolist() == [28 * 28 * 8, 32 * 14 * 14, 1600, 512]
    assert (lenet["macs"] == lenet["vector_length"] * lenet["outputs"]).all()


@pytest.mark.parametrize("spec", WIDTHS, ids=lambda s: f"{s.arch}-x{s.width}")
def test_macs_agree_with_torch_and_with_counting(spec):
    rows = profile(spec)
    assert rows["macs"].tolist() == macs_by_counting(spec)
    with torch.device("meta"):
        model = build(spec).eval()
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, *model.image.shape, dtype=torch.uint8, device="meta"))
    assert counter.get_total_flops() == 2 * rows["macs"].sum()


def test_macs_agree_with_torch_where_values_are_computed():
    model = build(LENET).eval()  # on the CPU its first convolution is a matrix product
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 1, 28, 28, dtype=torch.uint8))
    assert counter.get_total_flops() == 2 * profile(model)["macs"].sum()


@pytest.mark.parametrize(
    "spec",
    [*LENETS, VGGNET, VGGNET.but(weights="8" + "b" * 7 + "8", acts="ttbbbbtt"), LENET.but(order="CBAP", acts="tb4"),
     LENET.but(image="b"), LENET.but(norm=False, bias=True), LENET.but(weights="8tb2", acts="8h4"),
     LENET.but(weights="fbbf", acts="bbf", conv_relu=True, extra_norm=True, last_norm=False),
     LENET.but(acts="ttt", ternary_acts="batch")],
    ids=lambda s: f"{s.arch}-{s.weights}-{s.acts}-{s.hash}",
)  # fmt: skip
def test_a_spec_and_its_network_have_one_profile(spec):
    """The network's values are checked against its operands; a spec has none, and must say the same."""
    pd.testing.assert_frame_equal(profile(build(spec)), profile(spec))


def test_operands_are_those_of_the_layers():
    rows = profile(build(LENET.but(weights="8tbf", acts="tb4")))
    assert rows["weight"].tolist() == ["fixed8", "ternary", "binary", "float"]
    assert rows["act"].tolist() == ["fixed8", "ternary", "binary", "fixed4"]
    assert rows["weight_bits"].tolist() == [800 * 8, 51_200 * 2, 819_200, 5120 * 32]
    assert rows["activation_bits"].tolist() == [784 * 8, 6272 * 2, 1600, 512 * 4]


def test_profile_leaves_the_network_and_the_generators_as_they_were():
    model = build(LENET.but(acts="ttt")).train()
    model.norm1.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    state = torch.get_rng_state()
    profile(model)
    profile(LENET.but(swish_beta=3))  # a spec that was not profiled before
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_changed_profile_does_not_change_the_next():
    profile(LENET)["macs"] = 0
    assert profile(LENET)["macs"].sum() == 6_571_520


# a declared operand that the tensors do not have


@pytest.mark.parametrize(
    ("layer", "attribute", "declared", "message"),
    [
        ("act1", "operand", "float", None),
        ("act1", "operand", "ternary", None),  # -1 and 1 are ternary values, if not all of them
        ("act2", "operand", "binary", "the input of fc1 are declared binary but hold 3 values from -1 to 1"),
        ("image", "operand", "fixed4", "the input of conv1 are declared fixed4"),
        ("image", "operand", "binary", "the input of conv1 are declared binary"),
    ],
)
def test_activations_must_be_what_they_are_declared(layer, attribute, declared, message):
    model = build(LENET.but(acts="btb"))
    module = getattr(model, layer)
    forward = type(module).forward
    twin = build(LENET.but(acts="btb"))
    module.forward = lambda x: forward(getattr(twin, layer).eval(), x)  # goes on as it was
    setattr(module, attribute, declared)
    if message is None:
        profile(model)
    else:
        with pytest.raises(UserError, match=message):
            profile(model)
    assert not any(m._forward_hooks for m in model.modules())


@pytest.mark.parametrize("declared", ["binary", "ternary", "fixed8", "fixed16"])
def test_weights_must_be_what_they_are_declared(declared):
    class Latent(QuantLinear):
        def forward(self, x):
            return nn.functional.linear(x, self.weight)

    model = build(LENET)
    model.fc2 = Latent(512, 10, weight_operand=declared)
    with pytest.raises(UserError, match=f"the weights of fc2 are declared {declared} but hold"):
        profile(model)


def test_padding_is_an_operand_too():
    model = build(VGGNET)
    model.conv2.pad_value = 0.0
    with pytest.raises(UserError, match="the input of conv2 are declared binary but hold 3 values"):
        profile(model)


def test_a_product_without_operands_is_refused():
    model = build(LENET)
    model.fc2 = nn.Linear(512, 10)
    with pytest.raises(UserError, match=r"fc2 \(Linear\) multiplies by weights .10, 512. and declares no operands"):
        profile(model)
    with pytest.raises(UserError, match="Sequential has no Image module"):
        profile(nn.Sequential(QuantConv2d(1, 1, 3)))


@pytest.mark.parametrize("bits", [2, 3, 8])
def test_on_grid(bits):
    codes = torch.arange(2**bits).float()
    assert on_grid(codes / (2**bits - 1) - 0.3, bits)
    assert on_grid(codes[[0, -1]] * 17, bits)
    assert not on_grid(torch.arange(2**bits + 1) / 7, bits)
    assert not on_grid(torch.tensor([0, 1, 1.4142]), bits)
    assert on_grid(torch.tensor([0.0, 2.0, 5.0]), 3) and not on_grid(torch.tensor([0.0, 2.0, 5.0]), 2)
    assert on_grid(torch.full((4,), 0.123), bits)
