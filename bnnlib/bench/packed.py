"""How fast packed execution is: the binary layers of VGGNet7 and the whole network, beside other ways to run them.

Machines differ and are shared, so every figure is a median over rounds in which all sides take turns, and a ratio is
the median of the ratios of the rounds. A rate counts the MACs that a side executes: what a pooling of an odd size
drops, ours never computes, and has no credit for, in the layers; for the whole network all sides have the network's.

NOTE: once torch has run bfloat16 in a process, a prediction of one image takes us 325 instead of 288 us there (AVX-512,
2 cores); the benchmark has both in one process all the same.
"""

import copy
import statistics
import time
import tracemalloc
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from bnnlib import studies
from bnnlib.bench.others import int8_network, onnxruntime_int8, openvino_binary
from bnnlib.energy.profiling import profile
from bnnlib.nn.models import build
from bnnlib.packed import PackedNet, pack

LAYER_BATCH = 16
NETWORK_BATCHES = (1, 16)
TERNARY = "conv4 ternary"  # weights and inputs


def packed(seconds: float, rounds: int) -> Iterator[dict]:
    """The rows of the table as they come.

    Args:
        seconds: for each side, in each round.
        rounds: how many.
    """
    networks = studies.get_study("vggnet-cifar10").networks
    torch.manual_seed(0)
    spec = networks["binary"]
    binary, floating = build(spec).eval(), build(networks["float"]).eval()
    net = PackedNet(pack(binary, spec))
    ternary = spec.but(weights="t" * 9, acts="t" * 8)
    ternary = PackedNet(pack(build(ternary).eval(), ternary))
    cases = [layer.layer.name for layer in net.layers[1:6]] + [f"vggnet7 batch {n}" for n in NETWORK_BATCHES]
    for case in tqdm([*cases, TERNARY], unit="case", disable=None):
        if case.startswith("vggnet7"):
            sides, macs = _network_sides(net, floating, int(case.rpartition(" ")[2]))
        else:
            sides, macs = _layer_sides(ternary if case == TERNARY else net, case.partition(" ")[0])
        yield _row(case, sides, macs, seconds, rounds)


def peak_megabytes(images: int = 10_000) -> float:
    """Memory for a prediction of so many CIFAR-10 images with the binary VGGNet7, weights included, images not."""
    spec = studies.get_study("vggnet-cifar10").networks["binary"]
    network, x = pack(build(spec).eval(), spec), _images(images)
    tracemalloc.start()
    try:
        PackedNet(network).predict(x)
        return tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()


def _images(count: int) -> Tensor:
    return torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8)


def _layer_sides(net: PackedNet, name: str) -> tuple[dict[str, Callable], dict[str, float]]:
    """Calls that execute a layer for a batch, and the GMACs of each.

    Ours ends with thresholds and pooling; the others are the convolution alone, on an input with its border.
    """
    x, threads = _images(LAYER_BATCH).numpy(), torch.get_num_threads()
    acts = net.layers[0].values(x, threads)
    for layer, behind in zip(net.layers, net.layers[1:], strict=False):
        if layer.layer.name == name:
            break
        acts = behind.code(layer.bits(acts, LAYER_BATCH, threads)[0], threads)
    _, executed = layer.bits(acts, LAYER_BATCH, threads)
    w = torch.from_numpy(layer.layer.weights.transpose(0, 3, 1, 2).astype("float32"))
    plain = torch.randn(LAYER_BATCH, w.shape[1], layer.rows, layer.columns).sign()
    last = plain.to(memory_format=torch.channels_last), w.to(memory_format=torch.channels_last)
    whole = F.conv2d(plain, w).numel() * layer.layer.length / 1e9
    sides = {
        "ours": lambda: layer.bits(acts, LAYER_BATCH, threads),
        "torch float32": lambda: F.conv2d(plain, w),
        "torch float32 channels last": lambda: F.conv2d(*last),
    }
    macs = dict.fromkeys(sides, whole) | {"ours": executed * layer.layer.length / 1e9}
    if layer.form.act_planes == layer.form.weight_planes == 1 and (openvino := openvino_binary(plain, w)) is not None:
        sides["OpenVINO binary"], macs["OpenVINO binary"] = openvino, whole
    return sides, macs


def _network_sides(net: PackedNet, floating: nn.Sequential, batch: int) -> tuple[dict[str, Callable], dict[str, float]]:
    """Calls that classify a batch, and the GMACs of each."""
    x = _images(batch)
    last = build(net.network.spec.but(weights="f" * 9, acts="f" * 8)).eval().to(memory_format=torch.channels_last)
    last.load_state_dict(floating.state_dict())
    half = nn.Sequential(*list(build(net.network.spec.but(weights="f" * 9, acts="f" * 8)).eval())[1:]).bfloat16()
    small, codes = int8_network(floating, x)
    x_half = (x.float() / 127.5 - 1).bfloat16()
    half_last = copy.deepcopy(half).to(memory_format=torch.channels_last)
    sides = {
        "ours": lambda: net.predict(x.numpy()),
        "torch float32": lambda: floating(x),
        "torch float32 channels last": lambda: last(x.to(memory_format=torch.channels_last)),
        "torch bfloat16": lambda: half(x_half),
        "torch bfloat16 channels last": lambda: half_last(x_half.to(memory_format=torch.channels_last)),
        "torch int8": lambda: small(codes),
    }
    if (onnxruntime := onnxruntime_int8(floating, x)) is not None:
        sides["onnxruntime int8"] = onnxruntime
    return sides, dict.fromkeys(sides, profile(floating)["macs"].sum() * batch / 1e9)


def _row(case: str, sides: dict[str, Callable], macs: dict[str, float], seconds: float, rounds: int) -> dict:
    rates: dict[str, list[float]] = {name: [] for name in sides}
    with torch.no_grad():
        for side in sides.values():  # compilers and caches
            side()
        for _ in range(rounds):
            for name, side in sides.items():
                rates[name].append(macs[name] / _time(side, seconds))
    middle = {name: statistics.median(values) for name, values in rates.items()}
    plain = max((name for name in sides if name.startswith("torch float32")), key=middle.get)
    others = [name for name in sides if name != "ours" and not name.startswith("torch float32")]
    best = max(others, key=middle.get) if others else None

    def ratio(name: str) -> float:
        return round(statistics.median(a / b for a, b in zip(rates["ours"], rates[name], strict=True)), 2)

    return {
        "what": case,
        "ours_gmac_s": round(middle["ours"], 1),
        "torch_fp32_gmac_s": round(middle[plain], 1),
        "ratio_fp32": ratio(plain),
        "best_other": best,
        "best_other_gmac_s": round(middle[best], 1) if best else None,
        "ratio_best_other": ratio(best) if best else None,
        "others_gmac_s": {name: round(middle[name], 1) for name in others},
    }


def _time(side: Callable, seconds: float) -> float:
    """Median seconds of a call, as the call says itself if it returns a float."""
    times, started = [], time.perf_counter()
    while not times or time.perf_counter() - started < seconds:
        begun = time.perf_counter()
        stated = side()
        times.append(stated if isinstance(stated, float) else time.perf_counter() - begun)
    return statistics.median(times)
