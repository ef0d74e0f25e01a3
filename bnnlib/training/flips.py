"""How many binary and ternary weights change their value from epoch to epoch: a training that is stuck shows it."""

import torch
from torch import Tensor, nn

from bnnlib.nn.layers import layers_with


@torch.no_grad()
def quantized_weights(model: nn.Module) -> list[Tensor]:
    """The values of all binary and ternary weights, int8, one tensor per layer."""
    return [layer.quantized_weight().to(torch.int8) for layer in layers_with(model, "binary", "ternary")]


def percent_changed(before: list[Tensor], after: list[Tensor]) -> float:
    """Share of the weights whose value differs, in percent of all of them."""
    changed = sum(torch.count_nonzero(one != other) for one, other in zip(before, after, strict=True))
    return 100 * int(changed) / sum(one.numel() for one in before)
