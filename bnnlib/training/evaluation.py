"""A network on images that it does not learn from: in eval mode and float32, in batches."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from bnnlib.training.execution import Execution
from bnnlib.training.objective import LOSSES


@torch.no_grad()
def evaluate(
    model: nn.Sequential, x: Tensor, y: Tensor, loss: str, execution: Execution | None = None, batch: int = 500
) -> tuple[float, float]:
    """Mean loss and accuracy in percent over images uint8 [N, C, H, W] and labels [N]."""
    total, hits = torch.zeros((), device=x.device), torch.zeros((), device=x.device, dtype=torch.long)
    for logits, labels in zip(_logits(model, x, execution, batch), y.split(batch), strict=True):
        total += LOSSES[loss](logits, labels) * len(labels)
        hits += (logits.argmax(1) == labels).sum()
    return total.item() / len(x), 100 * hits.item() / len(x)


@torch.no_grad()
def classify(model: nn.Sequential, x: Tensor, execution: Execution | None = None, batch: int = 500) -> Tensor:
    """The class int64 [N] that each of the images uint8 [N, C, H, W] is taken for, on the CPU."""
    return torch.cat([logits.argmax(1) for logits in _logits(model, x, execution, batch)]).cpu()


def _logits(model: nn.Sequential, x: Tensor, execution: Execution | None, batch: int) -> Iterator[Tensor]:
    """Logits [batch, classes] of one batch after the other; the caller needs no gradients."""
    forward = execution.evaluator(model) if execution else model
    model.eval()
    return (forward(part) for part in x.split(batch))
