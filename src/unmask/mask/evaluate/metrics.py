"""How good detections are: average precision, precision and recall, by size, class and crowding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unmask.data.detection.dataset import AnnotatedImages
from unmask.mask.evaluate.matching import FaceMatches, countable, joined, matched
from unmask.mask.runtime.detections import Detections
from unmask.runtime import seeded
from unmask.stats import wilson

_RECALLS = np.linspace(0, 1, 101)
_BOOTSTRAP_STREAM = 8
_RESAMPLES = 1000

Curve = tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.int64]]


def average_precision(
    hits: NDArray[np.bool_],
    truths: float,
    weights: NDArray[Any] | None = None,
) -> float:
    """Return the mean of the precision at 101 recalls, 0 to 1; NaN where truths is 0.

    The precision at a recall is the highest at that recall or more (Lin et al., 2014).

    Args:
        hits: bool[n], which detections are true, the most confident first.
        truths: how many faces there are to find.
        weights: [n], how often each detection counts, once by default.
    """
    if not truths:
        return float("nan")
    counts = np.ones(len(hits)) if weights is None else weights
    true, said = np.cumsum(counts * hits), np.cumsum(counts)
    precision = np.divide(true, said, out=np.zeros(len(hits)), where=said > 0)
    highest = np.maximum.accumulate(precision[::-1])[::-1]
    place = np.searchsorted(true / truths, _RECALLS, side="left")
    return float(np.append(highest, 0.0)[np.minimum(place, len(hits))].mean())


def class_curve(annotated: AnnotatedImages, detections: Sequence[Detections], label: int) -> Curve:
    """Return hits and image indices of all boxes, and the number of faces an image, for one class.

    Args:
        annotated: the images with their faces.
        detections: one an image, in the images' order.
        label: the class; a box's score is the face's times the probability of this class.

    Returns:
        bool[n] which boxes are matched with a face of the class and int64[n] the images they are
        in, the highest score first; and int64[images], the faces of the class in each.
    """
    scores, hits, pictures, truths = [], [], [], []
    for i, found in enumerate(detections):
        truth = annotated.boxes[i][annotated.labels[i] == label]
        score = found.scores.astype(np.float64) * found.probabilities[:, label]
        hits.append(matched(truth, found.boxes, score) >= 0)
        scores.append(score)
        pictures.append(np.full(len(score), i))
        truths.append(len(truth))
    order = np.argsort(-joined(scores, np.float64), kind="stable")
    hit, picture = joined(hits, np.bool_)[order], joined(pictures, np.int64)[order]
    return hit, picture, np.array(truths, np.int64)


def resampled(curves: list[Curve], pictures: int) -> NDArray[np.float64]:
    """Return float64[resamples, classes]: average precisions on images drawn with replacement.

    Args:
        curves: one a class, see class_curve.
        pictures: how many images there are.
    """
    random = seeded(_BOOTSTRAP_STREAM)
    found = np.empty((_RESAMPLES, len(curves)))
    for i in range(_RESAMPLES):
        times = np.bincount(random.integers(pictures, size=pictures), minlength=pictures)
        for c, (hits, picture, truths) in enumerate(curves):
            found[i, c] = average_precision(hits, float(times @ truths), times[picture])
    return found


SIZES = (0.0, 12.0, 20.0, 40.0, 80.0, math.inf)
CROWDS = (1, 2, 6, 16, math.inf)

Interval = tuple[float, float]


@dataclass(frozen=True)
class Row:
    """The figures of one kind of faces, all at one threshold.

    Args:
        group: "size", "class" or "crowding", "all" for all faces.
        name: of the kind, in words.
        faces: how many are annotated.
        found: how many of these have a matching box.
        judged: how many of the found faces were given a class.
        right: how many of the judged faces were given their own class.
        alarms: boxes of this kind that match no face, sorted by their own size, their predicted
            class or the number of faces in their image.
    """

    group: str
    name: str
    faces: int
    found: int
    judged: int
    right: int
    alarms: int

    @property
    def recall(self) -> float:
        """The fraction of the faces that is found, NaN without any."""
        return _part(self.found, self.faces)

    @property
    def precision(self) -> float:
        """The fraction of the boxes that is round a face, NaN without any."""
        return _part(self.found, self.found + self.alarms)

    @property
    def accuracy(self) -> float:
        """The fraction of the judged faces whose predicted class is right, NaN without any."""
        return _part(self.right, self.judged)

    def as_dict(self) -> dict[str, Any]:
        """Return counts, proportions and their 95 % intervals (Wilson) as plain values."""
        return {
            "group": self.group,
            "name": self.name,
            "faces": self.faces,
            "found": self.found,
            "judged": self.judged,
            "right": self.right,
            "alarms": self.alarms,
            "recall": _plain(self.recall),
            "recall_interval_95": wilson(self.found, self.faces),
            "precision": _plain(self.precision),
            "precision_interval_95": wilson(self.found, self.found + self.alarms),
            "accuracy": _plain(self.accuracy),
            "accuracy_interval_95": wilson(self.right, self.judged),
        }


@dataclass(frozen=True, eq=False)
class DetectionMetrics:
    """The figures of detections on annotated images.

    Confidence intervals are 95 % ones, from resampling images.

    Args:
        class_names: k names.
        pictures: how many images.
        ap: float64[k], the average precision of every class at IoU 0.5, by the score times the
            probability of the class; NaN for a class without a face.
        ap_intervals: float64[k, 2].
        mean_ap: the mean over the classes that have faces.
        mean_ap_interval: its ends.
        face_ap: the average precision of finding faces, whatever they wear.
        threshold: the least score of the boxes in overall, rows and confusion.
        overall: all faces.
        rows: by size, by class and by crowding.
        confusion: int64[k + 1, k + 2]; rows are the true class and, last, no face; columns are the
            predicted class and, last, not judged and not found.
    """

    class_names: tuple[str, ...]
    pictures: int
    ap: NDArray[np.float64]
    ap_intervals: NDArray[np.float64]
    mean_ap: float
    mean_ap_interval: Interval
    face_ap: float
    threshold: float
    overall: Row
    rows: tuple[Row, ...]
    confusion: NDArray[np.int64]

    def as_dict(self) -> dict[str, Any]:
        """Return all figures as plain values, None where there is none."""
        return {
            "pictures": self.pictures,
            "faces": self.overall.faces,
            "class_names": list(self.class_names),
            "ap_50": [_plain(v) for v in self.ap.tolist()],
            "ap_50_intervals_95": [
                [_plain(v) for v in pair] for pair in self.ap_intervals.tolist()
            ],
            "map_50": _plain(self.mean_ap),
            "map_50_interval_95": [_plain(v) for v in self.mean_ap_interval],
            "face_ap_50": _plain(self.face_ap),
            "threshold": self.threshold,
            "overall": self.overall.as_dict(),
            "rows": [row.as_dict() for row in self.rows],
            "confusion": self.confusion.tolist(),
        }


def size_name(least: float, below: float) -> str:
    """Return a range of sizes in words.

    Args:
        least: the smallest side in pixels, 0 for none.
        below: the side that is too large, infinity for none.
    """
    if not least:
        return f"under {below:g} px"
    return f"{least:g} px and more" if math.isinf(below) else f"{least:g} to {below:g} px"


def measured(
    annotated: AnnotatedImages, detections: Sequence[Detections], *, threshold: float
) -> DetectionMetrics:
    """Return the figures of detections on annotated images.

    What lies in ignored regions counts neither as right nor as wrong.

    Args:
        annotated: the images with their faces.
        detections: one an image, in the images' order. They should hold boxes of scores below the
            threshold too, since average precision goes through all thresholds.
        threshold: the least score, 0 to 1, at which a box counts in the rows.

    Raises:
        UserError: the detections aren't of these images or classes.
    """
    detections = countable(annotated, detections)
    matches = FaceMatches.of(annotated, detections)
    curves = [class_curve(annotated, detections, c) for c in range(len(annotated.class_names))]
    ap = np.array([average_precision(hits, truths.sum()) for hits, _, truths in curves])
    draws = resampled(curves, len(annotated))
    order = np.argsort(-matches.score, kind="stable")
    has = ~np.isnan(ap)
    overall, rows = _table(annotated, matches, threshold)
    return DetectionMetrics(
        class_names=annotated.class_names,
        pictures=len(annotated),
        ap=ap,
        ap_intervals=np.array([_percentiles(column) for column in draws.T]),
        mean_ap=float(ap[has].mean()) if has.any() else math.nan,
        mean_ap_interval=_percentiles(_row_means(draws)),
        face_ap=average_precision(matches.face[order] >= 0, len(matches.face_side)),
        threshold=threshold,
        overall=overall,
        rows=rows,
        confusion=_confusion(matches, threshold, len(annotated.class_names)),
    )


def _row_means(values: NDArray[np.float64]) -> NDArray[np.float64]:
    has = ~np.isnan(values)
    sums, counts = np.where(has, values, 0).sum(1), has.sum(1)
    means: NDArray[np.float64] = sums[counts > 0] / counts[counts > 0]
    return means


def _percentiles(values: NDArray[np.float64]) -> Interval:
    values = values[~np.isnan(values)]
    if not len(values):
        return math.nan, math.nan
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)


def _table(
    annotated: AnnotatedImages, matches: FaceMatches, threshold: float
) -> tuple[Row, tuple[Row, ...]]:
    sure = matches.score >= threshold
    taken = matches.face[sure & (matches.face >= 0)]
    said = np.full(len(matches.face_side), -2)
    said[taken] = matches.label[sure & (matches.face >= 0)]
    alarm = sure & (matches.face < 0)
    crowd = np.array([len(boxes) for boxes in annotated.boxes], np.int64)

    def row(group: str, name: str, face: NDArray[np.bool_], box: NDArray[np.bool_]) -> Row:
        return Row(
            group,
            name,
            faces=int(face.sum()),
            found=int((face & (said > -2)).sum()),
            judged=int((face & (said >= 0)).sum()),
            right=int((face & (said == matches.face_label)).sum()),
            alarms=int((box & alarm).sum()),
        )

    rows = []
    for least, below in pairwise(SIZES):
        face = (matches.face_side >= least) & (matches.face_side < below)
        box = (matches.side >= least) & (matches.side < below)
        rows.append(row("size", size_name(least, below), face, box))
    for label, name in enumerate(annotated.class_names):
        rows.append(row("class", name, matches.face_label == label, matches.label == label))
    for low, high in pairwise(CROWDS):
        # False positives in images without faces belong to the smallest crowd.
        inside = (np.maximum(crowd, 1) >= low) & (crowd < high)
        name = _crowd_name(low, high)
        rows.append(row("crowding", name, inside[matches.face_picture], inside[matches.picture]))
    everything = np.ones(len(said), bool), np.ones(len(sure), bool)
    return row("all", "all faces", *everything), tuple(rows)


def _crowd_name(low: float, high: float) -> str:
    if math.isinf(high):
        return f"{low:g} faces and more"
    return "1 face" if high - low == 1 else f"{low:g} to {high - 1:g} faces"


def _confusion(matches: FaceMatches, threshold: float, classes: int) -> NDArray[np.int64]:
    table = np.zeros((classes + 1, classes + 2), np.int64)
    sure = matches.score >= threshold
    true = np.append(matches.face_label, classes)[matches.face[sure]]
    said = np.where(matches.label[sure] < 0, classes, matches.label[sure])
    np.add.at(table, (true, said), 1)
    missed = np.ones(len(matches.face_label), bool)
    missed[matches.face[sure & (matches.face >= 0)]] = False
    np.add.at(table[:, classes + 1], matches.face_label[missed], 1)
    return table


def _part(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else value
