"""A moving average of the latent weights, as the network that is validated and kept.

Averaging finds flatter minima than the last weights (P. Izmailov et al., arXiv 1803.05407, whose batch norms are
estimated anew as here). Of a latent weight that swings around zero it keeps the side where it is longer.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

NORM_IMAGES, NORM_BATCH = 10_000, 500  # that the batch norms are estimated from


class Average:
    """Parameters averaged over the steps: a = decay a + (1 - decay) w.

    Attributes:
        values: by the names of the parameters.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {name: p.detach().clone() for name, p in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the weights after a step."""
        for name, p in model.named_parameters():
            self.values[name].lerp_(p, 1 - self.decay)

    @contextmanager
    def in_place(self, model: nn.Module, forward: Callable[[Tensor], Tensor], x: Tensor) -> Iterator[None]:
        """Inside, ``model`` has the averaged weights and batch norms estimated for them.

        Args:
            model: gets all of its own state back at the end.
            forward: what computes its logits in training.
            x: uint8 training images [N, C, H, W], not augmented; the first ``NORM_IMAGES`` are used.
        """
        kept = {name: value.clone() for name, value in model.state_dict().items()}
        try:
            model.load_state_dict(self.values, strict=False)
            estimate_norms(model, forward, x[:NORM_IMAGES])
            yield
        finally:
            model.load_state_dict(kept)


@torch.no_grad()
def estimate_norms(model: nn.Module, forward: Callable[[Tensor], Tensor], x: Tensor) -> None:
    """Mean and variance of every batch norm anew, the mean over batches of ``x``.

    Thresholds of ternary activations follow by their own running mean.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean
    model.train()
    for part in x.split(NORM_BATCH):
        if len(part) > 1:  # a single image has no variance
            forward(part)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
