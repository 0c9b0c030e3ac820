"""From the network's maps to boxes, one for each face."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from unmask.data.detection.boxes import Boxes, iou, nms

STRIDE = 4
# Boxes that overlap by more are merged into one face.
NMS_IOU = 0.5
# Crowds make hundreds of boxes; more than this is noise and would only cost time.
_MOST = 1000


def decode(
    scores: NDArray[np.float32],
    sides: NDArray[np.float32],
    *,
    threshold: float,
    nms_iou: float,
) -> tuple[Boxes, NDArray[np.float32]]:
    """Return the boxes of one image and their class scores.

    A box's score that it is a face is the sum of its class scores. Of boxes that overlap by an IoU
    over nms_iou the one with the highest score is kept; its corners and its division into classes
    become the mean over all of them, weighted by their scores.

    Args:
        scores: float32[k, h, w], zero except at peaks.
        sides: float32[4, h, w], the distances to left, top, right and bottom, in pixels, from the
            centre of the cell, (x + 0.5) * 4.
        threshold: the least score that counts, 0 to 1.
        nms_iou: the IoU over which two boxes are one face, 0 to 1.

    Returns:
        float32[n, 4] xyxy in pixels and float32[n, k], the highest score first.
    """
    face = scores.sum(0)
    # NumPy searches one flat row in a ninth of the time.
    cells = np.flatnonzero(face >= max(threshold, np.finfo(np.float32).tiny))
    score = face.ravel()[cells]
    best = np.argsort(-score, kind="stable")[:_MOST]
    score = score[best]
    rows, columns = np.divmod(cells[best], face.shape[1])
    x, y = (columns + 0.5) * STRIDE, (rows + 0.5) * STRIDE
    left, top, right, bottom = sides[:, rows, columns]
    boxes = np.stack([x - left, y - top, x + right, y + bottom], 1).astype(np.float32)
    if not len(boxes):
        return boxes, np.zeros((0, len(scores)), np.float32)
    kept = nms(boxes, score, nms_iou)
    weights = np.where(iou(boxes[kept], boxes) > nms_iou, score, np.float32(0))
    # A box that overlaps two kept ones belongs to the one with the higher score.
    first = (weights > 0).argmax(0)
    weights[np.arange(len(kept))[:, None] != first] = 0
    weights[np.arange(len(kept)), kept] = score[kept]
    weights /= weights.sum(1, keepdims=True)
    parts = (scores[:, rows, columns] / score).T
    return weights @ boxes, (weights @ parts) * score[kept][:, None]
