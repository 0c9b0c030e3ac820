"""Part D of the study: tanh against LeCun's activation, in learning curves and gradients."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unmask.coursework.study.outcomes import cells
from unmask.coursework.study.profiles import Profile
from unmask.sweep.history import CURVES, SweepHistory
from unmask.text import moment, span

LEFT, RIGHT = "tanh", "lecun"
# The report calls the curves similar; here they are when the last validation accuracies are this
# near.
SIMILAR = 0.01


@dataclass(frozen=True)
class LayerCount:
    """In how many layers of a net tanh's largest gradient is smaller than LeCun's, by medians.

    Args:
        epoch: when it was measured, 0 for the initialisation.
        smaller: the number of such layers.
        layers: the number of all.
        ratio_low: the smallest ratio of tanh's to LeCun's.
        ratio_high: the largest ratio.
    """

    epoch: int
    smaller: int
    layers: int
    ratio_low: float
    ratio_high: float


@dataclass(frozen=True)
class Comparison:
    """tanh against LeCun's activation at one depth.

    Args:
        depth: the number of hidden layers.
        epochs: the length of the learning curves.
        accuracy_left: tanh's median over seeds of the validation accuracy after the last epoch.
        accuracy_right: LeCun's.
        largest_gap: the largest difference of the two medians in any epoch.
        counts: one for each probed epoch.
        sentence: the comparison in words.
    """

    depth: int
    epochs: int
    accuracy_left: float
    accuracy_right: float
    largest_gap: float
    counts: tuple[LayerCount, ...]
    sentence: str


def learning_curves(
    history: SweepHistory, depth: int, activation: str
) -> dict[str, NDArray[np.float32]]:
    """Return the curves of every seed of a cell: name in CURVES -> float32[seeds, epochs]."""
    rows = cells(history)[depth, activation]
    return {name: history.curves[name][rows] for name in CURVES}


def median_curve(curves: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the median over seeds, float64[epochs], of those that had not diverged by then."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice")
        return np.asarray(np.nanmedian(curves.astype(np.float64), axis=0))


def compare(
    history: SweepHistory, probed: tuple[tuple[Profile, ...], ...]
) -> tuple[Comparison, ...]:
    """Return one comparison for every depth that has both activations.

    Args:
        history: of the study's nets.
        probed: the profiles of each probed epoch.
    """
    depths = [d for d, a in cells(history) if a == LEFT and (d, RIGHT) in cells(history)]
    return tuple(_compare(history, depth, probed) for depth in depths)


def throughout(comparisons: tuple[Comparison, ...]) -> str:
    """Return in words whether tanh's largest gradients are smaller throughout, as in the report."""
    parts = []
    for epoch in dict.fromkeys(c.epoch for pair in comparisons for c in pair.counts):
        counts = [c for pair in comparisons for c in pair.counts if c.epoch == epoch]
        smaller, layers = sum(c.smaller for c in counts), sum(c.layers for c in counts)
        answer = "it is, in all" if smaller == layers else f"it is in {smaller} of"
        parts.append(f"{moment(epoch)} {answer} {layers} layers")
    return (
        "The report says that the largest gradient of tanh is smaller than that of LeCun's "
        f"activation throughout: {', '.join(parts)} (medians over seeds, all depths)."
    )


def _compare(
    history: SweepHistory, depth: int, probed: tuple[tuple[Profile, ...], ...]
) -> Comparison:
    left, right = (
        median_curve(learning_curves(history, depth, name)["validation_accuracy"])
        for name in (LEFT, RIGHT)
    )
    gaps = np.abs(left - right)
    gap = float(np.nanmax(gaps)) if len(gaps) and not np.isnan(gaps).all() else np.nan
    last = (float(left[-1]), float(right[-1])) if len(left) else (np.nan, np.nan)
    counts = tuple(_count(depth, found) for found in probed)
    moments = " and ".join(
        f"{c.smaller} of {c.layers} {moment(c.epoch)} (ratios {span([c.ratio_low, c.ratio_high])})"
        for c in counts
    )
    sentence = (
        f"{depth} layers: {_curves_in_words(*last, gap)}; tanh's largest gradient is smaller than "
        f"LeCun's in this many layers: {moments}."
    )
    return Comparison(depth, len(left), last[0], last[1], gap, counts, sentence)


def _curves_in_words(left: float, right: float, gap: float) -> str:
    gone = [title for title, end in (("tanh", left), ("LeCun", right)) if np.isnan(end)]
    if gone:
        return f"every seed of {' and of '.join(gone)} diverged"
    similar = abs(round(left - right, 4)) <= SIMILAR
    return (
        f"the learning curves are {'similar' if similar else 'not similar'}, the median validation "
        f"accuracy ending at {left:.4f} for tanh and {right:.4f} for LeCun, never more than "
        f"{gap:.4f} apart"
    )


def _count(depth: int, found: tuple[Profile, ...]) -> LayerCount:
    by_name = {p.activation: p for p in found if p.depth == depth}
    left, right = by_name[LEFT].median, by_name[RIGHT].median
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = left / right
    return LayerCount(
        epoch=by_name[LEFT].epoch,
        smaller=int((left < right).sum()),
        layers=len(left),
        ratio_low=float(ratio.min()),
        ratio_high=float(ratio.max()),
    )
