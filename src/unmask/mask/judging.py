"""From the network's scores to calibrated ones, and from these to what is said of a face."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unmask.data.boxes import Boxes
from unmask.mask.detections import NOT_JUDGED, Detections

Floats = NDArray[np.float64]

# Mean side, in pixels that the network sees, from which on a face's size no longer tells how likely
# it is to be one.
FULL_SIDE = 16.0


@dataclass(frozen=True)
class Facts:
    """What an ONNX file says of itself.

    face: score from which on a box counts as a face. nms_iou: overlap over which two boxes are one
    face. certain: probability below which the class is not told. smallest: mean side of a box, in
    pixels that the network sees, below which it is not told either. slope, offset, side_slope: what
    calibrates the face's score (see certainty); temperature: of the logits of the classes. scale:
    pixels the network should see for one of the picture.
    """

    class_names: tuple[str, ...]
    face: float = 0.3
    nms_iou: float = 0.5
    certain: float = 0.5
    smallest: float = 0.0
    slope: float = 1.0
    offset: float = 0.0
    side_slope: float = 0.0
    temperature: float = 1.0
    scale: float = 1.0

    @classmethod
    def parse(cls, metadata: dict[str, str]) -> Facts:
        """Return the facts in "class_names", "thresholds", "calibration" and "scale", all JSON.

        Raises KeyError, TypeError or ValueError when they are not there or no such facts.
        """
        names = tuple(str(name) for name in json.loads(metadata["class_names"]))
        numbers = {
            **json.loads(metadata.get("thresholds", "{}")),
            **json.loads(metadata.get("calibration", "{}")),
            "scale": json.loads(metadata.get("scale", "1")),
        }
        known = {
            key: float(value) for key, value in numbers.items() if key in cls.__dataclass_fields__
        }
        if not names:
            raise ValueError("no class names")
        return cls(names, **known)

    def certainty(
        self, scores: NDArray[np.floating[Any]], sides: NDArray[np.floating[Any]]
    ) -> Floats:
        """Return how likely boxes are faces, 0 to 1: a logistic function of score and size.

        scores: [n], the network's. sides: [n], mean sides in pixels that the network saw; of sides
        under FULL_SIDE the logarithm counts.
        """
        z = self.slope * logit(scores) + self.side_slope * smallness(sides) + self.offset
        return sigmoid(z)

    def uncalibrated(self, score: float) -> float:
        """Return the least of the network's own scores that may make a calibrated one, in (0, 1].

        It is that of faces of FULL_SIDE and more; smaller ones need a higher one.
        """
        if score >= 1:
            return 1.0
        return float(sigmoid((np.log(score / (1 - score)) - self.offset) / self.slope))

    def judge(
        self,
        boxes: Boxes,
        scores: NDArray[np.floating[Any]],
        seen_sides: NDArray[np.floating[Any]],
        width: int,
        height: int,
        *,
        threshold: float,
    ) -> Detections:
        """Return what is said of the boxes, float32[n, 4], of a picture of that size that count.

        These are those whose calibrated score is threshold, 0 to 1, or more, the surest first.

        scores: [n, k], the network's, of the face times those of the classes. seen_sides: [n], mean
        sides of the boxes as the network saw them.
        """
        total = np.asarray(scores.sum(1), np.float64)
        face = self.certainty(total, seen_sides)
        probabilities = tempered(scores, self.temperature)
        labels = probabilities.argmax(1).astype(np.int64)
        sure = (probabilities.max(1, initial=0) >= self.certain) & (seen_sides >= self.smallest)
        labels[~sure] = NOT_JUDGED
        order = np.argsort(-face, kind="stable")
        order = order[face[order] >= threshold]
        return Detections(
            boxes[order].astype(np.float32),
            labels[order],
            face[order].astype(np.float32),
            probabilities[order].astype(np.float32),
            self.class_names,
            width,
            height,
        )


def logit(scores: NDArray[np.floating[Any]]) -> Floats:
    """Return log(s / (1 - s)), finite for scores of 0 and 1 too."""
    clear = np.clip(scores.astype(np.float64), 1e-6, 1 - 1e-6)
    return np.asarray(np.log(clear / (1 - clear)), np.float64)


def smallness(sides: NDArray[np.floating[Any]]) -> Floats:
    """Return log(side / FULL_SIDE) of smaller sides, 0 of others, for sides in pixels over 0."""
    return np.log(np.clip(sides.astype(np.float64), 1e-3, FULL_SIDE) / FULL_SIDE)


def sigmoid(logits: Any) -> Floats:
    """Return 1 / (1 + exp(-x))."""
    return np.asarray(1 / (1 + np.exp(-logits)), np.float64)


def tempered(rows: NDArray[np.floating[Any]], temperature: float) -> Floats:
    """Return probabilities [n, k] in proportion to rows, their logits divided by temperature."""
    powers = np.maximum(rows.astype(np.float64), 1e-9) ** (1 / temperature)
    divided: Floats = powers / powers.sum(1, keepdims=True)
    return divided
