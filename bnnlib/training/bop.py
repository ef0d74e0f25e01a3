"""Bop: binary weights without latent ones (K. Helwegen et al., "Latent Weights Do Not Exist", arXiv 1906.02107)."""

import torch
from torch import nn

from bnnlib.nn.layers import layers_with


class Bop(torch.optim.Adam):
    """A weight flips where the moving average m of its gradients is larger than a threshold and of the weight's sign.

    m = (1 - gamma) m + gamma grad;  w = -w where |m| > threshold and sign(m) = sign(w).

    The parameters of no binary layer are Adam's. ``gamma`` falls with the rate, in proportion.

    Args:
        model: its binary layers (``weight_operand``) are set to the signs of their weights and stay binary.
        lr: rate of Adam.
        gamma: share of a new gradient in m, at that rate.
        threshold: how large abs(m) must be to flip a weight.
        arguments: those of Adam.
    """

    def __init__(self, model: nn.Module, lr: float, gamma: float, threshold: float, **arguments) -> None:
        binary = [layer.weight for layer in layers_with(model, "binary")]
        kept = {id(w) for w in binary}
        rest = [p for p in model.parameters() if id(p) not in kept]
        with torch.no_grad():
            for w in binary:
                w.copy_(w.sign().add_(0.5).sign_())
        groups = [{"params": rest, "flips": False}, {"params": binary, "flips": True}]
        groups = [group for group in groups if group["params"]]
        super().__init__(groups, lr=lr, **arguments)
        self.gamma_of_rate, self.threshold = gamma / lr, threshold

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One step of both; the gradients of the binary weights are dropped."""
        for group in self.param_groups:
            for w in group["params"] if group["flips"] else ():
                if w.grad is None:
                    continue
                state = self.state[w]
                if not state:
                    state |= {"step": torch.zeros(()), "average": torch.zeros_like(w)}  # Adam looks for its step
                m = state["average"].lerp_(w.grad, self.gamma_of_rate * group["lr"])
                w.mul_(1 - 2 * ((m.abs() > self.threshold) & (m.sign() == w.sign())).to(w.dtype))
                w.grad = None
        super().step(closure)
