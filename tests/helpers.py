"""Networks and images that several tests use."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from scipy import stats
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


def welch(a: Sequence[float], b: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Welch's interval of mean(a) - mean(b), with his degrees of freedom written out."""
    of_a, of_b = np.var(a, ddof=1) / len(a), np.var(b, ddof=1) / len(b)
    freedom = (of_a + of_b) ** 2 / (of_a**2 / (len(a) - 1) + of_b**2 / (len(b) - 1))
    half = stats.t.ppf((1 + confidence) / 2, freedom) * np.sqrt(of_a + of_b)
    gain = np.mean(a) - np.mean(b)
    return gain - half, gain + half


def student(gains: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Student's interval of the mean of paired differences."""
    half = stats.t.ppf((1 + confidence) / 2, len(gains) - 1) * np.std(gains, ddof=1) / np.sqrt(len(gains))
    return np.mean(gains) - half, np.mean(gains) + half


def epochs_in(checkpoint: Path) -> int:
    """How many epochs of a training are in its checkpoint."""
    return len(torch.load(checkpoint, weights_only=True)["history"])


def wait_for(condition: Callable[[], object], seconds: float = 120) -> None:
    """Wait until something in another process has happened; it is a failure if it has not in time."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.02)
