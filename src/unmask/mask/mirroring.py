"""What is seen of a picture and of its mirror image, put together: fewer mistakes, half as fast."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unmask.data.boxes import Boxes, iou, nms


class Seen(NamedTuple):
    """What the network says of a picture, one row a box.

    boxes: float32[n, 4] in pixels of the picture. scores: float32[n, k], of the classes, whose sum
    is that of the face. sides: float32[n], mean sides in pixels that the network saw.
    """

    boxes: Boxes
    scores: NDArray[np.float32]
    sides: NDArray[np.float32]

    def at(self, rows: NDArray[np.int64]) -> Seen:
        """Return those rows."""
        return Seen(self.boxes[rows], self.scores[rows], self.sides[rows])

    def mirrored(self, width: int) -> Seen:
        """Return the same of the mirror image of a picture of that width."""
        boxes = self.boxes.copy()
        boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
        return Seen(boxes, self.scores, self.sides)


def averaged(one: Seen, other: Seen, nms_iou: float) -> Seen:
    """Return the boxes of two looks at one picture, the surest first, each face once.

    Boxes of the two that overlap by an IoU over nms_iou are one face: its scores are their mean,
    its box is their mean weighted by the score. What one look alone finds has half its scores.
    """
    boxes, scores, sides = (np.concatenate(pair) for pair in zip(one, other, strict=True))
    look = np.repeat([0, 1], [len(one.boxes), len(other.boxes)])
    face = scores.sum(1)
    kept = nms(boxes, face, nms_iou)
    # The partner of each: what the other look has there, if anything.
    overlaps = np.where(look[kept][:, None] != look, iou(boxes[kept], boxes), np.float32(0))
    if not len(kept):
        return Seen(boxes, scores, sides)
    partner = overlaps.argmax(1)
    both = (overlaps.max(1) > nms_iou)[:, None]
    weight = (face[kept] / np.maximum(face[kept] + face[partner], 1e-12))[:, None]
    mean = weight * boxes[kept] + (1 - weight) * boxes[partner]
    total = np.where(both, scores[kept] + scores[partner], scores[kept])
    found = Seen(
        np.where(both, mean, boxes[kept]).astype(np.float32),
        (total / 2).astype(np.float32),
        sides[kept],
    )
    return found.at(np.argsort(-found.scores.sum(1), kind="stable"))
