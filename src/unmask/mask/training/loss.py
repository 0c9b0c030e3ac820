"""What the network should predict for every cell, and how far it is from that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from unmask.mask.runtime.decode import STRIDE
from unmask.mask.training.network import Heads

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


# Penalty-reduced focal loss: the exponents of Zhou et al., 2019.
_FOCUS, _NEARNESS = 2.0, 4.0
_SIDES_WEIGHT, _CLASS_WEIGHT = 2.0, 1.0
# Of the classes' cross-entropy: what is said of one face in twenty is a matter of taste.
_SMOOTHING = 0.05


@dataclass(frozen=True)
class Losses:
    """The parts of the loss, each a mean over faces, and their weighted sum."""

    face: Tensor
    sides: Tensor
    classes: Tensor

    @property
    def total(self) -> Tensor:
        """What is minimised."""
        return self.face + _SIDES_WEIGHT * self.sides + _CLASS_WEIGHT * self.classes


def losses(heads: Heads, targets: Targets, class_weights: Tensor) -> Losses:
    """Return the losses of a batch. class_weights: float[k], of the classes' cross-entropy."""
    count = max(targets.faces, 1.0)
    face = focal(heads.face, targets.heat, targets.asked) / count
    sides = heads.sides.permute(0, 2, 3, 1).flatten(0, 2)[targets.cells]
    logits = heads.classes.permute(0, 2, 3, 1).flatten(0, 2)[targets.cells]
    found = reaching(sides, targets.cells, heads.face.shape)
    overlap = (targets.weights * (1 - giou(found, targets.boxes))).sum() / count
    each = functional.cross_entropy(
        logits, targets.labels, class_weights, reduction="none", label_smoothing=_SMOOTHING
    )
    return Losses(face, overlap, (targets.weights * each).sum() / count)


def focal(logits: Tensor, heat: Tensor, asked: Tensor) -> Tensor:
    """Return the sum over cells of the penalty-reduced focal loss (Zhou et al., 2019, equation 1).

    -(1 - p)^2 log p where heat is 1, and -(1 - heat)^4 p^2 log(1 - p) elsewhere, where asked.
    """
    p = logits.sigmoid()
    centre = heat >= 1
    # Of the logits, since the logarithm of a rounded probability would be infinite.
    hit = (1 - p) ** _FOCUS * functional.softplus(-logits)
    alarm = (1 - heat) ** _NEARNESS * p**_FOCUS * functional.softplus(logits)
    return torch.where(centre, hit, alarm * asked).sum()


def giou(a: Tensor, b: Tensor) -> Tensor:
    """Return [n], generalised intersection over union, -1 to 1, of boxes xyxy pair by pair.

    IoU less the part of the smallest box round both that neither covers (Rezatofighi et al., 2019,
    arXiv:1902.09630).
    """
    common = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0)
    round_both = torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])
    intersection, hull = common.prod(1), round_both.prod(1)
    union = (a[:, 2:] - a[:, :2]).prod(1) + (b[:, 2:] - b[:, :2]).prod(1) - intersection
    return intersection / union - (hull - union) / hull


def reaching(sides: Tensor, cells: Tensor, shape: torch.Size) -> Tensor:
    """Return the boxes [n, 4] that sides [n, 4] make at cells of maps [b, rows, columns]."""
    x = (cells % shape[2] + 0.5) * STRIDE
    y = (cells // shape[2] % shape[1] + 0.5) * STRIDE
    return torch.stack([x - sides[:, 0], y - sides[:, 1], x + sides[:, 2], y + sides[:, 3]], 1)
