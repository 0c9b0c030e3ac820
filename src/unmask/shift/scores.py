"""Figures of logits on labelled images: accuracy, calibration, and confidence as a warning."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unmask.stats import wilson

_BINS = 15


@dataclass(frozen=True)
class Scores:
    """The figures of a model on n labelled images.

    Args:
        images: n.
        right: how many are classified correctly.
        confidence: the mean probability of the predicted class.
        ece: the expected calibration error over 15 bins (Guo et al., 2017).
        auroc: the probability that a correct prediction is more confident than a wrong one; None
            where all are correct or all wrong.
        recall: by class, the fraction of its images classified correctly; None for a class without
            images.
    """

    images: int
    right: int
    confidence: float
    ece: float
    auroc: float | None
    recall: tuple[float | None, ...]

    @property
    def accuracy(self) -> float:
        """The fraction of the images that are classified correctly."""
        return self.right / self.images

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % confidence interval of the accuracy (Wilson, 1927)."""
        return wilson(self.right, self.images)

    def as_dict(self) -> dict[str, Any]:
        """Return the figures as plain values."""
        return {**asdict(self), "accuracy": self.accuracy, "interval_95": list(self.interval)}

    @staticmethod
    def from_dict(values: dict[str, Any]) -> Scores:
        """Return what as_dict wrote."""
        kept = {k: values[k] for k in ("images", "right", "confidence", "ece", "auroc")}
        return Scores(**kept, recall=tuple(values["recall"]))


def scores_of(logits: Tensor, labels: NDArray[np.int64], classes: int) -> Scores:
    """Return the figures of logits.

    Args:
        logits: float[n, k] on the CPU; a row that isn't finite is a wrong prediction of confidence
            1 / k.
        labels: int64[n], in [0, classes).
        classes: the number of classes in recall.
    """
    finite = logits.isfinite().all(1)
    probabilities = torch.where(finite[:, None], logits, 0).double().softmax(1)
    top, predicted = probabilities.max(1)
    confidence = top.numpy()
    right = (predicted.numpy() == labels) & finite.numpy()
    place = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    gaps = np.bincount(place, right - confidence, minlength=_BINS)
    total = np.bincount(labels, minlength=classes)
    hits = np.bincount(labels[right], minlength=classes)
    return Scores(
        images=len(labels),
        right=int(right.sum()),
        confidence=float(confidence.mean()),
        ece=float(np.abs(gaps).sum() / len(labels)),
        auroc=auroc(confidence, right),
        recall=tuple(float(h / t) if t else None for h, t in zip(hits, total, strict=True)),
    )


def auroc(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float | None:
    """Return the area under the ROC curve, ties counted half (Mann & Whitney, 1947)."""
    from scipy.stats import rankdata

    high, low = int(positive.sum()), int((~positive).sum())
    if not high or not low:
        return None
    ranks = rankdata(scores)
    return float((ranks[positive].sum() - high * (high + 1) / 2) / (high * low))
