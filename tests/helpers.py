"""Networks and images that several tests use."""

import torch
from torch import nn
from torchvision.models import resnet18


def small_resnet18(seed: int = 0) -> nn.Module:
    """torchvision's ResNet-18 as it is adapted to 32 x 32 images: a 3 x 3 first convolution, no first pooling."""
    torch.manual_seed(seed)
    net = resnet18(num_classes=10)
    net.conv1, net.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    return net


def pictures(count: int, *shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def tiny(seed: int = 0) -> nn.Sequential:
    """Two convolutions and a fully connected layer for the digits."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 24, 3), nn.BatchNorm2d(24), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(24, 48, 3), nn.BatchNorm2d(48), nn.ReLU(), nn.Flatten(), nn.Linear(48 * 9, 10), nn.BatchNorm1d(10),
    )  # fmt: skip
