"""Which parts of an image the network sees, at which scale, and as which arrays."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

WHOLE = 960
TILE = 640
# A face of up to this size lies whole in at least one tile; larger ones in one of a coarser scale.
OVERLAP = 128
# Between scales: a face that the tiles of one cut still has OVERLAP / 4 pixels in the next.
STEP = 4.0
_EDGE = 2.0
# The fraction of pixels cut at either end, the span of 256 luma values under which the contrast is
# stretched, and the largest factor.
_CUT, _LITTLE, _MOST_GAIN = 0.01, 110.0, 32.0
# The coarsest view leaves faces smaller than this, in pixels that the network sees, to finer ones.
_LARGE = 32.0
# The value, 0 to 255, that fills a view beyond the image, as in training.
GREY = 114


@dataclass(frozen=True)
class View:
    """A region of the image, and the size at which the network sees it.

    Args:
        left: of the region, in pixels of the image.
        top: likewise.
        right: likewise, half-open.
        bottom: likewise, half-open.
        width: in pixels that the network sees.
        height: likewise.
        least: mean side, in pixels that the network sees, of the smallest faces to find here.
    """

    left: int
    top: int
    right: int
    bottom: int
    width: int
    height: int
    least: float = 0.0

    def to_image(self, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return boxes of the view, float32[n, 4], in pixels of the image."""
        across = (self.right - self.left) / self.width
        down = (self.bottom - self.top) / self.height
        scale = np.array([across, down, across, down])
        offset = np.array([self.left, self.top, self.left, self.top])
        return np.asarray(boxes * scale + offset, np.float32)

    def whole(self, boxes: NDArray[np.float32], width: int, height: int) -> NDArray[np.bool_]:
        """Return bool[n]: which boxes the edges of the view do not cut.

        The image's own edges cut nothing that another view holds whole.

        Args:
            boxes: float32[n, 4], xyxy in pixels of the image.
            width: of the image in pixels.
            height: of the image in pixels.
        """
        margin = _EDGE * (self.right - self.left) / self.width
        inside = np.ones(len(boxes), np.bool_)
        if self.left > 0:
            inside &= boxes[:, 0] > self.left + margin
        if self.top > 0:
            inside &= boxes[:, 1] > self.top + margin
        if self.right < width:
            inside &= boxes[:, 2] < self.right - margin
        if self.bottom < height:
            inside &= boxes[:, 3] < self.bottom - margin
        return inside


def views(width: int, height: int, finest: float) -> list[View]:
    """Return the views through which the network sees an image: whole first, tiles, coarsest last.

    Args:
        width: of the image in pixels.
        height: of the image in pixels.
        finest: pixels that the network sees for one of the image, at the finest scale. An image
            that has at most WHOLE pixels on either side at this scale needs no tiles.
    """
    coarsest = min(finest, WHOLE / max(width, height))
    steps = math.ceil(math.log(finest / coarsest, STEP) - 1e-9)
    found = [_scaled(0, 0, width, height, coarsest)]
    for step in range(1, steps + 1):
        scale = coarsest * (finest / coarsest) ** (step / steps)
        across, down = (_spans(length, scale) for length in (width, height))
        found += [_scaled(l, t, r, b, scale) for t, b in down for l, r in across]
    last = _scaled(0, 0, width, height, coarsest / STEP)
    return [*found, replace(last, least=_LARGE)]


def _scaled(left: int, top: int, right: int, bottom: int, scale: float) -> View:
    width, height = (max(1, round(s * scale)) for s in (right - left, bottom - top))
    return View(left, top, right, bottom, width, height)


def _spans(length: int, scale: float) -> list[tuple[int, int]]:
    """Return where tiles begin and end along one side, all equally long with equal overlaps."""
    tile, overlap = (math.ceil(pixels / scale) for pixels in (TILE, OVERLAP))
    if length <= tile:
        return [(0, length)]
    count = math.ceil((length - overlap) / (tile - overlap))
    return [
        (start, start + tile)
        for start in (round(i * (length - tile) / (count - 1)) for i in range(count))
    ]


# Sides of what the network sees are multiples of this; the rest is filled with grey.
MULTIPLE = 32
# Images whose longer side has more pixels are not enlarged unless smaller faces are to be found.
_ENOUGH = 640.0


def usual_scale(size: tuple[int, int], scale: float) -> float:
    """Return how many pixels the network sees for one of an image at its usual scale.

    Args:
        size: width and height of the image in pixels.
        scale: the factor by which a small image is enlarged, see DetectorFacts.
    """
    return min(scale, max(1.0, _ENOUGH / max(size)))


def usual_inputs(picture: Image.Image, scale: float) -> Iterator[NDArray[np.float32]]:
    """Yield all arrays that the network sees of an image at its usual scale; see network_input.

    Args:
        picture: an RGB image.
        scale: see usual_scale.
    """
    for view in views(picture.width, picture.height, usual_scale(picture.size, scale)):
        yield network_input(picture, view)


def stretched(image: Image.Image) -> Image.Image:
    """Return an image of low contrast with the contrast stretched, so that faces show in the dark.

    Args:
        image: an RGB image. Where the luma of its pixels, without the darkest and the brightest
            hundredth, spans less than _LITTLE of 256 values, that span becomes the whole range.

    Returns:
        The stretched image, or the given one where its contrast is enough.
    """
    # About 10,000 pixels are enough to estimate the span of millions.
    step = max(1, min(image.size) // 100)
    few = np.asarray(image.resize((image.width // step or 1, image.height // step or 1), 0))
    luma = few.reshape(-1, 3) @ np.array([0.299, 0.587, 0.114])
    # Not np.percentile, which loads numpy.ma: a tenth of the time of a command on one image.
    cuts = np.array([_CUT, 1 - _CUT]) * (len(luma) - 1)
    low, high = np.interp(cuts, np.arange(len(luma)), np.sort(luma))
    if high - low >= _LITTLE:
        return image
    gain = min(255 / max(high - low, 1.0), _MOST_GAIN)
    table = np.clip((np.arange(256) - low) * gain + 0.5, 0, 255).astype(int).tolist()
    return image.point(table * 3)


def network_input(picture: Image.Image, view: View) -> NDArray[np.float32]:
    """Return a view of an image as the network's input.

    Args:
        picture: an RGB image.
        view: a region of it.

    Returns:
        float32[1, 3, h, w] in [0, 1]; h and w are multiples of 32, filled with grey.
    """
    size, box = (view.width, view.height), (view.left, view.top, view.right, view.bottom)
    if size != (view.right - view.left, view.bottom - view.top):
        # With a gap of one, whole pixels are averaged first, which is five times as fast.
        picture = picture.resize(size, Image.Resampling.BILINEAR, box, reducing_gap=1.0)
    elif size != picture.size:
        picture = picture.crop(box)
    height, width = (-(-side // MULTIPLE) * MULTIPLE for side in (view.height, view.width))
    pixels = np.empty((1, 3, height, width), np.float32)
    pixels[:, :, view.height :] = pixels[:, :, :, view.width :] = GREY / 255
    # Each colour separately: its bytes are then contiguous, which is twice as fast.
    for place, colour in zip(pixels[0], picture.split(), strict=True):
        np.multiply(np.asarray(colour), np.float32(1 / 255), out=place[: view.height, : view.width])
    return pixels
