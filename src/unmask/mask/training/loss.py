"""What the network should predict for every cell, and the loss of what it predicts."""

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

# The label of a box that the loss ignores: too small, or cut off.
IGNORED = -1
# The label of a missing box, where an image of a batch has fewer than others.
PADDING = -2
# As a fraction of a box's sides: one standard deviation of its heat is a third of half the box.
_SPREAD = 1 / 6
_LEAST_SPREAD = 0.5
# Cells with less heat than this don't predict the box. The others lie within about a quarter of its
# side from the middle.
_SPEAKS = 0.3

Faces = tuple[NDArray[np.floating[Any]], NDArray[np.integer[Any]]]


@dataclass(frozen=True)
class Targets:
    """The training targets of b images at each of h/4 x w/4 cells.

    n cells in all predict a face.

    Args:
        heat: float32[b, h/4, w/4], 1 in the cell that holds a face's middle, falling off as a
            Gaussian a third of the box wide (Zhou et al., 2019, arXiv:1904.07850).
        asked: bool[b, h/4, w/4], whether the heat counts in the loss.
        cells: int64[n], indices into the flattened [b, h/4, w/4].
        boxes: float32[n, 4], xyxy in pixels.
        labels: int64[n], the class.
        weights: float32[n], which add up to 1 for each face.
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
    """Return the targets of images of one size.

    Args:
        faces: for each image, boxes [k, 4] xyxy in pixels and labels [k].
        height: of the images in pixels, a multiple of STRIDE.
        width: likewise.
    """
    most = max((len(labels) for _, labels in faces), default=0)
    boxes = np.zeros((len(faces), max(most, 1), 4), np.float32)
    labels = np.full((len(faces), max(most, 1)), PADDING, np.int64)
    for i, (own_boxes, own_labels) in enumerate(faces):
        boxes[i, : len(own_labels)], labels[i, : len(own_labels)] = own_boxes, own_labels
    return targets_of(torch.from_numpy(boxes), torch.from_numpy(labels), height, width)


def targets_of(boxes: Tensor, labels: Tensor, height: int, width: int) -> Targets:
    """Return the targets of images of one size, on the boxes' device.

    Where faces overlap, a cell belongs to the one with the most heat; of equals, to the smaller.

    Args:
        boxes: float32[b, k, 4], xyxy in pixels.
        labels: int64[b, k], a class, IGNORED, or PADDING where an image has fewer boxes.
        height: of the images in pixels, a multiple of STRIDE.
        width: likewise.
    """
    rows, columns = height // STRIDE, width // STRIDE
    down = _heat(boxes[..., 1], boxes[..., 3], rows) * (labels >= 0)[..., None]
    each = down[:, :, :, None] * _heat(boxes[..., 0], boxes[..., 2], columns)[:, :, None, :]
    heat = each.amax(1)
    areas = (boxes[..., 2:] - boxes[..., :2]).prod(-1)
    # Of equal heats the smaller face is preferred, by a rank too small to change other choices.
    rank = areas.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    preferred = each + 1e-6 * rank[..., None, None] - (labels < 0)[..., None, None].float()
    cells = (heat >= _SPEAKS).flatten().nonzero()[:, 0]
    owner = preferred.argmax(1).flatten()[cells]
    face = cells // (rows * columns) * labels.shape[1] + owner
    weight = heat.flatten()[cells]
    total = torch.zeros(labels.numel(), device=boxes.device).index_add_(0, face, weight)
    inside = [
        _inside(boxes[..., side], boxes[..., side + 2], count)
        for side, count in ((1, rows), (0, columns))
    ]
    ignored = (labels == IGNORED)[..., None] * inside[0]
    hidden = torch.einsum("bkr,bkc->brc", ignored, inside[1]) > 0
    return Targets(
        heat,
        ~hidden | (heat >= _SPEAKS),
        cells,
        boxes.flatten(0, 1)[face],
        labels.flatten()[face],
        weight / total[face],
    )


def _heat(low: Tensor, high: Tensor, count: int) -> Tensor:
    """Return float[b, k, count] along one axis: 1 in the cell that holds a box's middle."""
    middle = ((low + high) / (2 * STRIDE)).floor().clamp(0, count - 1)
    spread = ((high - low) / STRIDE * _SPREAD).clamp(min=_LEAST_SPREAD)
    places = torch.arange(count, dtype=torch.float32, device=low.device)
    away = (places - middle[..., None]) / spread[..., None]
    return (-0.5 * away * away).exp()


def _inside(low: Tensor, high: Tensor, count: int) -> Tensor:
    """Return float[b, k, count] along one axis: 1 in the cells of a box, at least one of them."""
    first = (low / STRIDE).round().clamp(min=0)
    last = torch.maximum((high / STRIDE).round(), first + 1)
    places = torch.arange(count, dtype=torch.float32, device=low.device)
    return ((places >= first[..., None]) & (places < last[..., None])).float()


# Penalty-reduced focal loss: the exponents of Zhou et al., 2019.
_FOCUS, _NEARNESS = 2.0, 4.0
_SIDES_WEIGHT, _CLASS_WEIGHT = 2.0, 1.0
# Label smoothing of the classes: about one annotation in twenty is a matter of taste.
_SMOOTHING = 0.05


@dataclass(frozen=True)
class Losses:
    """The terms of the loss, each a mean over faces.

    Args:
        face: of the heat.
        sides: of the boxes.
        classes: of the classes.
    """

    face: Tensor
    sides: Tensor
    classes: Tensor

    @property
    def total(self) -> Tensor:
        """The weighted sum, which is minimised."""
        return self.face + _SIDES_WEIGHT * self.sides + _CLASS_WEIGHT * self.classes


def losses(
    heads: Heads, targets: Targets, class_weights: Tensor, count: float | None = None
) -> Losses:
    """Return the losses of a batch.

    Args:
        heads: what the network predicts.
        targets: what it should predict.
        class_weights: float[k], of the classes' cross-entropy.
        count: the number of faces that the sums are divided by, by default the batch's, at least 1.
    """
    count = max(targets.faces, 1.0) if count is None else count
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

    It is -(1 - p)^2 log p where the heat is 1, and -(1 - heat)^4 p^2 log(1 - p) elsewhere.

    Args:
        logits: float[b, h/4, w/4], of p.
        heat: float[b, h/4, w/4], 0 to 1.
        asked: bool[b, h/4, w/4], the other cells that count.
    """
    p = logits.sigmoid()
    centre = heat >= 1
    # From the logits, since the logarithm of a rounded probability can be infinite.
    hit = (1 - p) ** _FOCUS * functional.softplus(-logits)
    alarm = (1 - heat) ** _NEARNESS * p**_FOCUS * functional.softplus(logits)
    return torch.where(centre, hit, alarm * asked).sum()


def giou(a: Tensor, b: Tensor) -> Tensor:
    """Return float[n], the generalised intersection over union of pairs of boxes, -1 to 1.

    It is the IoU less the fraction of the smallest box around both that neither covers (Rezatofighi
    et al., 2019, arXiv:1902.09630).

    Args:
        a: float[n, 4], xyxy.
        b: float[n, 4], xyxy.
    """
    common = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0)
    round_both = torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])
    intersection, hull = common.prod(1), round_both.prod(1)
    union = (a[:, 2:] - a[:, :2]).prod(1) + (b[:, 2:] - b[:, :2]).prod(1) - intersection
    return intersection / union - (hull - union) / hull


def reaching(sides: Tensor, cells: Tensor, shape: torch.Size) -> Tensor:
    """Return the boxes that predicted sides make, float[n, 4] xyxy in pixels.

    Args:
        sides: float[n, 4], left, top, right and bottom in pixels from the cells' centres.
        cells: int64[n], indices into flattened maps.
        shape: of the maps, [b, rows, columns].
    """
    x = (cells % shape[2] + 0.5) * STRIDE
    y = (cells // shape[2] % shape[1] + 0.5) * STRIDE
    return torch.stack([x - sides[:, 0], y - sides[:, 1], x + sides[:, 2], y + sides[:, 3]], 1)
