"""Batches of an epoch and their augmentation, on the device of the images and for a whole batch at once.

======================= ===================================================================================
``augment``             what it does to a training image
======================= ===================================================================================
``crop``                shift by up to ``pad`` pixels, the border repeated
``flip-crop``           the same, and half of the images mirrored
``alt-flip-crop``       the same, but an image that was mirrored in one epoch is not in the next: alternating flip
                        (K. Jordan, arXiv 2404.00498)
``affine``              shift by up to ``pad`` pixels, turn by up to 10 degrees, scale by up to 10 %, bilinearly
======================= ===================================================================================

``cutout`` covers a square of each image with the mean brightness (T. DeVries, G. Taylor, arXiv 1708.04552).
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from bnnlib.specs import TrainSpec

TURN, SCALE = torch.pi / 18, 0.1  # most of ``affine``
DRAWN = 2**31  # random integers lie below


def batches(
    x: Tensor, y: Tensor, spec: TrainSpec, generator: torch.Generator, epoch: int = 0, seed: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """Shuffled, augmented batches of one epoch: uint8 [B, C, H, W] and int64 [B] on the device of ``x``.

    Order and augmentation are drawn on the CPU, so that every device sees the same images.

    Args:
        x, y: all training images and labels.
        spec: batch size and augmentation.
        generator: draws anew in each epoch.
        epoch, seed: counted from 0; decide which images ``alt-flip-crop`` mirrors.
    """
    order = torch.randperm(len(x), generator=generator)
    steps = len(x) // spec.batch
    drawn = 3 if spec.augment != "none" else 0
    draws = torch.randint(0, DRAWN, (drawn, steps * spec.batch), generator=generator) if drawn else None
    if spec.augment == "alt-flip-crop":
        first = torch.randint(0, 2, (len(x),), generator=torch.Generator().manual_seed(seed))
        draws[2] = (first[order[: draws.shape[1]]] + epoch) % 2
    places = torch.randint(0, DRAWN, (2, steps * spec.batch), generator=generator) if spec.cutout else None
    grey = x.float().mean().round().to(torch.uint8) if spec.cutout else None
    order, draws, places = (None if t is None else t.to(x.device) for t in (order, draws, places))
    for i in range(steps):
        here = slice(i * spec.batch, (i + 1) * spec.batch)
        picked = x[order[here]]
        if spec.augment == "affine":
            picked = affine(picked, draws[:, here], spec.pad)
        elif draws is not None:
            picked = augment(picked, draws[:, here], spec.pad, flip="flip" in spec.augment)
        if places is not None:
            picked = cutout(picked, places[:, here], spec.cutout, grey)
        yield picked, y[order[here]]


def augment(x: Tensor, draws: Tensor, pad: int, flip: bool) -> Tensor:
    """Shift each image by up to ``pad`` pixels with the border repeated, and mirror half of them, in one gather.

    Args:
        x: [B, C, H, W].
        draws: non-negative random integers [3, B] (vertical shift, horizontal shift, mirror).
    """
    b, _, h, w = x.shape
    dy, dx = draws[:2] % (2 * pad + 1) - pad
    rows = (torch.arange(h, device=x.device) + dy[:, None]).clamp_(0, h - 1)  # [B, H]
    cols = torch.arange(w, device=x.device).expand(b, w)
    if flip:
        cols = torch.where((draws[2] % 2 == 1)[:, None], w - 1 - cols, cols)
    cols = (cols + dx[:, None]).clamp_(0, w - 1)  # [B, W]
    image = torch.arange(b, device=x.device)[:, None, None]
    return x.permute(0, 2, 3, 1)[image, rows[:, :, None], cols[:, None, :]].permute(0, 3, 1, 2)


def affine(x: Tensor, draws: Tensor, pad: int) -> Tensor:
    """Shift, turn and scale each image about its middle; what comes from outside repeats the border.

    Args:
        x: uint8 [B, C, H, W].
        draws: random integers [3, B] in [0, 2^31): each is a shift (x or y) and half of the digits of turn or scale.
        pad: most pixels of the shift.
    """
    _, _, h, w = x.shape
    dx, dy, angle = draws.float() / DRAWN * 2 - 1  # [-1, 1)
    scale = 1 + SCALE * (draws.sum(0) % 1009 / 504 - 1)  # the remainder of a sum depends on none of the three alone
    cos, sin = torch.cos(TURN * angle) * scale, torch.sin(TURN * angle) * scale
    rows = torch.stack([cos, -sin * h / w, 2 * pad / w * dx, sin * w / h, cos, 2 * pad / h * dy], 1)
    grid = F.affine_grid(rows.view(-1, 2, 3), list(x.shape), align_corners=False)
    y = F.grid_sample(x.float(), grid, padding_mode="border", align_corners=False)
    return y.round().clamp_(0, 255).to(torch.uint8)


def cutout(x: Tensor, places: Tensor, side: int, grey: Tensor) -> Tensor:
    """Cover a square of each image, which may reach over its border.

    Args:
        x: uint8 [B, C, H, W].
        places: non-negative random integers [2, B]: the row and column of the middle.
        side: in pixels.
        grey: what covers it.
    """
    _, _, h, w = x.shape
    inside = []
    for place, size in zip(places, (h, w), strict=True):
        first = (place % size - side // 2)[:, None]
        at = torch.arange(size, device=x.device)
        inside.append((at >= first) & (at < first + side))  # [B, size]
    return torch.where((inside[0][:, :, None] & inside[1][:, None, :])[:, None], grey, x)
