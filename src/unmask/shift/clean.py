"""Verdicts on unchanged images, which a check and a measurement under shift share."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from unmask.shift.result import Temperature
from unmask.shift.scores import Scores
from unmask.shift.target import Target
from unmask.stats import wilson
from unmask.text import printable
from unmask.verdict import Verdict

# The largest difference, as a fraction of the largest logit, that rounding makes.
SAME = 1e-4
_CALIBRATED = 0.05
# What a class must lie below the accuracy over all, and the images that it must have.
_WEAK, _ENOUGH = 0.2, 10


def variation(target: Target, pixels: Tensor, logits: Tensor, count: int | None = None) -> float:
    """Return how far a second forward pass of the same images differs from the first.

    Args:
        target: the model.
        pixels: float32[n, c, h, w] in [0, 1].
        logits: finite, of the first pass, float32[n, k].
        count: only this many of the images are passed again, all by default.

    Returns:
        The largest difference as a fraction of the largest logit, 0 or more.
    """
    largest = float(logits.abs().max()) or 1.0
    return float((target.logits(pixels[:count]) - logits[:count]).abs().max()) / largest


def random_output(differs: float) -> list[Verdict]:
    """Judge whether two passes agree; see variation."""
    if differs <= SAME:
        return []
    return [
        Verdict(
            "random output",
            "warning",
            f"two forward passes of the same images differ by {differs:.1%} of the largest logit",
            fix="switch the randomness off, or average over it inside the model",
            evidence={"difference": differs},
        )
    ]


def not_finite(bad: int, count: int, weights: str) -> list[Verdict]:
    """Judge logits of which some are NaN or infinite.

    Args:
        bad: the images whose logits are.
        count: of all images.
        weights: the name of those of the model that hold NaN or infinity, "" for none.
    """
    if not bad:
        return []
    weights = printable(weights)
    return [
        Verdict(
            "logits not finite",
            "error",
            f"the logits of {bad:,} of {count:,} images are NaN or infinite; they count as wrong",
            cause=f"{weights} holds NaN or infinity" if weights else "",
            fix=f"load {weights} again, which holds NaN or infinity, or train again with a smaller "
            "learning rate"
            if weights
            else "look for a division, a logarithm or an overflow in half precision",
            evidence={"images": bad, "of": count},
        )
    ]


def no_better_than_chance(scores: Scores) -> list[Verdict]:
    """Judge whether the accuracy can be told from that of a guess."""
    (low, high), guess = scores.interval, 1 / len(scores.recall)
    if low > guess:
        return []
    return [
        Verdict(
            "no better than chance",
            "error",
            f"{scores.accuracy:.1%} of {scores.images:,} images are right (95 % interval "
            f"{low:.1%} to {high:.1%}), and a guess is {guess:.1%}",
            fix="check that weights were loaded and that classes are in the model's order",
            evidence={"accuracy": scores.accuracy, "chance": guess},
        )
    ]


def miscalibrated(scores: Scores, tried: Temperature | None) -> list[Verdict]:
    """Judge the confidence, with the temperature that mends it where one was tried and does."""
    # With few images even a perfect model's error isn't zero.
    if scores.ece <= _CALIBRATED + 1 / scores.images**0.5:
        return []
    evidence = {"ece": scores.ece, "confidence": scores.confidence}
    if tried is not None:
        evidence |= {"ece_after": tried.ece_after, "temperature": tried.temperature}
    return [
        Verdict(
            "overconfident" if scores.confidence > scores.accuracy else "underconfident",
            "warning",
            f"mean confidence is {scores.confidence:.1%} and accuracy {scores.accuracy:.1%}: "
            f"a calibration error of {scores.ece:.3f} on {scores.images:,} images",
            fix=recalibration(tried),
            evidence=evidence,
        )
    ]


def recalibration(tried: Temperature | None) -> str:
    """Return the advice to divide the logits; "" where that was not tried or doesn't help."""
    if tried is None or tried.ece_after >= tried.ece_before:
        return ""
    return (
        f"divide the logits by {tried.temperature:.2f}: on images that it was not fitted on, the "
        f"error became {tried.ece_after:.3f} instead of {tried.ece_before:.3f}"
    )


def weak_classes(scores: Scores, counts: Sequence[int], names: Sequence[str]) -> list[Verdict]:
    """Judge the three classes of which the fewest images are right.

    Args:
        scores: with the recall of each class.
        counts: images of each class.
        names: of the classes.
    """
    worst = sorted(
        (recall, k)
        for k, recall in enumerate(scores.recall)
        if recall is not None and counts[k] >= _ENOUGH
    )
    found = []
    for recall, k in worst[:3]:
        _, high = wilson(round(recall * counts[k]), counts[k])
        if recall < scores.accuracy - _WEAK and high < scores.accuracy:
            found.append(
                Verdict(
                    "weak class",
                    "warning",
                    f"{recall:.1%} of {counts[k]:,} images of class {names[k]} are right, "
                    f"{scores.accuracy:.1%} over all classes",
                    subject=names[k],
                    fix="add images of this class, or look for label errors in it (unmask data "
                    "audit)",
                    evidence={"recall": recall, "accuracy": scores.accuracy},
                )
            )
    return found
