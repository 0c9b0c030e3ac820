"""What the detector's network should say of every cell, from annotated boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unmask.mask.decode import STRIDE

# The label of a box in which nothing is asked: too small, or cut off.
IGNORED = -1
# Parts of a box's sides: one standard deviation of its heat is a third of half the box.
_SPREAD = 1 / 6
_LEAST_SPREAD = 0.5
# Cells with less heat than this, at most a quarter of the box from its middle, don't speak for it.
_SPEAKS = 0.3

Faces = tuple[NDArray[np.floating[Any]], NDArray[np.integer[Any]]]


@dataclass(frozen=True)
class Targets:
    """What is asked of b pictures at each of h/4 x w/4 cells.

    heat: float[b, h/4, w/4], 1 in the cell that holds a face's middle, falling off as a Gaussian a
    third of the box wide (Zhou et al., 2019, arXiv:1904.07850). asked: whether heat is asked for.
    Of the cells that speak for a face, n in all: cells int64[n], indices into the flattened [b,
    h/4, w/4]; boxes float[n, 4], xyxy; labels int64[n]; weights float[n], which add up to 1 a face.
    """

    heat: Tensor
    asked: Tensor
    cells: Tensor
    boxes: Tensor
    labels: Tensor
    weights: Tensor

    @property
    def faces(self) -> float:
        """How many faces there are."""
        return float(self.weights.sum())

    def to(self, device: torch.device) -> Targets:
        """Return the targets on that device."""
        return Targets(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


def targets(faces: Sequence[Faces], height: int, width: int) -> Targets:
    """Return the targets of pictures of one size, each with boxes [k, 4] and labels [k].

    Where faces overlap, the one with the most heat has the cell, of equals the smaller.
    """
    rows, columns = height // STRIDE, width // STRIDE
    heat = np.zeros((len(faces), rows, columns), np.float32)
    asked = np.ones((len(faces), rows, columns), np.bool_)
    cells, boxes, labels, weights = [], [], [], []
    for i, (own_boxes, own_labels) in enumerate(faces):
        for box in own_boxes[own_labels == IGNORED]:
            left, top, right, bottom = np.clip(np.round(box / STRIDE), 0, None).astype(int)
            asked[i, top : max(bottom, top + 1), left : max(right, left + 1)] = False
        wanted = own_labels != IGNORED
        if not wanted.any():
            continue
        kept, kinds = own_boxes[wanted].astype(np.float32), own_labels[wanted]
        order = np.argsort(-np.prod(kept[:, 2:] - kept[:, :2], axis=1), kind="stable")
        kept, kinds = kept[order], kinds[order]
        each = _gaussians(kept, rows, columns)
        # Later, smaller faces win ties, so that none is hidden by a larger one behind it.
        owner = len(each) - 1 - each[::-1].argmax(0)
        heat[i] = each.max(0)
        cell = np.flatnonzero((heat[i] >= _SPEAKS).ravel())
        face = owner.ravel()[cell]
        weight = heat[i].ravel()[cell]
        total = np.bincount(face, weight, len(kept))
        cells.append(cell + i * rows * columns)
        boxes.append(kept[face])
        labels.append(kinds[face])
        weights.append(weight / total[face])
    return Targets(
        torch.from_numpy(heat),
        torch.from_numpy(asked | (heat >= _SPEAKS)),
        torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *cells])),
        torch.from_numpy(np.concatenate([np.zeros((0, 4), np.float32), *boxes])),
        torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *labels]).astype(np.int64)),
        torch.from_numpy(np.concatenate([np.zeros(0, np.float32), *weights]).astype(np.float32)),
    )


def _gaussians(boxes: NDArray[np.float32], rows: int, columns: int) -> NDArray[np.float32]:
    """Return [k, rows, columns]: each box's heat, about the cell that holds its middle."""

    def along(low: NDArray[np.float32], high: NDArray[np.float32], count: int) -> Any:
        middle = np.clip(np.floor((low + high) / (2 * STRIDE)), 0, count - 1)
        spread = np.maximum((high - low) / STRIDE * _SPREAD, _LEAST_SPREAD)
        away = (np.arange(count, dtype=np.float32) - middle[:, None]) / spread[:, None]
        return np.exp(-0.5 * away * away)

    across = along(boxes[:, 0], boxes[:, 2], columns)
    down = along(boxes[:, 1], boxes[:, 3], rows)
    heat: NDArray[np.float32] = (down[:, :, None] * across[:, None, :]).astype(np.float32)
    return heat
