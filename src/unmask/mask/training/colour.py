"""Batches of images under other light: brighter, flatter, greyer, of another tint."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Of red, green and blue, as luma has them (ITU-R BT.601).
_LUMA = (0.299, 0.587, 0.114)
_BRIGHTNESS, _CONTRAST, _SATURATION, _TINT = 0.25, 0.35, 0.5, 0.08
# In radians about the axis of greys.
_HUE = 0.2
_GREY = 0.05


def recoloured(pixels: Tensor, random: np.random.Generator) -> Tensor:
    """Return uint8[b, h, w, 3] as float[b, 3, h, w] in [0, 1], each image's colours changed.

    Brightness, contrast, saturation, hue and tint are linear, so they are one matrix an image. One
    in twenty becomes grey. The result lies in memory as channels_last.
    """
    b = len(pixels)
    contrast = np.exp(random.uniform(-_CONTRAST, _CONTRAST, b))
    brightness = random.uniform(-_BRIGHTNESS, _BRIGHTNESS, b)
    saturation = np.exp(random.uniform(-_SATURATION, _SATURATION, b))
    saturation[random.random(b) < _GREY] = 0
    tint = np.exp(random.uniform(-_TINT, _TINT, (b, 3)))
    grey = np.tile(np.array(_LUMA), (3, 1))
    hue = _about_grey(random.uniform(-_HUE, _HUE, b))
    mix = saturation[:, None, None] * hue + (1 - saturation)[:, None, None] * grey
    middle = pixels.float().mean((1, 2, 3)) / 255

    def there(values: NDArray[np.float64]) -> Tensor:
        return torch.from_numpy(values.astype(np.float32)).to(pixels.device)

    matrix = there(contrast[:, None, None] * tint[:, :, None] * mix)
    offset = there(brightness) + middle * there(1 - contrast)
    flat = pixels.flatten(1, 2).float() / 255
    coloured = torch.baddbmm(offset[:, None, None], flat, matrix.transpose(1, 2)).clamp_(0, 1)
    return coloured.view(pixels.shape).permute(0, 3, 1, 2)


def _about_grey(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return float64[n, 3, 3], rotations of colours about the axis of greys (Rodrigues)."""
    cos, sin = (f(angles)[:, None, None] for f in (np.cos, np.sin))
    across = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
    turned: NDArray[np.float64] = cos * np.eye(3) + (1 - cos) / 3 + sin * across
    return turned
