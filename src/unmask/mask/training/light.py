"""Canvases as other cameras see them in other light: dark, backlit, noisy, blurred, compressed."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from unmask.mask.runtime.views import stretched

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class LightSettings:
    """The fraction of the canvases, 0 to 1, that is changed in each way.

    Args:
        gamma: another gamma curve.
        dark: too little light.
        backlit: light that falls off from one side.
        grey: without colour.
        noisy: noise of a sensor; of the dark ones, 0.5 more.
        blurred: out of focus or in motion.
        coarse: scaled down and up again.
        packed: compressed as JPEG of low quality.
    """

    gamma: float = 0.3
    dark: float = 0.2
    backlit: float = 0.08
    grey: float = 0.08
    noisy: float = 0.25
    blurred: float = 0.15
    coarse: float = 0.12
    packed: float = 0.25


def relit(pixels: Pixels, settings: LightSettings, random: np.random.Generator) -> Pixels:
    """Return an image as another camera might have taken it, uint8[h, w, 3].

    Most of the dark ones are stretched again, as the detector does before its forward pass.

    Args:
        pixels: uint8[h, w, 3] in RGB.
        settings: how often each change is made.
        random: the source of all random numbers.
    """
    out = pixels
    if random.random() < settings.blurred:
        out = _blurred(out, random)
    if random.random() < settings.coarse:
        out = _coarse(out, random)
    values = np.arange(256) / 255
    if random.random() < settings.gamma:
        values = values ** np.exp(random.uniform(-0.8, 0.8))
    if random.random() < settings.backlit:
        slope = _slope(out.shape[:2], random)
        out = np.clip(out * slope[..., None], 0, 255).astype(np.uint8)
    dark = random.random() < settings.dark
    if dark:
        values = values * np.exp(random.uniform(np.log(0.04), np.log(0.6)))
    # A lookup table, since a function of every value would take twenty times as long.
    out = (255 * values + 0.5).astype(np.uint8)[out]
    if random.random() < settings.grey:
        out = np.asarray(Image.fromarray(out).convert("L").convert("RGB"))
    if random.random() < settings.noisy + 0.5 * dark:
        strength = np.exp(random.uniform(np.log(1.0), np.log(5.0 if dark else 18.0)))
        noisy = out + np.float32(strength) * _noise(out.shape, random)
        out = np.clip(noisy, 0, 255).astype(np.uint8)
    if random.random() < settings.packed:
        out = _packed(out, int(random.integers(12, 75)))
    if dark and random.random() < 0.8:
        out = np.asarray(stretched(Image.fromarray(out)))
    return out


def _slope(size: tuple[int, int], random: np.random.Generator) -> NDArray[np.float32]:
    """Return float32[h, w], a light that falls off from one side."""
    y, x = np.mgrid[0 : size[0], 0 : size[1]].astype(np.float32)
    y, x = y / size[0] - 0.5, x / size[1] - 0.5
    angle, steep = random.uniform(0, 2 * np.pi), random.uniform(3, 12)
    side = np.cos(angle) * x + np.sin(angle) * y + random.uniform(-0.2, 0.2)
    low, high = random.uniform(0.08, 0.6), random.uniform(1.0, 2.2)
    return np.asarray(low + (high - low) / (1 + np.exp(-steep * side)), np.float32)


_TILE: dict[int, NDArray[np.float32]] = {}


def _noise(shape: tuple[int, ...], random: np.random.Generator) -> NDArray[np.float32]:
    """Return sensor noise, fine or in blotches: a random window of one large sheet."""
    if 0 not in _TILE:
        fixed = np.random.default_rng(0)
        _TILE[0] = fixed.normal(0, 1, (768, 768, 3)).astype(np.float32)
    sheet = _TILE[0]
    coarse = int(random.choice([1, 1, 2, 3]))
    high, wide = -(-shape[0] // coarse), -(-shape[1] // coarse)
    y, x = (int(random.integers(768 - s)) for s in (high, wide))
    part = sheet[y : y + high, x : x + wide]
    if random.random() < 0.3:
        part = np.repeat(part[..., :1], 3, axis=2)
    if coarse > 1:
        part = part.repeat(coarse, 0).repeat(coarse, 1)
    return part[: shape[0], : shape[1]]


def _blurred(pixels: Pixels, random: np.random.Generator) -> Pixels:
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if random.random() < 0.6:
        return np.asarray(image.filter(ImageFilter.GaussianBlur(random.uniform(0.4, 2.2))))
    # Motion: a line of a 5 x 5 kernel.
    kernel = np.zeros((5, 5))
    angle = random.uniform(0, np.pi)
    for t in np.linspace(-2, 2, 9):
        kernel[round(2 + t * np.sin(angle)), round(2 + t * np.cos(angle))] = 1
    return np.asarray(image.filter(ImageFilter.Kernel((5, 5), kernel.ravel().tolist())))


def _coarse(pixels: Pixels, random: np.random.Generator) -> Pixels:
    image = Image.fromarray(np.ascontiguousarray(pixels))
    factor = random.uniform(1.3, 3.0)
    size = (max(8, round(image.width / factor)), max(8, round(image.height / factor)))
    filters = (Image.Resampling.BOX, Image.Resampling.BILINEAR, Image.Resampling.NEAREST)
    small = image.resize(size, filters[int(random.integers(3))])
    back = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)[int(random.integers(2))]
    return np.asarray(small.resize(image.size, back))


def _packed(pixels: Pixels, quality: int) -> Pixels:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file).convert("RGB"))
