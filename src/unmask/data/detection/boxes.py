"""Boxes: xyxy in absolute pixels, half-open; their overlap, and non-maximum suppression."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.float32]
_Float = TypeVar("_Float", bound=np.floating[Any])


def clip(boxes: Boxes, width: float, height: float) -> Boxes:
    """Return float32[n, 4] boxes cut to an image; one that lies outside has no area left."""
    limits = np.array([width, height, width, height], np.float32)
    return np.clip(boxes, np.float32(0), limits).astype(np.float32)


def area(boxes: NDArray[_Float]) -> NDArray[_Float]:
    """Return the areas in square pixels, [n], 0 for inverted and empty boxes."""
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    return sides[:, 0] * sides[:, 1]


def iou(a: NDArray[_Float], b: NDArray[_Float]) -> NDArray[_Float]:
    """Return the intersection over union of every box of a with every box of b.

    It is computed in the boxes' own precision. Boxes without area overlap with nothing.

    Args:
        a: float[n, 4], xyxy in pixels, half-open.
        b: float[m, 4], the same.

    Returns:
        float[n, m] in [0, 1].
    """
    first = np.maximum(a[:, None, :2], b[None, :, :2])
    last = np.minimum(a[:, None, 2:], b[None, :, 2:])
    sides = np.maximum(last - first, 0)
    common: NDArray[_Float] = sides[..., 0] * sides[..., 1]
    union = area(a)[:, None] + area(b)[None, :] - common
    overlaps = np.zeros_like(common)
    np.divide(common, union, out=overlaps, where=union > 0)
    return overlaps


def nms(boxes: Boxes, scores: NDArray[np.float32], threshold: float) -> NDArray[np.int64]:
    """Return the indices of the boxes that greedy non-maximum suppression keeps.

    Args:
        boxes: float32[n, 4], xyxy in pixels, half-open.
        scores: float32[n], the higher the better.
        threshold: 0 to 1; a box is dropped when its IoU with a box kept before it is over this.

    Returns:
        int64[k], the highest score first; of equal scores, the first in the input.
    """
    left = np.argsort(-scores, kind="stable")
    kept = []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(best)
        left = left[iou(boxes[best][None], boxes[left])[0] <= threshold]
    return np.array(kept, np.int64)
