"""Affine changes and strokes of MNIST-C (Mu & Gilmer, 2019), in fractions of the image's side."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from unmask.shift.corruptions.registry import Draw, corruption

_PAPER = "Mu & Gilmer, 2019"


def transformed(x: Tensor, inverse: Tensor) -> Tensor:
    """Return images under an affine transform.

    Args:
        x: float32[b, c, h, w].
        inverse: float32[b, 2, 3], from a point (x, y) of the result to that of x, in half sides
            about the middle; outside, each image continues as the mean of its border.
    """
    top, bottom, left, right = x[..., 0, :], x[..., -1, :], x[..., 0], x[..., -1]
    border = torch.cat([top, bottom, left, right], -1).mean(-1)[..., None, None]
    grid = functional.affine_grid(inverse, list(x.shape), align_corners=False)
    return functional.grid_sample(x - border, grid, align_corners=False) + border


def _affine(a: Tensor, b: Tensor, c: Tensor, d: Tensor, e: Tensor, f: Tensor) -> Tensor:
    """Return [n, 2, 3] of the rows (a, b, c) and (d, e, f)."""
    return torch.stack([torch.stack([a, b, c], -1), torch.stack([d, e, f], -1)], 1)


@corruption(
    "translate",
    family="geometry",
    paper=_PAPER,
    levels=(0.04, 0.08, 0.12, 0.16, 0.2),
    none=0.0,
    mends="RandomAffine(translate=(0.2, 0.2)), RandomCrop with padding",
)
def translate(x: Tensor, p: tuple[float, ...], draw: Draw) -> Tensor:
    """Shift by p[0] of the side in a random direction."""
    angle = draw.uniform() * (2 * math.pi)
    one, zero = torch.ones_like(angle), torch.zeros_like(angle)
    far = 2 * p[0]
    return transformed(x, _affine(one, zero, far * angle.cos(), zero, one, far * angle.sin()))


@corruption(
    "scale",
    family="geometry",
    paper=_PAPER,
    levels=(1.1, 1.2, 1.35, 1.55, 1.8),
    none=1.0,
    mends="RandomResizedCrop(scale=(0.3, 1.0)), RandomAffine(scale=(0.5, 1.5))",
)
def scale(x: Tensor, p: tuple[float, ...], draw: Draw) -> Tensor:
    """Shrink by the factor p[0] about the middle."""
    factor = torch.full((len(x),), p[0], device=x.device)
    zero = torch.zeros_like(factor)
    return transformed(x, _affine(factor, zero, zero, zero, factor, zero))


@corruption(
    "rotate",
    family="geometry",
    paper=_PAPER,
    levels=(10, 20, 30, 40, 50),
    none=0.0,
    mends="RandomRotation(30)",
)
def rotate(x: Tensor, p: tuple[float, ...], draw: Draw) -> Tensor:
    """Turn by p[0] degrees to a random side."""
    angle = draw.sign() * math.radians(p[0])
    zero = torch.zeros_like(angle)
    # Points are in half sides, which differ where the image is no square.
    ratio = x.shape[2] / x.shape[3]
    cos, sin = angle.cos(), angle.sin()
    return transformed(x, _affine(cos, -sin * ratio, zero, sin / ratio, cos, zero))


@corruption(
    "shear",
    family="geometry",
    paper=_PAPER,
    levels=(0.1, 0.2, 0.3, 0.45, 0.6),
    none=0.0,
    mends="RandomAffine(shear=30)",
)
def shear(x: Tensor, p: tuple[float, ...], draw: Draw) -> Tensor:
    """Shift rows sideways by p[0] times their height above the middle, to a random side."""
    slope = draw.sign() * p[0]
    one, zero = torch.ones_like(slope), torch.zeros_like(slope)
    return transformed(x, _affine(one, slope, zero, zero, one, zero))


@corruption(
    "stripe",
    family="strokes",
    paper=_PAPER,
    levels=(0.08, 0.16, 0.25, 0.36, 0.5),
    none=0.0,
    mends="RandomErasing, RandomInvert on parts",
)
def stripe(x: Tensor, p: tuple[float, ...], draw: Draw) -> Tensor:
    """Invert the values of an upright stripe in the middle, p[0] of the width."""
    place = (torch.arange(x.shape[3], device=x.device) + 0.5) / x.shape[3] - 0.5
    inside = (place.abs() * 2 < p[0]).float()
    return x + inside * (1 - 2 * x)


def _stroke(x: Tensor, distance: Tensor, thickness: float, strength: float) -> Tensor:
    """Draw white where the distance in pixels is below half the thickness, with a soft rim."""
    cover = (thickness / 2 + 0.5 - distance).clamp(0, 1) * strength
    return torch.maximum(x, cover[:, None])


def _ends(x: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
    """Return the heights [b, 1, 1] at which strokes enter at the left and leave at the right."""
    heights = (0.15 + 0.7 * draw.uniform(2)) * x.shape[2]
    return heights[:, :1, None], heights[:, 1:, None]


def _points(x: Tensor) -> tuple[Tensor, Tensor]:
    rows = torch.arange(x.shape[2], device=x.device, dtype=torch.float32)[:, None] + 0.5
    columns = torch.arange(x.shape[3], device=x.device, dtype=torch.float32)[None] + 0.5
    return rows, columns


@corruption(
    "dotted_line",
    family="strokes",
    paper=_PAPER,
    levels=((0.03, 0.6), (0.04, 0.7), (0.05, 0.8), (0.065, 0.9), (0.08, 1.0)),
    none=(0.03, 0.0),
    mends="RandomErasing, CutMix",
)
def dotted_line(x: Tensor, p: tuple[float, ...], draw: Draw) -> Tensor:
    """Draw a dotted line across, p[0] of the side thick and p[1] bright."""
    rows, columns = _points(x)
    left, right = _ends(x, draw)
    across = columns / x.shape[3]
    height = left + (right - left) * across
    thick = max(1.0, p[0] * min(x.shape[2:]))
    # A dot every three thicknesses, each a disk.
    along = columns.remainder(3 * thick) - 1.5 * thick
    return _stroke(x, torch.hypot(rows - height, along), thick, p[1])


@corruption(
    "zigzag",
    family="strokes",
    paper=_PAPER,
    levels=((0.03, 0.6), (0.04, 0.7), (0.05, 0.8), (0.065, 0.9), (0.08, 1.0)),
    none=(0.03, 0.0),
    mends="RandomErasing, CutMix",
)
def zigzag(x: Tensor, p: tuple[float, ...], draw: Draw) -> Tensor:
    """Draw a zigzag across, p[0] of the side thick and p[1] bright."""
    rows, columns = _points(x)
    left, right = _ends(x, draw)
    across = columns / x.shape[3]
    # Five teeth of a quarter of the height.
    tooth = 2 * ((across * 5).remainder(1) - 0.5).abs() - 0.5
    height = left + (right - left) * across + tooth * (x.shape[2] / 4)
    steep = math.hypot(1, 5 * 2 * (x.shape[2] / 4) / x.shape[3])
    thick = max(1.0, p[0] * min(x.shape[2:]))
    return _stroke(x, (rows - height).abs() / steep, thick, p[1])
