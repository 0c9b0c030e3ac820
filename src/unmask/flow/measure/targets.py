"""What a loss's targets tell of the outputs that they are compared with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from unmask.flow.measure.graph import RANGES

if TYPE_CHECKING:
    from torch import Tensor

# The most entries of a loss's input that are added up, and the most images.
_MOST_ENTRIES, _MOST_IMAGES = 1 << 20, 64
# Labels left out by ignore_index that are enough to look at, and the fraction of all.
_LEFT_OUT, _MANY_LEFT_OUT = 32, 0.1
# More classes than this are words.
_MOST_CLASSES = 100
# Targets this near to a range, relative to its width, count as inside.
_NEAR_ENOUGH = 0.05
# The fewest images whose variance says anything, and the least of it beside the mean square.
_FEWEST, _LEAST = 8, 1e-6


def ignored(texts: Sequence[Tensor], aim: Tensor, index: int) -> float | None:
    """Return the fraction of the labels that are left out at many different words, or None.

    So are those of whole texts, which have no padding. Where the words that are told are hidden
    behind one other, the rest is left out on purpose.

    Args:
        texts: that the model was given, int64[texts, places].
        aim: the labels.
        index: the one that is left out; those below 0 are no class.
    """
    words = next((x for x in texts if x.numel() == aim.numel()), None)
    if index < 0 or not aim.numel():
        return None
    out = aim.flatten() == index
    part = float(out.float().mean())
    if words is None:
        texts_alone = aim.ndim == 1 and any(len(x) == len(aim) for x in texts)
        return part if texts_alone and _MANY_LEFT_OUT <= part < 1 else None
    left, told = words.flatten()[out], words.flatten()[~out]
    if len(left) < _LEFT_OUT or part < _MANY_LEFT_OUT or _mostly_one(told):
        return None
    return None if _mostly_one(left) else part


def _mostly_one(words: Tensor) -> bool:
    if not len(words):
        return False
    most = int(words.unique(return_counts=True)[1].max())  # type: ignore[no-untyped-call]
    return most >= len(words) / 2


def endless(texts: Sequence[Tensor], aim: Tensor, index: int) -> bool:
    """Return whether every text ends with one word, and one of them once, that no label is.

    The longest text of a batch ends with no padding, unless padding is what ends a text.

    Args:
        texts: that the model was given, int64[texts, places].
        aim: the labels: each the next word, or left out.
        index: the label of those that are left out.
    """
    x = next((t for t in texts if t.numel() == aim.numel() and len(t) > 1), None)
    if x is None or aim.is_floating_point() or x.shape[1] < 2:
        return False
    words, labels = x[:, 1:], aim.reshape(x.shape)[:, :-1]
    told = labels != index
    end = words[:, -1:]
    # From the last label on there is nothing but that word.
    after = told.flip(1).cumsum(1).flip(1) == 0
    if not bool(told.any(1).all()) or bool((words[told] != labels[told]).any()):
        return False
    same = bool((end == end[0]).all()) and bool((words[after] == end[0]).all())
    return same and int(after.sum(1).min()) == 1


def given_away(texts: Sequence[Tensor], aim: Tensor) -> bool:
    """Return whether one of several texts that a model reads is that of its targets.

    One text alone may be put together again on purpose, and so may one that the model is given a
    word later too, as a decoder is.

    Args:
        texts: that the model was given, int64[texts, places].
        aim: the targets.
    """
    if aim.is_floating_point() or not aim.numel():
        return False
    # The places of words are no text.
    texts = [x for x in texts if len(x) > 1 and not bool((x == x[:1]).all())]
    alike = [_same(x.flatten(), aim.flatten()) for x in texts]
    if not any(alike) or all(alike):
        return False
    rows = texts[alike.index(True)]
    return not any(x.shape == rows.shape and _same(x[:, 1:], rows[:, :-1]) for x in texts)


def shown(texts: Sequence[Tensor], aim: Tensor, index: int) -> bool:
    """Return whether all words that are to be guessed stand in the text that the model reads.

    Args:
        texts: that the model was given, int64[texts, places].
        aim: the labels: the words at some places, the others left out.
        index: the label of those that are left out.
    """
    words = next((x for x in texts if x.numel() == aim.numel()), None)
    if words is None or aim.is_floating_point():
        return False
    flat, labels = words.flatten(), aim.flatten()
    told = labels != index
    left = flat[~told]
    if min(len(left), len(flat) - len(left)) < _LEFT_OUT:
        return False
    # Words of many kinds are no padding.
    return not _mostly_one(left) and bool((flat[told] == labels[told]).all())


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool((a == b).all())


def beyond(target: Tensor, operation: str | None) -> float:
    """Return the fraction of the targets that an operation's results can't come near."""
    low, high = RANGES.get(operation or "", (-math.inf, math.inf))
    if not (math.isfinite(low) or math.isfinite(high)) or not 0 < target.numel() <= _MOST_ENTRIES:
        return 0.0
    known = high - low if math.isfinite(high - low) else float(target.abs().max())
    near = (target >= low - _NEAR_ENOUGH * known) & (target <= high + _NEAR_ENOUGH * known)
    return 1 - float(near.float().mean())


def normalised(out: Tensor, logs: bool) -> int | None:
    """Return the dimension over which entries, or their exponentials, are probabilities."""
    if out.ndim < 2 or min(out.shape[:2]) < 2 or not 0 < out.numel() <= _MOST_ENTRIES:
        return None
    if not out.is_floating_point() or not (logs or bool((out >= 0).all())):
        return None
    parts = out.float().exp() if logs else out.float()
    for dim in (1, 0):
        # Half precision keeps three digits.
        if bool(((parts.sum(dim) - 1).abs() < 5e-3).all()):
            return dim
    return None


def variation(out: Tensor) -> float | None:
    """Return the deviation of the outputs over images, relative to their RMS."""
    if out.ndim < 1 or len(out) < 2 or not out.is_floating_point():
        return None
    size = float(out.float().square().mean()) ** 0.5
    return float((out - out.mean(0)).float().square().mean()) ** 0.5 / size if size > 0 else 0.0


def class_weights(given: Any) -> tuple[float, ...] | None:
    """Return the weights of a loss's classes, None where there are none, or many."""
    if not hasattr(given, "tolist") or given.ndim != 1 or not 1 < len(given) <= _MOST_CLASSES:
        return None
    return tuple(float(w) for w in given.tolist())


def positives(aim: Tensor) -> float | None:
    """Return the fraction of ones where each image has one target, 0 or 1; None for others."""
    if not aim.ndim or aim.numel() != len(aim) or not len(aim):
        return None
    flat = aim.flatten().float()
    return float(flat.mean()) if bool(((flat == 0) | (flat == 1)).all()) else None


def crowded(aim: Tensor) -> float:
    """Return the fraction of rows of zeros and ones that hold no or several ones; 0 for others."""
    if aim.ndim != 2 or aim.shape[1] < 2 or not 0 < aim.numel() <= _MOST_ENTRIES:
        return 0.0
    if not bool(((aim == 0) | (aim == 1)).all()):
        return 0.0
    return float((aim.sum(1) != 1).float().mean())


def explained(out: Tensor, aim: Tensor) -> float | None:
    """Return the fraction of the targets' variance over images that the outputs explain, or None.

    Whole numbers are taken for classes.
    """
    if out.shape != aim.shape or out.ndim < 1 or len(aim) < _FEWEST:
        return None
    out, aim = out[:_MOST_IMAGES].double(), aim[:_MOST_IMAGES].double()
    if not 0 < aim.numel() <= _MOST_ENTRIES or bool((aim == aim.round()).all()):
        return None
    total = float((aim - aim.mean(0)).square().sum())
    if not total > _LEAST * float(aim.square().sum()):
        return None
    return 1 - float((out - aim).square().sum()) / total
