"""Label errors by confident learning (Northcutt et al., 2021), and a cross-validated model."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from unmask.runtime import seeded

_FOLDS = 5
_SIDE, _PATCH, _FILTERS, _POOL = 28, 6, 64, 3
_RIDGE = 1e-3


@dataclass(frozen=True)
class LabelErrors:
    """Labels that are likely wrong.

    Args:
        rows: their places, the likeliest first, int64[k].
        suggested: the class that is likelier, int64[k].
        confidence: the probability of the suggested class minus that of the label, float64[k].
        accuracy: of the model whose probabilities were used, against the labels as given.
        images: how many labels were compared with probabilities.
        surest: (labels contradicted, labels) of the half and of the quarter of the images with the
            most confident predictions. The model's own mistakes are rare there, wrong labels are
            not.
    """

    rows: NDArray[np.int64]
    suggested: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: float
    images: int
    surest: tuple[tuple[int, int], ...] = ()


def confident_errors(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> LabelErrors:
    """Return the labels that out-of-sample probabilities contradict with confidence.

    A class is likely for an image when its probability is at least the mean over images with that
    label; a label is in doubt when another class is likely and is the likeliest of all.

    Args:
        probabilities: float64[n, k], from a model that wasn't trained on these labels; rows of NaN
            are images without probabilities.
        labels: int64[n].
    """
    known = np.flatnonzero(np.isfinite(probabilities).all(1))
    if len(known) < len(labels):
        found = confident_errors(probabilities[known], labels[known])
        return replace(found, rows=known[found.rows])
    classes = probabilities.shape[1]
    own = probabilities[np.arange(len(labels)), labels]
    counts = np.bincount(labels, minlength=classes)
    sums = np.bincount(labels, own, minlength=classes)
    threshold = np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)
    # The mean of equal probabilities may be larger by rounding.
    likely = np.where(probabilities >= threshold - 1e-9, probabilities, -1.0)
    best = likely.argmax(1)
    doubted = np.flatnonzero((likely[np.arange(len(labels)), best] > own) & (best != labels))
    gap = probabilities[doubted, best[doubted]] - own[doubted]
    order = np.argsort(-gap, kind="stable")
    wrong = probabilities.argmax(1) != labels
    two = np.partition(probabilities, -2, axis=1)[:, -2:] if classes > 1 else probabilities
    sure = np.argsort(two[:, 0] - two[:, -1], kind="stable")
    surest = tuple((int(wrong[sure[: len(labels) // k]].sum()), len(labels) // k) for k in (2, 4))
    accuracy = 1 - float(wrong.mean()) if len(labels) else 0.0
    return LabelErrors(
        doubted[order], best[doubted][order], gap[order], accuracy, len(labels), surest
    )


def patch_features(pixels: NDArray[np.uint8], seed: int = 0) -> NDArray[np.float32]:
    """Return the responses of images to whitened random patches, pooled over a grid.

    Coates & Ng, 2011. Good enough to find doubtful labels, without any training.

    Args:
        pixels: uint8[n, c, h, w].
        seed: of the patches.

    Returns:
        float32[n, d].
    """
    import torch
    from torch.nn import functional

    channels = pixels.shape[1]
    rng = seeded(seed, 81)

    def prepared(part: NDArray[np.uint8]) -> torch.Tensor:
        x = torch.tensor(part).float() / 255
        if x.shape[2:] != (_SIDE, _SIDE):
            x = functional.interpolate(x, (_SIDE, _SIDE), mode="area")
        x = x - x.mean((1, 2, 3), keepdim=True)
        return x / x.std((1, 2, 3), keepdim=True).clamp(min=0.05)

    sample = prepared(pixels[np.sort(rng.permutation(len(pixels))[:2000])])
    patches = (
        functional.unfold(sample, _PATCH, stride=3)
        .transpose(1, 2)
        .reshape(-1, channels * _PATCH**2)
    )
    patches = patches[torch.from_numpy(rng.permutation(len(patches))[:20_000])]
    mean = patches.mean(0)
    values, vectors = torch.linalg.eigh((patches - mean).T @ (patches - mean) / len(patches))
    whiten = vectors @ torch.diag((values.clamp(min=0) + 0.01).rsqrt()) @ vectors.T
    textured = patches[(patches.std(1) > 0.1).nonzero().flatten()]
    if len(textured) < _FILTERS:
        textured = patches
    filters = (textured[:_FILTERS] - mean) @ whiten
    filters = filters / filters.norm(dim=1, keepdim=True).clamp(min=1e-6) @ whiten
    kernel = filters.view(-1, channels, _PATCH, _PATCH)
    bias = -(filters @ mean)
    found = []
    for start in range(0, len(pixels), 500):
        z = functional.conv2d(prepared(pixels[start : start + 500]), kernel, bias, stride=2)
        both = torch.cat([(z - 0.5).relu(), (-z - 0.5).relu()], 1)
        found.append(functional.adaptive_avg_pool2d(both, _POOL).flatten(1).numpy())
    return np.concatenate(found)


def cross_validated(
    features: NDArray[np.float32], labels: NDArray[np.int64], classes: int, seed: int = 0
) -> NDArray[np.float64]:
    """Return each image's class probabilities from a ridge regression that wasn't fitted to it.

    Five folds; labels that the first round doubts are left out of the fit of a second.

    Args:
        features: float32[n, d].
        labels: int64[n].
        classes: k.
        seed: of the folds.

    Returns:
        float64[n, k].
    """
    n = len(labels)
    fold = seeded(seed, 82).permutation(n) % min(_FOLDS, n)
    x = (features - features.mean(0)) / (features.std(0) + 1e-3)
    x = np.concatenate([x, np.ones((n, 1), np.float32)], 1).astype(np.float32)
    targets = np.eye(classes, dtype=np.float32)[labels]
    grams = [x[fold == f].T @ x[fold == f] for f in range(fold.max() + 1)]
    moments = [x[fold == f].T @ targets[fold == f] for f in range(fold.max() + 1)]
    probabilities = _scored(x, fold, grams, moments, labels)
    doubted = confident_errors(probabilities, labels).rows
    if not 0 < len(doubted) < n // 2:
        return probabilities
    for f in range(fold.max() + 1):
        out = doubted[fold[doubted] == f]
        grams[f] = grams[f] - x[out].T @ x[out]
        moments[f] = moments[f] - x[out].T @ targets[out]
    return _scored(x, fold, grams, moments, labels)


def _scored(
    x: NDArray[np.float32],
    fold: NDArray[np.int64],
    grams: list[NDArray[np.float32]],
    moments: list[NDArray[np.float32]],
    labels: NDArray[np.int64],
) -> NDArray[np.float64]:
    from scipy.linalg import solve
    from scipy.optimize import minimize_scalar

    all_gram, all_moment = sum(grams), sum(moments)
    scores = np.empty((len(x), moments[0].shape[1]))
    for f, (gram, moment) in enumerate(zip(grams, moments, strict=True)):
        rest = np.asarray(all_gram - gram, np.float64)
        rest[np.diag_indices_from(rest)] += _RIDGE * len(x) + 1e-6
        weights = solve(rest, np.asarray(all_moment - moment, np.float64), assume_a="pos")
        scores[fold == f] = x[fold == f] @ weights

    def softmax(scale: float) -> NDArray[np.float64]:
        z = scores * scale
        z -= z.max(1, keepdims=True)
        e = np.exp(z)
        return e / e.sum(1, keepdims=True)  # type: ignore[no-any-return]

    places = np.arange(len(labels))

    def loss(log_scale: float) -> float:
        return float(-np.log(softmax(np.exp(log_scale))[places, labels] + 1e-12).mean())

    best = minimize_scalar(loss, bounds=(-2.0, 5.0), method="bounded", options={"maxiter": 20})
    return softmax(float(np.exp(best.x)))
