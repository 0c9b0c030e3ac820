"""Snow, frost, fog and spatter (Hendrycks & Dietterich, 2019)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from unmask.shift.corruptions import filters
from unmask.shift.corruptions.registry import Draw, corruption

_PAPER = "Hendrycks & Dietterich, 2019"
# Colours in [0, 1]: pale turquoise water and brown mud, as in the paper.
_WATER = (175 / 255, 238 / 255, 238 / 255)
_MUD = (63 / 255, 42 / 255, 20 / 255)
_REACH = 20


@corruption(
    "snow",
    family="weather",
    paper=_PAPER,
    levels=(
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    ),
    none=(-0.8, 0.3, 3, 0.5, 10, 4, 1.0),
    mends="RandAugment, synthetic snow (albumentations.RandomSnow)",
)
def snow(x: Tensor, p: tuple[float, ...], draw: Draw) -> Tensor:
    """Lay flakes, smeared as they fall, over a whitened image.

    Args:
        x: float32[b, c, h, w] in [0, 1], c 1 or 3.
        p: mean and spread of the flakes' noise, their size, the threshold, length and sigma of the
            smear, and the fraction of the image's colours that is kept.
        draw: the random numbers.
    """
    mean, spread, size, threshold, length, sigma, kept = p
    scale = filters.scale_of(x)
    height, width = x.shape[2:]
    flakes = draw.normal(1, height, width) * spread + mean
    flakes = filters.zoomed(flakes, max(1.0, size * scale))
    flakes = torch.where(flakes < threshold, 0.0, flakes).clamp(0, 1)
    angles = -(math.pi / 4 + draw.uniform() * math.pi / 2)
    streak = filters.streaks((2 * length + 1) * max(scale, 0.1), sigma * scale, angles)
    flakes = filters.convolve(flakes, streak)
    whitened = torch.maximum(x, filters.grey(x) * 1.5 + 0.5)
    return kept * x + (1 - kept) * whitened + flakes + flakes.flip((2, 3))


@corruption(
    "frost",
    family="weather",
    paper=_PAPER,
    levels=((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
    none=(1.0, 0.0),
    mends="RandAugment, CutMix with textures",
)
def frost(x: Tensor, p: tuple[float, ...], draw: Draw) -> Tensor:
    """Add p[1] of a frosted pane to p[0] of the image.

    The paper uses photographs of frost. Here the ice is synthetic: ridges of rough plasma for its
    crystals, in patches of smooth plasma, as bright and as varied as those photographs.

    Args:
        x: float32[b, c, h, w] in [0, 1], c 1 or 3.
        p: the factors on the image and on the pane.
        draw: the random numbers.
    """
    ridges = 1 - (filters.plasma(x, 1.55, draw) * 2 - 1).abs()
    needles = 1 - (filters.plasma(x, 1.3, draw) * 2 - 1).abs()
    patches = filters.plasma(x, 2.0, draw)
    ice = 0.36 + 0.25 * patches + 0.14 * ridges**2 + 0.14 * needles**2
    if x.shape[1] == 3:
        tint = torch.tensor([0.9, 1.0, 1.1], device=x.device).view(1, 3, 1, 1)
        ice = ice * tint
    return p[0] * x + p[1] * ice.clamp(0, 1)


@corruption(
    "fog",
    family="weather",
    paper=_PAPER,
    levels=((1.5, 2), (2.0, 2), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4)),
    none=(0.0, 2.0),
    mends="ColorJitter(contrast=0.8), RandAugment, synthetic fog (albumentations.RandomFog)",
)
def fog(x: Tensor, p: tuple[float, ...], draw: Draw) -> Tensor:
    """Add p[0] times clouds of smoothness p[1], then scale to the image's original range."""
    largest = x.amax((1, 2, 3), keepdim=True)
    return (x + p[0] * filters.plasma(x, p[1], draw)) * (largest / (largest + p[0]))


@corruption(
    "spatter",
    family="weather",
    paper=_PAPER,
    # Water up to 3 and mud from 4 on; the last number tells which.
    levels=(
        (0.65, 0.3, 4, 0.69, 0.6, 0),
        (0.65, 0.3, 3, 0.68, 0.6, 0),
        (0.65, 0.3, 2, 0.68, 0.5, 0),
        (0.65, 0.3, 1, 0.65, 1.5, 1),
        (0.67, 0.4, 1, 0.65, 1.5, 1),
    ),
    none=(0.45, 0.3, 4, 0.69, 0.0, 0),
    mends="RandomErasing, CutMix",
)
def spatter(x: Tensor, p: tuple[float, ...], draw: Draw) -> Tensor:
    """Put drops of water, or of mud, on the lens.

    Args:
        x: float32[b, c, h, w] in [0, 1], c 1 or 3.
        p: mean and spread of the drops' noise, its blur, the threshold, the water's strength or the
            blur of the mud's rim, and 0 for water or 1 for mud.
        draw: the random numbers.
    """
    mean, spread, blur, threshold, strength, kind = p
    if 0 < kind < 1:
        kind = round(kind)
        strength = 1.5 if kind else 0.5
    scale = filters.scale_of(x)
    # Drops cover the same fraction of any image: noise with less blur is scaled to vary as much.
    sigma = max(blur * scale, min(blur, 0.7))
    noise = draw.normal(1, *x.shape[2:]) * spread
    liquid = mean + filters.gaussian_blur(noise, sigma) * (sigma / blur)
    if kind:
        return _mud(x, liquid, threshold, strength * scale)
    return _water(x, liquid, threshold, strength)


def _mud(x: Tensor, liquid: Tensor, threshold: float, rim: float) -> Tensor:
    cover = filters.gaussian_blur((liquid > threshold).float(), rim)
    cover = torch.where(cover < 0.8, 0.0, cover)
    return x * (1 - cover) + cover * _colour(_MUD, x)


def _water(x: Tensor, liquid: Tensor, threshold: float, strength: float) -> Tensor:
    liquid = torch.where(liquid < threshold, 0.0, liquid)
    wet = liquid > 0
    dry = functional.pad(~wet, (1, 1, 1, 1), value=False)
    dry = dry[..., :-2] | dry[..., 1:-1] | dry[..., 2:]
    rim = wet & (dry[:, :, :-2] | dry[:, :, 1:-1] | dry[:, :, 2:])
    depth = _boxed(_distance(rim))
    relief = functional.conv2d(
        functional.pad(_equalised(depth), (1, 1, 1, 1), mode="replicate"),
        torch.tensor([[[[-2.0, -1, 0], [-1, 1, 1], [0, 1, 2]]]], device=x.device),
    ).clamp(0, 1)
    drops = liquid * _boxed(relief)
    drops = drops / drops.amax((1, 2, 3), keepdim=True).clamp(min=1e-6)
    return x + strength * drops * _colour(_WATER, x)


def _boxed(x: Tensor) -> Tensor:
    """Return the mean of each pixel's 3 x 3, taken as 0 outside."""
    x = functional.pad(x, (1, 1, 1, 1))
    x = x[..., :-2] + x[..., 1:-1] + x[..., 2:]
    return (x[:, :, :-2] + x[:, :, 1:-1] + x[:, :, 2:]) / 9


def _colour(rgb: tuple[float, float, float], x: Tensor) -> Tensor:
    colour = torch.tensor(rgb, device=x.device).view(1, 3, 1, 1)
    return colour if x.shape[1] == 3 else filters.grey(colour)


def _distance(marked: Tensor) -> Tensor:
    """Return the Euclidean distance to the nearest marked pixel, up to _REACH, [b, 1, h, w]."""
    height, width = marked.shape[2:]
    # Along the rows by doubling steps, then down the columns (Felzenszwalb & Huttenlocher, 2012).
    line = torch.where(marked, 0, _REACH).to(torch.int16)
    step = 1
    while step < _REACH:
        padded = functional.pad(line, (step, step), value=_REACH) + step
        line = torch.minimum(
            line, torch.minimum(padded[..., :width], padded[..., 2 * step : 2 * step + width])
        )
        step *= 2
    found = line * line
    squares = functional.pad(found, (0, 0, _REACH, _REACH), value=_REACH**2)
    for move in range(1, _REACH):
        for start in (_REACH - move, _REACH + move):
            found = torch.minimum(found, squares[:, :, start : start + height] + move * move)
    return found.float().sqrt().clamp(max=_REACH)


def _equalised(depth: Tensor) -> Tensor:
    """Return each value as the fraction of the image's values that are no larger, in [0, 1]."""
    places = depth.round().long().clamp(0, 255).flatten(1)
    counts = torch.zeros(len(depth), 256, device=depth.device)
    counts.scatter_add_(1, places, torch.ones_like(places, dtype=torch.float32))
    below = counts.cumsum(1)
    first = counts.gather(1, places.amin(1, keepdim=True))
    spread = (below[:, -1:] - first).clamp(min=1)
    return ((below - first) / spread).clamp(0, 1).gather(1, places).view_as(depth)
