"""Blurs of lenses, glass and motion (Hendrycks & Dietterich, 2019)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from unmask.shift.corruptions import filters
from unmask.shift.corruptions.registry import Draw, corruption

_PAPER = "Hendrycks & Dietterich, 2019"
_MENDS = "GaussianBlur (sigma 0.1 to 3), RandomResizedCrop from smaller images"


@corruption(
    "gaussian_blur", family="blur", paper=_PAPER, levels=(1, 2, 3, 4, 6), none=0.0, mends=_MENDS
)
def gaussian_blur(x: Tensor, p: tuple[float, ...], draw: Draw) -> Tensor:
    """Blur by a Gaussian of standard deviation p[0]."""
    return filters.gaussian_blur(x, p[0] * filters.scale_of(x))


@corruption(
    "defocus_blur",
    family="blur",
    paper=_PAPER,
    levels=((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    none=(0.0, 0.0),
    mends=_MENDS,
)
def defocus_blur(x: Tensor, p: tuple[float, ...], draw: Draw) -> Tensor:
    """Blur by a disk of radius p[0] with a rim of softness p[1]: a lens out of focus."""
    scale = filters.scale_of(x)
    return filters.convolve(x, filters.disk(p[0] * scale, p[1] * scale, x.device))


@corruption(
    "glass_blur",
    family="blur",
    paper=_PAPER,
    levels=((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    none=(0.0, 0.0, 2.0),
    mends="ElasticTransform, GaussianBlur",
)
def glass_blur(x: Tensor, p: tuple[float, ...], draw: Draw) -> Tensor:
    """Swap neighbours at random between two blurs: frosted glass.

    The paper visits every pixel p[2] times in order and swaps it with one up to p[1] away. In each
    round a pixel takes part in two swaps on average, so every value moves by two such steps; here
    each pixel moves at once by the sum of all its steps.

    Args:
        x: float32[b, c, h, w] in [0, 1].
        p: the blur's standard deviation, the distance of a swap, both in pixels of a side of 224,
            and the number of rounds.
        draw: the random numbers.
    """
    scale = filters.scale_of(x)
    blurred = filters.gaussian_blur(x, p[0] * scale)
    b, c, height, width = x.shape
    spread = p[1] * scale * math.sqrt(2 * p[2] / 3)
    moves = (draw.normal(2, height, width) * spread).round_().long()
    rows = (torch.arange(height, device=x.device)[:, None] + moves[:, 0]).clamp_(0, height - 1)
    columns = (torch.arange(width, device=x.device) + moves[:, 1]).clamp_(0, width - 1)
    places = rows.mul_(width).add_(columns).flatten(1)[:, None].expand(-1, c, -1)
    moved = blurred.flatten(2).gather(2, places).view(b, c, height, width)
    return filters.gaussian_blur(moved, p[0] * scale)


@corruption(
    "motion_blur",
    family="blur",
    paper=_PAPER,
    levels=((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    none=(0.0, 0.0),
    mends="motion blur (albumentations.MotionBlur), GaussianBlur",
)
def motion_blur(x: Tensor, p: tuple[float, ...], draw: Draw) -> Tensor:
    """Smear along a line within 45 degrees of the horizontal, over 2 p[0] + 1 pixels."""
    scale = filters.scale_of(x)
    angles = (draw.uniform() - 0.5) * (math.pi / 2)
    length = (2 * p[0] + 1) * scale if scale * p[0] > 0.5 else 1 + 2 * p[0] * scale
    return filters.convolve(x, filters.streaks(length, p[1] * scale, angles))


@corruption(
    "zoom_blur",
    family="blur",
    paper=_PAPER,
    levels=((1.10, 11), (1.15, 16), (1.20, 11), (1.24, 13), (1.30, 11)),
    none=(1.0, 11.0),
    mends="RandomResizedCrop, RandomAffine with scale, AugMix",
)
def zoom_blur(x: Tensor, p: tuple[float, ...], draw: Draw) -> Tensor:
    """Average p[1] enlargements from 1 to p[0] and the image itself: moving towards the camera."""
    count = round(p[1])
    b, c, height, width = x.shape
    first = x.flatten(0, 1).permute(1, 2, 0).contiguous()
    total = 2 * first
    for k in range(1, count):
        total += filters.zoomed(first, 1 + (p[0] - 1) * k / (count - 1), (0, 1))
    return (total / (count + 1)).permute(2, 0, 1).reshape(b, c, height, width)
