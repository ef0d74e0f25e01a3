"""The PyTorch network behind a packed one, from its integers and its batch norms, to compare the two.

A packed file keeps thresholds, not what they came from. ``norms`` keeps that in some kilobytes: all of the network's
state but its binary and ternary weights, which the packed file has. ``restored`` puts both together again: these
weights are their own latent weights, as quantizing them changes nothing.
"""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as read_tensors
from safetensors.torch import save as tensor_bytes
from torch import nn

from bnnlib.errors import UserError
from bnnlib.nn.layers import QuantConv2d, QuantLinear
from bnnlib.nn.models import build
from bnnlib.packed.files import load
from bnnlib.packed.layers import IntegerNetwork


def read(path: Path | str) -> tuple[IntegerNetwork, nn.Sequential]:
    """A packed file, and the PyTorch network behind it by the batch norms that lie beside it.

    Raises:
        UserError: a file is missing or damaged.
    """
    network, beside = load(path), Path(path).with_suffix(".norms")
    if not beside.exists():
        raise UserError(f"no file {beside}, which has the batch norms of the network; see `bnn train --pack`")
    return network, restored(network, beside.read_bytes())


def norms(model: nn.Sequential) -> bytes | None:
    """A trained network without its bits, as safetensors; None if its weights have real scales, which would be lost."""
    layers = {name: module for name, module in model.named_modules() if isinstance(module, QuantConv2d | QuantLinear)}
    if any(module.weight_scale != "none" for module in layers.values()):
        return None
    bits = {f"{name}.weight" for name, module in layers.items() if not module.weight_operand.startswith("fixed")}
    state = {name: value for name, value in model.state_dict().items() if name not in bits}
    return tensor_bytes({name: value.detach().cpu().contiguous() for name, value in state.items()})


def restored(network: IntegerNetwork, content: bytes) -> nn.Sequential:
    """The PyTorch network, in eval mode, with its quantized weights.

    Args:
        network: its integers.
        content: what ``norms`` gave.

    Raises:
        UserError: the content is damaged, or that of another network.
    """
    model = build(network.spec.but(balance=False))  # the signs are balanced already
    try:
        state = read_tensors(content)
        for layer in network.layers:
            if not layer.weight.startswith("fixed"):
                bits = torch.from_numpy(layer.weights.transpose(0, 3, 1, 2).astype("float32"))
                state[f"{layer.name}.weight"] = bits.reshape(model.get_submodule(layer.name).weight.shape)
        model.load_state_dict(state)
    except (SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"the batch norms beside the packed network do not fit it: {reason}") from error
    return model.eval()
