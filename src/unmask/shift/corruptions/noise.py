"""Noise of sensors and transmission (Hendrycks & Dietterich, 2019)."""

from __future__ import annotations

import torch
from torch import Tensor

from unmask.shift.corruptions.registry import Draw, corruption

_PAPER = "Hendrycks & Dietterich, 2019"
_MENDS = "GaussianNoise (sigma 0.05 to 0.3), AugMix"


@corruption(
    "gaussian_noise",
    family="noise",
    paper=_PAPER,
    levels=(0.08, 0.12, 0.18, 0.26, 0.38),
    none=0.0,
    mends=_MENDS,
)
def gaussian_noise(x: Tensor, p: tuple[float, ...], draw: Draw) -> Tensor:
    """Add normal noise of standard deviation p[0]: low light."""
    return draw.normal(*x.shape[1:]).mul_(p[0]).add_(x)


@corruption(
    "shot_noise",
    family="noise",
    paper=_PAPER,
    levels=(1 / 60, 1 / 25, 1 / 12, 1 / 5, 1 / 3),
    none=0.0,
    mends=_MENDS,
)
def shot_noise(x: Tensor, p: tuple[float, ...], draw: Draw) -> Tensor:
    """Count photons: Poisson(x / p[0]) p[0], where p[0] is the brightness of one."""
    rate = x.clamp(min=0) / p[0]
    return (
        torch.stack(
            [
                torch.poisson(image, generator=g)
                for image, g in zip(rate, draw.generators(), strict=True)
            ]
        )
        * p[0]
    )


@corruption(
    "impulse_noise",
    family="noise",
    paper=_PAPER,
    levels=(0.03, 0.06, 0.09, 0.17, 0.27),
    none=0.0,
    mends="a median filter before the model, RandomErasing, AugMix",
)
def impulse_noise(x: Tensor, p: tuple[float, ...], draw: Draw) -> Tensor:
    """Set a fraction p[0] of the values to 0 or 1: bit errors."""
    u = draw.uniform(*x.shape[1:])
    return torch.where(u < p[0] / 2, 0.0, torch.where(u > 1 - p[0] / 2, 1.0, x))


@corruption(
    "speckle_noise",
    family="noise",
    paper=_PAPER,
    levels=(0.15, 0.2, 0.35, 0.45, 0.6),
    none=0.0,
    mends=_MENDS,
)
def speckle_noise(x: Tensor, p: tuple[float, ...], draw: Draw) -> Tensor:
    """Add normal noise in proportion to the brightness: coherent imaging."""
    return x + x * draw.normal(*x.shape[1:]) * p[0]
