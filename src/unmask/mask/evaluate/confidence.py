"""Confidences calibrated on images that weren't trained on, and how reliable they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unmask.data.detection.dataset import AnnotatedImages
from unmask.errors import UserError
from unmask.mask.evaluate.matching import FaceMatches, countable, joined
from unmask.mask.runtime.calibration import (
    Calibration,
    Floats,
    logit,
    sigmoid,
    smallness,
    tempered,
)
from unmask.mask.runtime.detections import Detections
from unmask.mask.runtime.detector import MaskDetector
from unmask.mask.runtime.views import usual_scale
from unmask.stats import wilson

# What is required of faces that are large enough to matter.
LEAST_SIDE, LEAST_PRECISION = 20.0, 0.90
# The class of a face should be right this often over all judged faces, or the face isn't judged.
LEAST_ACCURACY = 0.95
# However precise all boxes are together, one that is more likely wrong than right helps no one.
LEAST_FACE = 0.5
_TEMPERATURES = np.geomspace(0.25, 4.0, 81)
_CERTAINTIES = np.linspace(0.4, 0.97, 58)
# Mean sides in pixels that the network sees. In each range with at least this many judged faces,
# the classes must be right as often as over all faces.
_RANGES, _FEWEST = (0.0, 16.0, 32.0, 64.0, np.inf), 20
_SMALLEST = (0.0, 6.0, 8.0, 10.0, 12.0, 14.0, 16.0, 20.0, 24.0)
_TOO_SMALL_ACCURACY = 0.85
_NEWTON_STEPS = 50
_LEAST_SLOPE = 0.01


def calibrated(
    annotated: AnnotatedImages, detections: Sequence[Detections], *, scale: float
) -> Calibration:
    """Return the calibration for uncalibrated detections of images that weren't trained on.

    The score of the face is calibrated by logistic regression (Platt, 1999) on its logit and the
    size of small faces, as Küppers et al., 2020 (arXiv:2004.13546), do with boxes; the
    probabilities of the classes by one temperature (Guo et al., 2017, arXiv:1706.04599).

    Args:
        annotated: the images with their annotated faces.
        detections: one an image, in the images' order, from a detector that isn't calibrated.
        scale: pixels that the network saw for one of the image, as DetectorFacts has it.

    Returns:
        The calibration. Its threshold of faces finds most faces of LEAST_SIDE pixels and more at a
        precision of LEAST_PRECISION, and is at least LEAST_FACE. Faces too small or too uncertain
        to reach an accuracy of LEAST_ACCURACY among the judged ones are not judged.

    Raises:
        UserError: the detections aren't of these images or classes.
    """
    detections = countable(annotated, detections)
    matches = FaceMatches.of(annotated, detections)
    hit = matches.face >= 0
    sides = joined([seen_sides(d, scale) for d in detections], np.float64)
    slope, offset, side_slope = platt(logit(matches.score), smallness(sides), hit)
    rows = joined([d.probabilities for d in detections], np.float64)
    rows = rows.reshape(-1, len(annotated.class_names))[hit]
    truth = matches.face_label[matches.face[hit]]
    temperature = best_temperature(rows, truth)
    _, raw = matches.recall_at(LEAST_PRECISION, least_side=LEAST_SIDE)
    # Where a higher score isn't more likely a face, all are about equally likely.
    fitted = Calibration(max(slope, _LEAST_SLOPE), offset, side_slope, temperature)
    # The precision was required of faces so large that their size no longer counts.
    of_large = fitted.confidence(np.array([min(raw, 1.0)]), np.array([LEAST_SIDE * scale]))
    face = max(LEAST_FACE, float(of_large[0]))
    counted = fitted.confidence(matches.score, sides)[hit] >= face
    sharp = tempered(rows, temperature)[counted]
    side = sides[hit][counted]
    right = sharp.argmax(1) == truth[counted]
    smallest = _smallest(side, right)
    large = side >= smallest
    certain = _certain(sharp.max(1, initial=0)[large], right[large], side[large])
    return replace(fitted, face=face, certain=certain, smallest=smallest)


def platt(logits: Floats, small: Floats, hit: NDArray[np.bool_]) -> tuple[float, float, float]:
    """Return slope, offset and side slope of the logistic regression of hit on logits and small.

    It is fitted by Newton's method with almost no penalty: a prior of one thousandth keeps
    separable cases finite (Platt, 1999).

    Args:
        logits: float64[n], of the scores.
        small: float64[n], 0 or less, see calibration.smallness.
        hit: bool[n], which boxes are round a face.

    Returns:
        The three numbers. The side slope is never negative, so that a small face is at most as
        confident as a large one of the same score.
    """
    usual = np.array([1.0, 0.0, 0.0])
    inputs = np.stack([logits, np.ones(len(logits)), small], 1)
    theta = _logistic(inputs, hit, usual)
    if theta[2] < 0:
        theta = np.append(_logistic(inputs[:, :2], hit, usual[:2]), 0.0)
    slope, offset, side_slope = theta.tolist()
    return slope, offset, side_slope


def _logistic(inputs: Floats, hit: NDArray[np.bool_], usual: Floats) -> Floats:
    prior, theta = 1e-3 * np.eye(len(usual)), usual
    for _ in range(_NEWTON_STEPS):
        p = sigmoid(inputs @ theta)
        gradient = inputs.T @ (p - hit) + prior @ (theta - usual)
        hessian = (inputs * (p * (1 - p))[:, None]).T @ inputs + prior
        theta = theta - np.clip(np.linalg.solve(hessian, gradient), -1, 1)
    return theta


def best_temperature(rows: Floats, truth: NDArray[np.int64]) -> float:
    """Return the temperature under which the true classes have the least cross-entropy.

    Args:
        rows: float64[n, k], uncalibrated probabilities.
        truth: int64[n], the true classes.

    Returns:
        One of 81 temperatures from 0.25 to 4, spaced evenly in the logarithm; 1 without rows (Guo
        et al., 2017, arXiv:1706.04599).
    """
    if not len(rows):
        return 1.0
    places = np.arange(len(rows))
    costs = [-np.log(tempered(rows, t)[places, truth] + 1e-12).mean() for t in _TEMPERATURES]
    return float(_TEMPERATURES[int(np.argmin(costs))])


def _smallest(side: Floats, right: NDArray[np.bool_]) -> float:
    """Return the side below which faces are judged wrongly too often."""
    found = 0.0
    for low, high in pairwise(_SMALLEST):
        inside = (side >= low) & (side < high)
        if inside.any() and right[inside].mean() < _TOO_SMALL_ACCURACY:
            found = high
    return found


def _certain(confidence: Floats, right: NDArray[np.bool_], side: Floats) -> float:
    """Return the least confidence from which on the classes are right often enough at any size."""
    for least in _CERTAINTIES:
        told = confidence >= least
        parts = [told & (side >= low) & (side < high) for low, high in pairwise(_RANGES)]
        counted = [told, *(part for part in parts if np.count_nonzero(part) >= _FEWEST)]
        if not told.any() or all(right[part].mean() >= LEAST_ACCURACY for part in counted):
            return float(least)
    return float(_CERTAINTIES[-1])


# Lower than any threshold in use.
FLOOR = 0.01
# How far a stated confidence may lie from how often it is right.
TOLERATED_GAP = 0.05


@dataclass(frozen=True)
class Bin:
    """Answers of about the same confidence.

    Args:
        confidence: their mean confidence, 0 to 1.
        count: how many there are.
        right: how many of them are right.
    """

    confidence: float
    count: int
    right: int

    @property
    def gap(self) -> float:
        """The distance of the fraction that is right from the mean confidence, 0 to 1."""
        return abs(self.right / self.count - self.confidence)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, the gap and the 95 % interval of right / count (Wilson, 1927)."""
        low, high = wilson(self.right, self.count)
        # "certainty" is the name that readers of the JSON expect.
        return {
            "certainty": self.confidence,
            "count": self.count,
            "right": self.right,
            "gap": self.gap,
            "right_interval_95": [low, high],
        }


@dataclass(frozen=True)
class Reliability:
    """Stated confidences against how often they are right.

    Args:
        bins: of equally many answers each, the most confident last; none of them is empty.
    """

    bins: tuple[Bin, ...]

    @staticmethod
    def of(
        confidence: NDArray[np.floating[Any]], right: NDArray[np.bool_], bins: int = 5
    ) -> Reliability:
        """Return the reliability of n answers.

        Args:
            confidence: float[n], the stated confidences, 0 to 1.
            right: bool[n], which answers are right.
            bins: how many bins to make.

        Returns:
            The reliability, with fewer bins where there are fewer answers.
        """
        order = np.argsort(confidence, kind="stable")
        return Reliability(
            tuple(
                Bin(float(confidence[part].mean()), len(part), int(right[part].sum()))
                for part in np.array_split(order, bins)
                if len(part)
            )
        )

    @property
    def mean_gap(self) -> float:
        """The expected calibration error, 0 to 1; 0 without answers (Naeini et al., 2015)."""
        count = sum(b.count for b in self.bins)
        return sum(b.gap * b.count for b in self.bins) / count if count else 0.0

    @property
    def largest_gap(self) -> float:
        """The gap of the worst bin, 0 to 1; 0 without answers."""
        return max((b.gap for b in self.bins), default=0.0)

    @property
    def overall(self) -> Bin | None:
        """All answers as one bin, None without any."""
        count = sum(b.count for b in self.bins)
        if not count:
            return None
        confidence = sum(b.confidence * b.count for b in self.bins) / count
        return Bin(confidence, count, sum(b.right for b in self.bins))

    def as_dict(self) -> dict[str, Any]:
        """Return bins and gaps as plain values."""
        overall = self.overall
        return {
            "mean_gap": self.mean_gap,
            "largest_gap": self.largest_gap,
            "overall": None if overall is None else overall.as_dict(),
            "bins": [b.as_dict() for b in self.bins],
        }


def reliabilities(
    annotated: AnnotatedImages, detections: Sequence[Detections], *, threshold: float = 0.0
) -> dict[str, Reliability]:
    """Return how reliable calibrated detections are about "face" and about "class".

    Args:
        annotated: the images with their annotated faces.
        detections: one an image, in the images' order.
        threshold: the least score, 0 to 1, of the boxes that count.

    Returns:
        Under "face", the scores of the boxes, right when they are round a face. Under "class", the
        probability of the predicted class of each of those faces that was judged, right when it is
        the face's class.

    Raises:
        UserError: the detections aren't of these images.
    """
    detections = countable(annotated, detections)
    matches = FaceMatches.of(annotated, detections)
    sure = matches.score >= threshold
    hit = matches.face >= 0
    stated = joined([d.probabilities.max(1, initial=0) for d in detections], np.float32)
    judged = sure & hit & (matches.label >= 0)
    right = matches.label[judged] == matches.face_label[matches.face[judged]]
    return {
        "face": Reliability.of(matches.score[sure], hit[sure]),
        "class": Reliability.of(stated[judged], np.asarray(right, np.bool_)),
    }


def cross_fitted(
    annotated: AnnotatedImages,
    detections: Sequence[Detections],
    part: NDArray[np.int64],
    *,
    scale: float,
    threshold: float | None = None,
) -> list[Detections]:
    """Return the detections of each image under a calibration fitted without that image.

    Args:
        annotated: the images with their annotated faces.
        detections: one an image, uncalibrated.
        part: int64[n], the part that each image belongs to; its detections are calibrated with a
            fit to all other parts.
        scale: pixels that the network saw for one of the image, as DetectorFacts has it.
        threshold: the calibrated score from which on a box counts, by default the calibration's.

    Returns:
        One calibrated Detections an image, in the images' order.

    Raises:
        UserError: there is only one part.
    """
    if len(np.unique(part)) < 2:
        raise UserError("calibrating across parts needs two of them", got=np.unique(part).tolist())
    answered: dict[int, Detections] = {}
    for k in np.unique(part):
        others = np.flatnonzero(part != k).tolist()
        fitted = calibrated(annotated[others], [detections[i] for i in others], scale=scale)
        for i in np.flatnonzero(part == k).tolist():
            answered[i] = answers(detections[i], fitted, scale=scale, threshold=threshold)
    return [answered[i] for i in range(len(annotated))]


def answers(
    found: Detections, calibration: Calibration, *, scale: float, threshold: float | None = None
) -> Detections:
    """Return uncalibrated detections as a detector with that calibration would return them.

    Args:
        found: the uncalibrated detections of one image.
        calibration: what to apply.
        scale: pixels that the network saw for one of the image, as DetectorFacts has it.
        threshold: the calibrated score from which on a box counts, by default the calibration's.
    """
    return calibration.judge(
        found.boxes,
        found.scores[:, None] * found.probabilities,
        seen_sides(found, scale),
        class_names=found.class_names,
        size=(found.width, found.height),
        threshold=threshold,
    )


def seen_sides(found: Detections, scale: float) -> Floats:
    """Return float64[n], the mean sides of boxes in pixels that the network saw at its usual scale.

    Args:
        found: the detections of one image.
        scale: of the detector, see views.usual_scale.
    """
    finest = usual_scale((found.width, found.height), scale)
    sides: Floats = (found.boxes[:, 2:] - found.boxes[:, :2]).astype(np.float64).mean(1) * finest
    return sides


def found_in(detector: MaskDetector, annotated: AnnotatedImages) -> list[Detections]:
    """Return all that a detector finds in annotated images, in their order.

    Average precision goes through all thresholds, so boxes of scores down to FLOOR are included.

    Args:
        detector: the detector; to fit a calibration, give detector.uncalibrated().
        annotated: the images.
    """
    return [detector.detect(annotated.pixels(i), threshold=FLOOR) for i in range(len(annotated))]
