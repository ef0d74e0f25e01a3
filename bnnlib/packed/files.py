"""Packed networks as files: safetensors with the bits of the weights, thresholds, and the spec as metadata.

A file holds for each layer

- ``NAME.weights``: a bit each, set for +1, as bytes; ternary ones with ``NAME.nonzero`` beside it; fixed-point ones as
  int8. Their order is [O, K, K, C], the first in the lowest bit;
- ``NAME.thresholds``, int32 [steps, O], and ``NAME.flips``, the bits of ``before`` and ``after``;

and ``logits.scale`` and ``logits.shift``, float64 [classes]. Nothing in it is code. A file may come from anybody, so
that every name, type, length and value is checked against the spec, and the spec against its hash.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as read_tensors
from safetensors.numpy import save as tensor_bytes

from bnnlib.errors import UserError
from bnnlib.files import write_atomic
from bnnlib.operands import operand_bits
from bnnlib.packed.fold import Frame, frames
from bnnlib.packed.layers import IntegerLayer, IntegerNetwork
from bnnlib.specs import ARCHS, ModelSpec

FORMAT = "bnnlib packed 1"
MOST_BYTES = 2**28  # a file of this size is none of these networks


class _DamagedError(Exception):
    pass


def as_bytes(network: IntegerNetwork) -> bytes:
    """The content of a file."""
    tensors = {"logits.scale": network.scale, "logits.shift": network.shift}
    for layer in network.layers:
        if layer.weight.startswith("fixed"):
            tensors[f"{layer.name}.weights"] = layer.weights.astype(np.int8)
        else:
            tensors[f"{layer.name}.weights"] = _packed(layer.weights > 0)
        if layer.weight == "ternary":
            tensors[f"{layer.name}.nonzero"] = _packed(layer.weights != 0)
        if len(layer.thresholds):
            tensors[f"{layer.name}.thresholds"] = layer.thresholds
            tensors[f"{layer.name}.flips"] = np.stack([_packed(layer.before), _packed(layer.after)])
    spec = network.spec
    about = {"format": FORMAT, "spec": spec.as_dict(), "hash": spec.hash}
    return tensor_bytes(tensors, {"bnnlib": json.dumps(about, sort_keys=True)})  # several keys would come in any order


def save(network: IntegerNetwork, path: Path | str) -> Path:
    """Write a packed network, atomically; UserError if the folder cannot be written."""
    return write_atomic(path, as_bytes(network))


def load(path: Path | str) -> IntegerNetwork:
    """Read a packed network.

    Raises:
        UserError: the file is missing, or anything in it is not as ``save`` writes it.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MOST_BYTES:
            raise _DamagedError(f"it has more than {MOST_BYTES} bytes")
        return _network(path.read_bytes())
    except FileNotFoundError as error:
        raise UserError(f"no file {path}; data/pretrained has some, `bnn train STUDY --pack` makes one") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except (_DamagedError, SafetensorError, UserError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{path} is no packed network: {reason}; get it again, or make it: `bnn train --pack`"
        ) from error


def _network(content: bytes) -> IntegerNetwork:
    tensors = read_tensors(content)
    size = int.from_bytes(content[:8], "little")  # safetensors.numpy does not hand on the metadata
    spec = _spec(json.loads(content[8 : 8 + size]).get("__metadata__") or {})
    layers = []
    for frame in frames(spec):
        layers.append(_layer(frame, tensors))
    classes = layers[-1].weights.shape[0]
    scale, shift = (_take(tensors, f"logits.{name}", np.float64, (classes,)) for name in ("scale", "shift"))
    if not (np.isfinite(scale).all() and np.isfinite(shift).all()):
        raise _DamagedError("a logit is not finite")
    if tensors:
        raise _DamagedError(f"{sorted(tensors)[0]!r} does not belong to it")
    return IntegerNetwork(spec, ARCHS[spec.arch].image, tuple(layers), scale, shift)


def _spec(metadata: dict[str, str]) -> ModelSpec:
    try:
        about = json.loads(metadata["bnnlib"])
        found, spec, stated = about["format"], ModelSpec.from_dict(about["spec"]), about["hash"]
    except (KeyError, TypeError, ValueError) as error:
        raise _DamagedError(f"its spec cannot be read ({error})") from error
    if found != FORMAT:
        raise _DamagedError(f"its format is {found!r}, not {FORMAT!r}")
    if spec.hash != stated:
        raise _DamagedError(f"its spec has the hash {spec.hash}, not {stated}")
    return spec


def _layer(frame: Frame, tensors: dict[str, np.ndarray]) -> IntegerLayer:
    name, shape, outputs = frame.name, frame.shape, frame.shape[0]
    weights = f"{name}.weights"
    if frame.weight.startswith("fixed"):
        values, most = _take(tensors, weights, np.int8, shape), 2 ** (operand_bits(frame.weight) - 1)
        if values.min() < -most or values.max() >= most:
            raise _DamagedError(f"{weights} exceed {frame.weight}")
    else:
        values = 2 * _bits(tensors, weights, shape).astype(np.int16) - 1
    if frame.weight == "ternary":
        nonzero = _bits(tensors, f"{name}.nonzero", shape)
        if ((values > 0) & ~nonzero).any():
            raise _DamagedError(f"{weights} have a zero with a sign")
        values *= nonzero
    none = np.zeros(outputs, bool)
    layer = IntegerLayer(
        name, frame.weight, frame.act, values.astype(np.int16), frame.pad, frame.border, frame.pool,
        np.zeros((0, outputs), np.int32), none, none,
    )  # fmt: skip
    if not frame.steps:
        return layer
    thresholds = _take(tensors, f"{name}.thresholds", np.int32, (frame.steps, outputs))
    if (abs(thresholds.astype(np.int64)) > layer.largest + 1).any():
        raise _DamagedError(f"{name}.thresholds exceed what a sum can be")
    flips = _take(tensors, f"{name}.flips", np.uint8, (2, -(-outputs // 8)))
    before, after = (_unpacked(row, f"{name}.flips", outputs) for row in flips)
    return replace(layer, thresholds=thresholds, before=before, after=after)


def _packed(bits: np.ndarray) -> np.ndarray:
    """Bits of any shape as uint8 [bytes]."""
    return np.packbits(bits.reshape(-1), bitorder="little")


def _bits(tensors: dict[str, np.ndarray], name: str, shape: tuple[int, ...]) -> np.ndarray:
    """What ``_packed`` made of bool ``shape``."""
    count = int(np.prod(shape))
    return _unpacked(_take(tensors, name, np.uint8, (-(-count // 8),)), name, count).reshape(shape)


def _unpacked(packed: np.ndarray, name: str, count: int) -> np.ndarray:
    bits = np.unpackbits(packed, bitorder="little").astype(bool)
    if bits[count:].any():
        raise _DamagedError(f"{name} has bits behind its last")
    return bits[:count]


def _take(tensors: dict[str, np.ndarray], name: str, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
    """A tensor of the file, which is then no longer among them."""
    if name not in tensors:
        raise _DamagedError(f"{name!r} is missing")
    value = tensors.pop(name)
    if value.dtype != dtype or value.shape != shape:
        raise _DamagedError(f"{name} is {value.dtype} {list(value.shape)}, not {np.dtype(dtype)} {list(shape)}")
    return value
