"""Batches of images under random colour changes: brightness, contrast, saturation, hue and tint."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# The weights of red, green and blue in luma (ITU-R BT.601).
_LUMA = (0.299, 0.587, 0.114)
_BRIGHTNESS, _CONTRAST, _SATURATION, _TINT = 0.25, 0.35, 0.5, 0.08
# In radians about the axis of greys.
_HUE = 0.2
_GREY = 0.05


@dataclass(frozen=True, eq=False)
class Colours:
    """How the colours of n images change: one linear map and one offset each.

    Args:
        matrix: float64[n, 3, 3], maps red, green and blue, the contrast included.
        brightness: float64[n], added to values in [0, 1].
        contrast: float64[n], the factor about the image's mean.
    """

    matrix: NDArray[np.float64]
    brightness: NDArray[np.float64]
    contrast: NDArray[np.float64]

    @staticmethod
    def drawn(count: int, random: np.random.Generator) -> Colours:
        """Draw changes of brightness, contrast, saturation, hue and tint.

        Args:
            count: how many images; one in twenty becomes grey.
            random: the source of all random numbers.
        """
        contrast = np.exp(random.uniform(-_CONTRAST, _CONTRAST, count))
        brightness = random.uniform(-_BRIGHTNESS, _BRIGHTNESS, count)
        saturation = np.exp(random.uniform(-_SATURATION, _SATURATION, count))
        saturation[random.random(count) < _GREY] = 0
        tint = np.exp(random.uniform(-_TINT, _TINT, (count, 3)))
        grey = np.tile(np.array(_LUMA), (3, 1))
        hue = _about_grey(random.uniform(-_HUE, _HUE, count))
        mix = saturation[:, None, None] * hue + (1 - saturation)[:, None, None] * grey
        return Colours(contrast[:, None, None] * tint[:, :, None] * mix, brightness, contrast)

    def __getitem__(self, part: slice) -> Colours:
        return Colours(self.matrix[part], self.brightness[part], self.contrast[part])

    def applied(self, pixels: Tensor) -> Tensor:
        """Apply the changes to a batch.

        Args:
            pixels: uint8[n, h, w, 3] in RGB.

        Returns:
            float32[n, 3, h, w] in [0, 1], in memory as channels_last.
        """

        def there(values: NDArray[np.float64]) -> Tensor:
            return torch.from_numpy(values.astype(np.float32)).to(pixels.device)

        middle = pixels.float().mean((1, 2, 3)) / 255
        offset = there(self.brightness) + middle * there(1 - self.contrast)
        flat = pixels.flatten(1, 2).float() / 255
        matrix = there(self.matrix).transpose(1, 2)
        coloured = torch.baddbmm(offset[:, None, None], flat, matrix).clamp_(0, 1)
        return coloured.view(pixels.shape).permute(0, 3, 1, 2)


def recoloured(pixels: Tensor, random: np.random.Generator) -> Tensor:
    """Return a batch with the colours of each image changed at random.

    Args:
        pixels: uint8[n, h, w, 3] in RGB.
        random: what the changes are drawn from.

    Returns:
        float32[n, 3, h, w] in [0, 1].
    """
    return Colours.drawn(len(pixels), random).applied(pixels)


def _about_grey(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return float64[n, 3, 3], rotations of colours about the axis of greys (Rodrigues)."""
    cos, sin = (f(angles)[:, None, None] for f in (np.cos, np.sin))
    across = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
    turned: NDArray[np.float64] = cos * np.eye(3) + (1 - cos) / 3 + sin * across
    return turned
