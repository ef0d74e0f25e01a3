"""What changes from epoch to epoch of a training: the shape of annealed estimators, and what is quantized already.

Quantizing a network in steps follows A. Bulat et al., arXiv 1904.05868 (activations before weights), and B. Zhuang et
al., CVPR 2018, arXiv 1711.00205 (bit widths that fall). The network itself stays what its spec says: outside
``of_epoch`` every operand is its own.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from bnnlib.nn.layers import layers_with
from bnnlib.specs import TrainSpec

BITS = ("fixed8", "fixed4", "fixed2")  # of ``bits``, a quarter of the epochs each; then the layer's own


def weight_operand(own: str, stages: str, progress: float) -> str:
    """The operand of a binary or ternary layer's weights while it trains.

    Args:
        own: ``binary`` or ``ternary``.
        stages: as of ``TrainSpec``.
        progress: share of the epochs that is over, 0 to 1.
    """
    if stages == "acts-first" and progress < 0.5:
        return "float"
    if stages == "bits" and progress < 0.75:
        return BITS[int(4 * progress)]
    return own


@contextmanager
def of_epoch(model: nn.Module, spec: TrainSpec, epoch: int) -> Iterator[None]:
    """Inside, ``model`` is as it trains in this epoch, counted from 0."""
    progress = epoch / spec.epochs
    few = layers_with(model, "binary", "ternary")
    own = [layer.weight_operand for layer in few]
    for module in model.modules():
        if hasattr(module, "progress"):
            module.progress = progress
    try:
        for layer, operand in zip(few, own, strict=True):
            layer.weight_operand = weight_operand(operand, spec.stages, progress)
        yield
    finally:
        for layer, operand in zip(few, own, strict=True):
            layer.weight_operand = operand
