"""What a detector's scores are worth, from what it found in pictures it was not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unmask.data.annotated import AnnotatedPictures
from unmask.mask.decode import NMS_IOU
from unmask.mask.detections import Detections
from unmask.mask.judging import Facts, Floats, logit, sigmoid, smallness, tempered
from unmask.mask.matching import FaceMatches, joined

# What is asked of faces that are large enough to matter.
LEAST_SIDE, LEAST_PRECISION = 20.0, 0.90
# What is said of a face should be right this often, all in all, or not be said.
LEAST_ACCURACY = 0.95
# However precise all answers are together, one that is more likely wrong than right helps no one.
LEAST_FACE = 0.5
_TEMPERATURES = np.geomspace(0.25, 4.0, 81)
_CERTAINTIES = np.linspace(0.4, 0.9, 51)
_SMALLEST = (0.0, 6.0, 8.0, 10.0, 12.0, 14.0, 16.0, 20.0, 24.0)
_TOO_SMALL_ACCURACY = 0.8
_NEWTON_STEPS = 50


@dataclass(frozen=True)
class Calibration:
    """How scores become certainties, and from where on they count: what goes into the ONNX file.

    slope, offset, side_slope: of the logit of the score that it is a face, and of its size's
    logarithm (see judging.Facts.certainty). temperature: of the logits of the classes. face: the
    least calibrated score of a box that counts. certain: the least probability of the class that is
    told, 0 to 1; smallest: the least mean side of a face that is judged, in pixels of the network.
    By default scores are taken as they are.
    """

    slope: float = 1.0
    offset: float = 0.0
    side_slope: float = 0.0
    temperature: float = 1.0
    face: float = 0.3
    certain: float = 0.0
    smallest: float = 0.0
    nms_iou: float = NMS_IOU

    def as_metadata(self) -> dict[str, dict[str, float]]:
        """Return the ONNX file's "thresholds" and "calibration"."""
        values = asdict(self)
        calibrating = ("slope", "offset", "side_slope", "temperature")
        return {
            "calibration": {k: v for k, v in values.items() if k in calibrating},
            "thresholds": {k: v for k, v in values.items() if k not in calibrating},
        }

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return asdict(self)


def calibrated(
    annotated: AnnotatedPictures, detections: Sequence[Detections], *, scale: float
) -> Calibration:
    """Return the calibration for uncalibrated detections of pictures not trained on.

    scale: pixels the network saw for one of the picture. The face's score is calibrated by logistic
    regression (Platt, 1999) on its logit and the size of small faces, as Küppers et al., 2020
    (arXiv:2004.13546), do with boxes; the classes' by one temperature (Guo et al., 2017,
    arXiv:1706.04599).
    The threshold of faces is the one that finds most of those of LEAST_SIDE pixels with
    LEAST_PRECISION, or LEAST_FACE where that is higher; faces so small, and then so uncertain, that
    those judged would not be right in LEAST_ACCURACY of the cases are not judged.
    """
    matches = FaceMatches.of(annotated, detections)
    hit = matches.face >= 0
    mean_sides = [(d.boxes[:, 2:] - d.boxes[:, :2]).mean(1) for d in detections]
    sides = joined(mean_sides, np.float64) * scale
    slope, offset, side_slope = platt(logit(matches.score), smallness(sides), hit)
    rows = joined([d.probabilities for d in detections], np.float64)
    rows = rows.reshape(-1, len(annotated.class_names))[hit]
    truth = matches.face_label[matches.face[hit]]
    temperature = best_temperature(rows, truth)
    _, raw = matches.recall_at(LEAST_PRECISION, least_side=LEAST_SIDE)
    fitted = Calibration(slope, offset, side_slope, temperature)
    facts = Facts(annotated.class_names, scale=scale, **fitted.as_dict())
    # The precision was asked of faces so large that their size no longer counts.
    of_large = facts.certainty(np.array([min(raw, 1.0)]), np.array([LEAST_SIDE * scale]))
    face = max(LEAST_FACE, float(of_large[0]))
    counted = facts.certainty(matches.score, sides)[hit] >= face
    sharp = tempered(rows, temperature)[counted]
    side = sides[hit][counted]
    right = sharp.argmax(1) == truth[counted]
    smallest = _smallest(side, right)
    certain = _certain(sharp.max(1, initial=0)[side >= smallest], right[side >= smallest])
    return replace(fitted, face=face, certain=certain, smallest=smallest)


def platt(logits: Floats, small: Floats, hit: NDArray[np.bool_]) -> tuple[float, float, float]:
    """Return slope, offset and side slope of the logistic regression of hit on logits and small.

    By Newton's method, as unpenalised as can be: a prior of one thousandth keeps separable cases
    finite. The side slope is never negative, so that a small face is at most as certain as a large
    one of the same score.
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
    """Return the temperature under which probabilities [n, k] say the true classes best."""
    if not len(rows):
        return 1.0
    places = np.arange(len(rows))
    costs = [-np.log(tempered(rows, t)[places, truth] + 1e-12).mean() for t in _TEMPERATURES]
    return float(_TEMPERATURES[int(np.argmin(costs))])


def _smallest(side: Floats, right: NDArray[np.bool_]) -> float:
    """Return the least side of which smaller faces are judged wrongly too often."""
    found = 0.0
    for low, high in pairwise(_SMALLEST):
        inside = (side >= low) & (side < high)
        if inside.any() and right[inside].mean() < _TOO_SMALL_ACCURACY:
            found = high
    return found


def _certain(certainty: Floats, right: NDArray[np.bool_]) -> float:
    for least in _CERTAINTIES:
        kept = certainty >= least
        if not kept.any() or right[kept].mean() >= LEAST_ACCURACY:
            return float(least)
    return float(_CERTAINTIES[-1])
