"""Which detected box is which annotated face."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unmask.data.detection.boxes import area, iou
from unmask.data.detection.dataset import AnnotatedImages
from unmask.errors import UserError
from unmask.mask.runtime.detections import Detections

MATCH_IOU = 0.5


def matched(
    truth: NDArray[np.floating[Any]],
    boxes: NDArray[np.floating[Any]],
    scores: NDArray[np.floating[Any]],
    threshold: float = MATCH_IOU,
) -> NDArray[np.int64]:
    """Return int64[n]: the index of the annotated box that each detected one is, -1 for none.

    truth: [m, 4], boxes: [n, 4], scores: [n]. The surest chooses first, and takes the box that it
    overlaps most, if by an IoU of threshold or more, of those not taken yet (as COCO does).
    """
    overlaps = iou(truth.astype(np.float64), boxes.astype(np.float64))
    found = np.full(len(boxes), -1, np.int64)
    if not len(truth):
        return found
    for i in np.argsort(-scores, kind="stable"):
        # The last of equals is taken, as COCO does.
        best = len(truth) - 1 - int(overlaps[::-1, i].argmax())
        if overlaps[best, i] >= threshold:
            found[i] = best
            overlaps[best] = -1
    return found


def face_sides(boxes: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Return float64[n], how large faces are: the side, in pixels, of the square of equal area."""
    return np.sqrt(area(boxes.astype(np.float64)))


@dataclass(frozen=True, eq=False)
class FaceMatches:
    """Every annotated face and every detected box of many images, and which is which.

    Of faces: face_picture int64[m], face_label int64[m], face_side float64[m]. Of boxes: image
    int64[n], label int64[n] (-1: not judged), side float64[n], score float32[n], and face int64[n],
    the index of the face that it is, -1 for none. Whatever was said of classes plays no part.
    """

    face_picture: NDArray[np.int64]
    face_label: NDArray[np.int64]
    face_side: NDArray[np.float64]
    picture: NDArray[np.int64]
    label: NDArray[np.int64]
    side: NDArray[np.float64]
    score: NDArray[np.float32]
    face: NDArray[np.int64]

    @staticmethod
    def of(annotated: AnnotatedImages, detections: Sequence[Detections]) -> FaceMatches:
        """Return the matches; raise UserError when there isn't one Detections an image."""
        _check(annotated, detections)
        counts = [len(boxes) for boxes in annotated.boxes]
        firsts = np.cumsum([0, *counts])
        faces = []
        for i, found in enumerate(detections):
            own = matched(annotated.boxes[i], found.boxes, found.scores)
            faces.append(np.where(own >= 0, own + firsts[i], -1))
        numbers = np.arange(len(annotated))
        return FaceMatches(
            face_picture=np.repeat(numbers, counts),
            face_label=joined(annotated.labels, np.int64),
            face_side=face_sides(joined(annotated.boxes, np.float32).reshape(-1, 4)),
            picture=np.repeat(numbers, [len(d) for d in detections]),
            label=joined([d.labels for d in detections], np.int64),
            side=face_sides(joined([d.boxes for d in detections], np.float32).reshape(-1, 4)),
            score=joined([d.scores for d in detections], np.float32),
            face=joined(faces, np.int64),
        )

    def recall_at(self, precision: float, *, least_side: float = 0.0) -> tuple[float, float]:
        """Return the highest recall at that precision or more, and the threshold that gives it.

        least_side: smaller faces don't count, nor do boxes that are one of them or, round no face,
        are smaller themselves. Recall 0 at a threshold over 1 where no threshold will do.
        """
        faces = np.count_nonzero(self.face_side >= least_side)
        side = np.where(self.face >= 0, np.append(self.face_side, 0)[self.face], self.side)
        counted = side >= least_side
        score, hit = self.score[counted], self.face[counted] >= 0
        order = np.argsort(-score, kind="stable")
        score, true = score[order], np.cumsum(hit[order])
        # A threshold takes in all boxes of one score or none.
        last = np.append(score[1:] != score[:-1], True) if len(score) else np.zeros(0, bool)
        good = np.flatnonzero(last & (true >= precision * np.arange(1, len(score) + 1)))
        if not len(good) or not faces:
            return 0.0, 2.0
        best = good[true[good].argmax()]
        return float(true[best] / faces), float(score[best])


def countable(annotated: AnnotatedImages, detections: Sequence[Detections]) -> list[Detections]:
    """Return the detections without those that are neither right nor wrong.

    These are round no annotated face, and half of their box or more lies in an ignored region.
    """
    _check(annotated, detections)
    kept = []
    for i, found in enumerate(detections):
        ignored = annotated.ignored[i]
        if len(ignored) and len(found):
            missed = matched(annotated.boxes[i], found.boxes, found.scores) < 0
            first = np.maximum(found.boxes[:, None, :2], ignored[None, :, :2])
            last = np.minimum(found.boxes[:, None, 2:], ignored[None, :, 2:])
            common = np.prod(np.maximum(last - first, 0), axis=2)
            inside = common.max(1) >= MATCH_IOU * area(found.boxes)
            found = found.at(np.flatnonzero(~(missed & inside)))
        kept.append(found)
    return kept


def joined(arrays: Sequence[NDArray[Any]], dtype: type[Any]) -> NDArray[Any]:
    """Return the arrays one after the other, of that type, even when they are all empty."""
    return np.concatenate([np.zeros((0, *arrays[0].shape[1:]), dtype), *arrays]).astype(dtype)


def _check(annotated: AnnotatedImages, detections: Sequence[Detections]) -> None:
    if not len(annotated):
        raise UserError("there are no annotated images to measure with", got=annotated.name)
    if len(detections) != len(annotated):
        raise UserError(
            "each annotated image needs its detections",
            got=f"{len(annotated)} images and {len(detections)} detections",
        )
    for found, size, path in zip(detections, annotated.sizes, annotated.paths, strict=True):
        if (found.width, found.height) != tuple(size.tolist()):
            raise UserError(
                f"the detections of {path.name} are of an image of another size",
                got=f"{found.width} x {found.height}",
            )
        if found.class_names != annotated.class_names:
            raise UserError(
                f"detections and annotations of {annotated.name} have different classes",
                got=f"{list(found.class_names)} and {list(annotated.class_names)}",
                do="number the annotations as the detector does, with with_classes",
            )
