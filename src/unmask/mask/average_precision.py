"""Average precision, one class at a time, and how far it varies with the pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unmask.data.annotated import AnnotatedPictures
from unmask.mask.detections import Detections
from unmask.mask.matching import joined, matched
from unmask.runtime import seeded

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

    hits: of the detections, surest first, which are true. truths: how many there are to find.
    weights: how often each detection counts, once by default. The precision at a recall is the
    highest at that recall or more (Lin et al., 2014).
    """
    if not truths:
        return float("nan")
    counts = np.ones(len(hits)) if weights is None else weights
    true, said = np.cumsum(counts * hits), np.cumsum(counts)
    precision = np.divide(true, said, out=np.zeros(len(hits)), where=said > 0)
    highest = np.maximum.accumulate(precision[::-1])[::-1]
    place = np.searchsorted(true / truths, _RECALLS, side="left")
    return float(np.append(highest, 0.0)[np.minimum(place, len(hits))].mean())


def class_curve(
    annotated: AnnotatedPictures, detections: Sequence[Detections], label: int
) -> Curve:
    """Return hits and pictures of all boxes as one class, surest first, and its faces a picture."""
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
    """Return float64[resamples, classes]: average precisions on pictures drawn with replacement."""
    random = seeded(_BOOTSTRAP_STREAM)
    found = np.empty((_RESAMPLES, len(curves)))
    for i in range(_RESAMPLES):
        times = np.bincount(random.integers(pictures, size=pictures), minlength=pictures)
        for c, (hits, picture, truths) in enumerate(curves):
            found[i, c] = average_precision(hits, float(times @ truths), times[picture])
    return found
