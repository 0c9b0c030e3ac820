"""Whether stated certainties come true: of what is said at 80 %, 80 % should be right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unmask.data.annotated import AnnotatedPictures
from unmask.errors import UserError
from unmask.mask.calibration import Calibration, calibrated
from unmask.mask.detections import Detections
from unmask.mask.judging import Facts
from unmask.mask.matching import FaceMatches, joined
from unmask.stats import wilson

# How far what is stated may lie from what is true.
TOLERATED_GAP = 0.05


@dataclass(frozen=True)
class Bin:
    """Answers of about the same certainty: its mean, 0 to 1, how many there are, and are right."""

    certainty: float
    count: int
    right: int

    @property
    def gap(self) -> float:
        """How far the part that is right lies from the mean certainty, 0 to 1."""
        return abs(self.right / self.count - self.certainty)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields and the 95 % interval of the part that is right (Wilson)."""
        low, high = wilson(self.right, self.count)
        return {**self.__dict__, "gap": self.gap, "right_interval_95": [low, high]}


@dataclass(frozen=True)
class Reliability:
    """Stated certainties against how often they come true, in bins of as many answers, surest last.

    There is no bin without an answer.
    """

    bins: tuple[Bin, ...]

    @staticmethod
    def of(
        certainty: NDArray[np.floating[Any]], right: NDArray[np.bool_], bins: int = 5
    ) -> Reliability:
        """Return the reliability of n answers, of certainties [n] in 0 to 1 and right or not."""
        order = np.argsort(certainty, kind="stable")
        return Reliability(
            tuple(
                Bin(float(certainty[part].mean()), len(part), int(right[part].sum()))
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
        certainty = sum(b.certainty * b.count for b in self.bins) / count
        return Bin(certainty, count, sum(b.right for b in self.bins))

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
    annotated: AnnotatedPictures, detections: Sequence[Detections], *, threshold: float = 0.0
) -> dict[str, Reliability]:
    """Return how reliable calibrated detections are of "face" and of "class".

    face: the score, 0 to 1, of every box of threshold and more, right when it is round a face.
    class: the probability of the class said of each of these faces that was judged, right when it
    is the face's. Raises UserError when the detections aren't of these pictures.
    """
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
    annotated: AnnotatedPictures,
    detections: Sequence[Detections],
    part: NDArray[np.int64],
    *,
    scale: float,
    threshold: float | None = None,
) -> list[Detections]:
    """Return what would have been said of each picture with a calibration that never saw it.

    detections: uncalibrated, one a picture. part: int64[n]; a picture's detections are calibrated
    as those of all other parts ask. scale: pixels the network saw for one of the picture.
    threshold: the calibrated score from which on a box counts, the calibration's own by default.
    Raises UserError when there is one part only.
    """
    if len(np.unique(part)) < 2:
        raise UserError("calibrating across parts needs two of them", got=np.unique(part).tolist())
    said: dict[int, Detections] = {}
    for k in np.unique(part):
        others = np.flatnonzero(part != k).tolist()
        fitted = calibrated(annotated[others], [detections[i] for i in others], scale=scale)
        for i in np.flatnonzero(part == k).tolist():
            said[i] = answers(detections[i], fitted, scale=scale, threshold=threshold)
    return [said[i] for i in range(len(annotated))]


def answers(
    found: Detections, calibration: Calibration, *, scale: float, threshold: float | None = None
) -> Detections:
    """Return uncalibrated detections as the detector with that calibration would say them.

    threshold: the calibrated score from which on a box counts, the calibration's own by default.
    """
    facts = Facts(found.class_names, scale=scale, **calibration.as_dict())
    sides = (found.boxes[:, 2:] - found.boxes[:, :2]).mean(1) * scale
    scores = found.scores[:, None] * found.probabilities
    least = facts.face if threshold is None else threshold
    return facts.judge(found.boxes, scores, sides, found.width, found.height, threshold=least)
