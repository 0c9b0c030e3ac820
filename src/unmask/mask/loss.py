"""How wrong the detector's network is: where faces are, how far they reach, what they are."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from unmask.mask.decode import STRIDE
from unmask.mask.network import Heads
from unmask.mask.targets import Targets

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
