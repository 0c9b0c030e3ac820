"""Which parts of a picture the network sees, at which scale, so that every face fits one of them.

Small pictures are seen whole. Of larger ones the network sees the whole, scaled down, for the large
faces, and tiles of finer and finer scale for the small ones: memory is that of one tile. All are
seen once more a quarter as large, for faces that fill them, which is larger than any in training.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

WHOLE = 960
TILE = 640
# A face of up to this size lies whole in a tile at least; larger ones in one of a coarser scale.
OVERLAP = 128
# Between scales: so that what is cut by the tiles of one is still OVERLAP / 4 pixels in the next.
STEP = 4.0
_EDGE = 2.0
# Smaller faces than this, in pixels that the network sees, are left to finer views by the coarsest.
_LARGE = 32.0
# In 0 to 255, what a view is filled up with beyond the picture, as in training.
GREY = 114


@dataclass(frozen=True)
class View:
    """A part of the picture, in its pixels, and the size in pixels at which the network sees it.

    least: mean side, in pixels that the network sees, of the smallest faces it is to find here.
    """

    left: int
    top: int
    right: int
    bottom: int
    width: int
    height: int
    least: float = 0.0

    def to_picture(self, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return boxes[n, 4] of the view in pixels of the picture."""
        across = (self.right - self.left) / self.width
        down = (self.bottom - self.top) / self.height
        scale = np.array([across, down, across, down])
        offset = np.array([self.left, self.top, self.left, self.top])
        return np.asarray(boxes * scale + offset, np.float32)

    def whole(self, boxes: NDArray[np.float32], width: int, height: int) -> NDArray[np.bool_]:
        """Return which boxes[n, 4], in pixels of the picture, the view's edges do not cut.

        The picture's own edges, at 0, width and height, cut nothing that another view has whole.
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
    """Return what the network sees of a picture of this size, the whole first, the coarsest last.

    finest: pixels the network sees for a pixel of the picture, at the finest scale. A picture of
    which that makes no more than WHOLE pixels on either side needs no tiles.
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
    """Return where tiles begin and end along one side: all equally long, overlaps as wide."""
    tile, overlap = (math.ceil(pixels / scale) for pixels in (TILE, OVERLAP))
    if length <= tile:
        return [(0, length)]
    count = math.ceil((length - overlap) / (tile - overlap))
    return [
        (start, start + tile)
        for start in (round(i * (length - tile) / (count - 1)) for i in range(count))
    ]
