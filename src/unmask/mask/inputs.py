"""From a picture to what the network sees of it, as NumPy arrays."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unmask.mask.tiling import GREY, View, views

# Sides of what the network sees are whole multiples of this; what is lacking is grey.
MULTIPLE = 32
# Pictures whose longer side has more pixels are not enlarged unless smaller faces are asked for.
_ENOUGH = 640.0


def usual_scale(picture: Image.Image, scale: float) -> float:
    """Return how many pixels the network sees for one of this picture, unless asked otherwise.

    scale: what a small picture is enlarged by.
    """
    return min(scale, max(1.0, _ENOUGH / max(picture.size)))


def usual_inputs(picture: Image.Image, scale: float) -> Iterator[NDArray[np.float32]]:
    """Yield all that the network sees of a picture at its usual scale, as network_input does."""
    for view in views(picture.width, picture.height, usual_scale(picture, scale)):
        yield network_input(picture, view)


def network_input(picture: Image.Image, view: View) -> NDArray[np.float32]:
    """Return the view of an RGB picture as float32[1, 3, h, w] in [0, 1], multiples of 32."""
    size, box = (view.width, view.height), (view.left, view.top, view.right, view.bottom)
    if size != (view.right - view.left, view.bottom - view.top):
        # A gap of one: whole pixels are averaged first, which is five times as fast.
        picture = picture.resize(size, Image.Resampling.BILINEAR, box, reducing_gap=1.0)
    elif size != picture.size:
        picture = picture.crop(box)
    height, width = (-(-side // MULTIPLE) * MULTIPLE for side in (view.height, view.width))
    pixels = np.empty((1, 3, height, width), np.float32)
    pixels[:, :, view.height :] = pixels[:, :, :, view.width :] = GREY / 255
    # Colour by colour: their bytes then lie in a row, which is twice as fast.
    for place, colour in zip(pixels[0], picture.split(), strict=True):
        np.multiply(np.asarray(colour), np.float32(1 / 255), out=place[: view.height, : view.width])
    return pixels
