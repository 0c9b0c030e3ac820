"""Framing and geometry: the worst rotation and translation of a grid (Engstrom et al., 2019)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from unmask.shift.corruptions.strokes import transformed
from unmask.shift.target import Target

ANGLES = (-30.0, -15.0, 0.0, 15.0, 30.0)
MOVES = (-0.1, 0.0, 0.1)


@dataclass(frozen=True)
class WorstCase:
    """Accuracy when the worst transformation of a grid is chosen for each image.

    Args:
        images: how many were tried.
        clean: the clean accuracy.
        mean: the accuracy over all images and transformations.
        worst: the fraction of images that are right under every transformation.
        angles: degrees tried.
        moves: translations tried along each axis, in fractions of the side.
    """

    images: int
    clean: float
    mean: float
    worst: float
    angles: tuple[float, ...]
    moves: tuple[float, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the figures as plain values."""
        return asdict(self)


def worst_case(
    target: Target,
    pixels: Tensor,
    labels: NDArray[np.int64],
    *,
    angles: Sequence[float] = ANGLES,
    moves: Sequence[float] = MOVES,
) -> WorstCase:
    """Return the accuracy under the worst rotation and translation of a grid.

    Args:
        target: the model.
        pixels: float32[n, c, h, w] in [0, 1].
        labels: int64[n].
        angles: in degrees.
        moves: translations along both axes, in fractions of the side.
    """
    truth = torch.from_numpy(labels)
    clean = target.logits(pixels).argmax(1) == truth
    always = clean.clone()
    total, tried = 0.0, 0
    ratio = pixels.shape[2] / pixels.shape[3]
    for angle, dx, dy in product(angles, moves, moves):
        cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        matrix = torch.tensor([[cos, -sin * ratio, 2 * dx], [sin / ratio, cos, 2 * dy]])
        moved = transformed(pixels, matrix.expand(len(pixels), 2, 3)).clamp(0, 1)
        right = target.logits(moved).argmax(1) == truth
        always &= right
        total += float(right.double().mean())
        tried += 1
    return WorstCase(
        len(pixels),
        float(clean.double().mean()),
        total / tried,
        float(always.double().mean()),
        tuple(angles),
        tuple(moves),
    )


def _resized(x: Tensor, size: Sequence[int]) -> Tensor:
    return functional.interpolate(x, list(size), mode="bilinear", antialias=True)


def _cropped(x: Tensor, kept: float) -> Tensor:
    height, width = x.shape[2:]
    h, w = round(height * kept), round(width * kept)
    top, left = (height - h) // 2, (width - w) // 2
    return _resized(x[:, :, top : top + h, left : left + w], (height, width))


def _squeezed(x: Tensor) -> Tensor:
    height, width = x.shape[2:]
    cut = round(height * 0.75)
    top = (height - cut) // 2
    return _resized(x[:, :, top : top + cut], (height, width))


def _tilted(x: Tensor) -> Tensor:
    height, width = x.shape[2:]
    across = torch.linspace(-1, 1, width)[None].expand(height, width)
    down = torch.linspace(-1, 1, height)[:, None].expand(height, width)
    # The upper edge is a fifth further away.
    depth = 1 - 0.1 * down
    grid = torch.stack([across * depth, down * depth], -1).to(x)
    return functional.grid_sample(
        x, grid.expand(len(x), -1, -1, -1), padding_mode="border", align_corners=False
    )


FRAMINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "mirrored": lambda x: x.flip(3),
    "upside down": lambda x: x.flip(2),
    "cropped to 7/8": lambda x: _cropped(x, 0.875),
    "cropped to 3/4": lambda x: _cropped(x, 0.75),
    "aspect ratio 4:3 squeezed": _squeezed,
    "perspective": _tilted,
}
