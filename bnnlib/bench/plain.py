"""The training loop that most code of this field has, as the measure of ours: for benchmarks and tests alone.

Written after the description of the paper's released code (see README): a DataLoader that transforms one PIL image at
a time in this process, float32, torch's own layers and optimizer as they come, and a quantized copy that takes the
place of the latent weights in ``.data`` for forward and backward.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from bnnlib.errors import UserError
from bnnlib.nn.layers import Image, QuantAct, QuantConv2d, QuantLinear
from bnnlib.nn.models import build
from bnnlib.specs import ARCHS, RunSpec
from bnnlib.training.objective import LOSSES, make_optimizer


def sign(x: Tensor) -> Tensor:
    """+1 where x >= 0, else -1. (The release is slower, 2 round(clamp((x + 1) / 2, 0, 1)) - 1, and -1 at zero.)"""
    return torch.sign(torch.sign(x) + 0.5)


class _Sign(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return sign(x)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad * (x.abs() < 1).float()


class Sign(nn.Module):
    """sign(x), gradient 1[|x| < 1]."""

    def forward(self, x: Tensor) -> Tensor:
        return _Sign.apply(x)


class Images(Dataset):
    """uint8 images [N, C, H, W] and labels, transformed one by one."""

    def __init__(self, x: Tensor, y: Tensor, run: RunSpec) -> None:
        self.x, self.y = x.permute(0, 2, 3, 1).squeeze(-1).numpy(), y.tolist()
        steps = [transforms.ToPILImage()]
        if run.train.augment != "none":
            steps.append(transforms.RandomCrop(x.shape[2:], run.train.pad, padding_mode="edge"))
        if run.train.augment == "flip-crop":
            steps.append(transforms.RandomHorizontalFlip())
        steps.append(transforms.ToTensor())
        if ARCHS[run.model.arch].signed_image:
            steps.append(transforms.Normalize(0.5, 0.5))
        self.transform = transforms.Compose(steps)

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return self.transform(self.x[i]), self.y[i]


class PlainTraining:
    """A run of an all-float or all-binary network in the plain way, from the weights that ours starts from.

    Raises:
        UserError: the network has operands that this loop does not know.
    """

    def __init__(self, run: RunSpec, device: str = "cpu") -> None:
        codes = set(run.model.weights + run.model.acts)
        if codes not in ({"f"}, {"b"}) or run.model.image != "8":
            raise UserError(f"the plain loop knows float and binary networks, not {run.model.weights}")
        self.run, self.device = run, device
        with torch.random.fork_rng():
            torch.manual_seed(run.seed)
            self.model = nn.Sequential(*(p for m in build(run.model) for p in _plain_layers(m))).to(device)
        self.optimizer = make_optimizer(run.train, self.model, fused=False)
        layers = [m for m in self.model if isinstance(m, nn.Conv2d | nn.Linear)]
        self.weights = [m.weight for m in layers] if codes == {"b"} else []

    def batches(self, x: Tensor, y: Tensor, epoch: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch of shuffled batches of uint8 images [N, C, H, W] and labels [N]."""
        generator = torch.Generator().manual_seed(1000 * self.run.seed + epoch)
        images, size = Images(x, y, self.run), self.run.train.batch
        return iter(DataLoader(images, size, shuffle=True, drop_last=True, generator=generator))

    def step(self, x: Tensor, y: Tensor) -> Tensor:
        """One step on images float32 [B, C, H, W] and labels [B]; the loss."""
        x, y = x.to(self.device), y.to(self.device)
        latent = [w.data.clone() for w in self.weights]
        for w in self.weights:
            w.data = sign(w.data)
        loss = LOSSES[self.run.train.loss](self.model(x), y)
        self.optimizer.zero_grad()
        loss.backward()
        for w, value in zip(self.weights, latent, strict=True):
            w.data = value
        self.optimizer.step()
        if self.run.train.clip_latent:
            for w in self.weights:
                w.data.clamp_(-1, 1)
        return loss.detach()

    @torch.no_grad()
    def accuracy(self, x: Tensor, y: Tensor) -> float:
        """In percent, on images that are not augmented, with quantized weights and running statistics."""
        images = Images(x, y, self.run.but(train=self.run.train.but(augment="none")))
        latent = [w.data.clone() for w in self.weights]
        for w in self.weights:
            w.data = sign(w.data)
        self.model.eval()
        batches = DataLoader(images, 500)
        hits = sum((self.model(a.to(self.device)).argmax(1).cpu() == b).sum().item() for a, b in batches)
        self.model.train()
        for w, value in zip(self.weights, latent, strict=True):
            w.data = value
        return 100 * hits / len(images)


def _plain_layers(module: nn.Module) -> Iterator[nn.Module]:
    """Torch's own layers for a module of ``build``, with its weights."""
    if isinstance(module, Image):
        return  # the transforms do this
    if isinstance(module, QuantConv2d):
        if module.pad and module.pad_value is None:
            yield nn.ReplicationPad2d(module.pad)
        zeros = module.pad if module.pad_value == 0 else 0
        plain = nn.Conv2d(module.in_channels, module.out_channels, module.kernel_size, padding=zeros, bias=False)
    elif isinstance(module, QuantLinear):
        plain = nn.Linear(module.in_features, module.out_features, bias=False)
    else:
        yield (Sign() if module.operand == "binary" else nn.ReLU()) if isinstance(module, QuantAct) else module
        return
    plain.weight.data.copy_(module.weight)
    yield plain
