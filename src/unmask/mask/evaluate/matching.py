"""Which detected box belongs to which annotated face."""

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
    """Return int64[n]: for each detected box the index of its annotated one, -1 for none.

    The most confident box chooses first. It takes, of the annotated boxes not taken yet, the one
    that it overlaps most, if by an IoU of threshold or more (as COCO does; Lin et al., 2014).

    Args:
        truth: float[m, 4], the annotated boxes, xyxy in pixels.
        boxes: float[n, 4], the detected ones.
        scores: float[n], their scores.
        threshold: the least IoU of a match, 0 to 1.
    """
    overlaps = iou(truth.astype(np.float64), boxes.astype(np.float64))
    found = np.full(len(boxes), -1, np.int64)
    if not len(truth):
        return found
    for i in np.argsort(-scores, kind="stable"):
        # Of equal overlaps the last is taken, as COCO does.
        best = len(truth) - 1 - int(overlaps[::-1, i].argmax())
        if overlaps[best, i] >= threshold:
            found[i] = best
            overlaps[best] = -1
    return found


def face_sides(boxes: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Return float64[n], the sides in pixels of squares as large as the boxes [n, 4]."""
    return np.sqrt(area(boxes.astype(np.float64)))


@dataclass(frozen=True, eq=False)
class FaceMatches:
    """Every annotated face and every detected box of many images, and which belong together.

    Predicted classes don't affect the matching.

    Args:
        face_picture: int64[m], the index of the image of each face.
        face_label: int64[m], the annotated class.
        face_side: float64[m], see face_sides.
        picture: int64[n], the index of the image of each box.
        label: int64[n], the predicted class, -1 where it wasn't judged.
        side: float64[n], see face_sides.
        score: float32[n], of the box.
        face: int64[n], the index of the face that the box is matched with, -1 for none.
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
        """Match the boxes of every image with its faces.

        Args:
            annotated: the images with their faces.
            detections: one an image, in the images' order.

        Raises:
            UserError: there are no images, or the detections aren't of these images or classes.
        """
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

        Args:
            precision: the least precision, 0 to 1.
            least_side: in pixels; smaller faces don't count, nor do boxes matched with one of them,
                nor unmatched boxes that are smaller themselves.

        Returns:
            The recall, 0 to 1, and the score from which on boxes count; 0 and 2 where no threshold
            reaches the precision.
        """
        faces = np.count_nonzero(self.face_side >= least_side)
        side = np.where(self.face >= 0, np.append(self.face_side, 0)[self.face], self.side)
        counted = side >= least_side
        score, hit = self.score[counted], self.face[counted] >= 0
        order = np.argsort(-score, kind="stable")
        score, true = score[order], np.cumsum(hit[order])
        # A threshold keeps all boxes of one score or none.
        last = np.append(score[1:] != score[:-1], True) if len(score) else np.zeros(0, bool)
        good = np.flatnonzero(last & (true >= precision * np.arange(1, len(score) + 1)))
        if not len(good) or not faces:
            return 0.0, 2.0
        best = good[true[good].argmax()]
        return float(true[best] / faces), float(score[best])


def countable(annotated: AnnotatedImages, detections: Sequence[Detections]) -> list[Detections]:
    """Return the detections without those that are neither right nor wrong.

    Those are matched with no annotated face, and half of their box or more lies in an ignored
    region.

    Args:
        annotated: the images with their faces and ignored regions.
        detections: one an image, in the images' order.

    Returns:
        One Detections an image.

    Raises:
        UserError: there are no images, or the detections aren't of these images or classes.
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
    """Return the arrays one after the other, even when they are all empty.

    Args:
        arrays: one or more, of any length and the same further sides.
        dtype: of the result.
    """
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
