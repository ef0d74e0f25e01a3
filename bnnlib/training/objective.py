"""What a training step minimises, and how: losses, regulariser, learning rate, optimizer."""

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnnlib.errors import UserError
from bnnlib.nn.layers import layers_with
from bnnlib.specs import TrainSpec
from bnnlib.training.bop import Bop


def squared_hinge(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over the batch of sum_c max(0, 1 - t_c y_c)^2, t = +1 for the label and -1 else; logits [N, C]."""
    targets = 2 * F.one_hot(labels, logits.shape[1]) - 1
    return F.relu(1 - targets * logits).square().sum(1).mean()


LOSSES = {"squared_hinge": squared_hinge, "cross_entropy": F.cross_entropy}


def training_loss(spec: TrainSpec, logits: Tensor, labels: Tensor, teacher: Tensor | None = None) -> Tensor:
    """The loss of a step, a scalar.

    Label smoothing: C. Szegedy et al., arXiv 1512.00567. Distillation: (1 - d) of the loss plus d of the
    Kullback-Leibler divergence from the teacher's outputs (G. Hinton et al., arXiv 1503.02531, at temperature 1: the
    logits of a last batch norm are soft already).

    Args:
        spec: ``loss``, ``label_smoothing``, ``logit_scale``, ``distill``.
        logits: [N, C].
        labels: [N].
        teacher: its logits [N, C].
    """
    if spec.loss != "cross_entropy":
        return LOSSES[spec.loss](logits, labels)
    logits = spec.logit_scale * logits
    loss = F.cross_entropy(logits, labels, label_smoothing=spec.label_smoothing)
    if teacher is None:
        return loss
    ours, theirs = F.log_softmax(logits, 1), F.log_softmax(spec.logit_scale * teacher, 1)
    return (1 - spec.distill) * loss + spec.distill * F.kl_div(ours, theirs, reduction="batchmean", log_target=True)


def bipolar_penalty(model: nn.Module) -> Tensor:
    """Sum of 1 - w^2 over the latent weights of the binary layers (Tang et al., AAAI 2017); gradient -2 w."""
    layers = layers_with(model, "binary")
    if not layers:
        raise UserError("the bipolar regulariser needs a binary layer; set bipolar=0")
    return sum((1 - m.weight.square()).sum() for m in layers)


def learning_rate(spec: TrainSpec, step: int, steps_per_epoch: int) -> float:
    """The rate of a step (counted from 0): a pure function, so that nothing of it has to be saved."""
    epoch = step / steps_per_epoch
    if epoch < spec.warmup:
        return spec.lr * (step + 1) / (spec.warmup * steps_per_epoch + 1)
    if spec.schedule == "step":
        return spec.lr * spec.gamma ** sum(int(epoch) >= m for m in spec.milestones)
    end = spec.schedule_epochs or spec.epochs
    share = (epoch - spec.warmup) / (end - spec.warmup)
    return spec.lr * (1 - share if spec.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * share)))


def make_optimizer(spec: TrainSpec, model: nn.Module, fused: bool = True, graph: bool = False) -> torch.optim.Optimizer:
    """The optimizer over all parameters, in torch's fused form; its rate a tensor where a graph has to read it anew."""
    device = next(model.parameters()).device

    def rate(factor: float) -> Tensor | float:
        return torch.tensor(spec.lr * factor, device=device) if graph else spec.lr * factor

    common = {"lr": rate(1.0), "weight_decay": spec.weight_decay, "fused": fused or None}
    if spec.optimizer == "bop":
        return Bop(model, gamma=spec.bop_gamma, threshold=spec.bop_threshold, capturable=graph, **common)
    parameters: Iterable = model.parameters()
    if spec.norm_bias_rate != 1:
        parameters = [group | {"lr": rate(group["rate_factor"])} for group in rate_groups(spec, model)]
    if spec.optimizer == "sgd":
        return torch.optim.SGD(parameters, momentum=spec.momentum, **common)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[spec.optimizer]
    return kind(parameters, capturable=graph, **common)


def rate_groups(spec: TrainSpec, model: nn.Module) -> list[dict]:
    """The parameters in two groups, of which the second has the biases of the batch norms and their ``rate_factor``.

    Before a sign, such a bias is the threshold of its channel. A float network trained by SGD has them learn 64 times
    as fast as the rest (K. Jordan, arXiv 2404.00498).

    Raises:
        UserError: no batch norm has a bias.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    biases = [norm.bias for norm in norms if norm.bias is not None]
    if not biases:
        raise UserError(f"norm_bias_rate {spec.norm_bias_rate!r} needs a batch norm with a bias; set norm_bias_rate=1")
    own = {id(bias) for bias in biases}
    rest = [p for p in model.parameters() if id(p) not in own]
    return [{"params": rest, "rate_factor": 1.0}, {"params": biases, "rate_factor": spec.norm_bias_rate}]


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give each group its rate, a multiple of ``rate`` if the group has a factor."""
    for group in optimizer.param_groups:
        own = rate * group.get("rate_factor", 1.0)
        if isinstance(group["lr"], Tensor):  # a recorded graph reads this very tensor
            group["lr"].fill_(own)
        else:
            group["lr"] = own
