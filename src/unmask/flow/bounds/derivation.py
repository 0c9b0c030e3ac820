"""How large a gradient can be: exercise 1 A, in closed form, beside what the document says."""

from __future__ import annotations

import math
from dataclasses import dataclass

from unmask.errors import UserError, unknown
from unmask.flow.bounds.calculus import Calculus, calculus
from unmask.flow.bounds.intervals import Interval
from unmask.sweep.spec import LOSSES

_STEEPEST_SQUARE = 8 / 27
"""The supremum of |y (e - sum y e)|, e = y - T, over softmax outputs y and labels T."""


@dataclass(frozen=True)
class Claim:
    """What the document says of an activation: the range of f' and of dE/dw of one layer."""

    slope_range: Interval
    gradient_range: Interval


DOCUMENT: dict[str, Claim] = {
    "relu": Claim(Interval(0, 1), Interval(0, math.inf, True, False)),
    "tanh": Claim(Interval(0, 1), Interval(-1, 1)),
    "sigmoid": Claim(Interval(0, 0.25), Interval(0, 0.25)),
    "lecun": Claim(
        Interval(0.01, 1.1539, False, True), Interval(-math.inf, math.inf, False, False)
    ),
}

_ENDS = "f' is above 0 everywhere: it comes as near to 0 as you like, but never there"
_SIGN = "the error y - T has both signs: below 0 for the true class, above 0 for every other"
_NO_SLOPE = "through softmax and cross-entropy the last layer's error is y - T, with no factor f'"
_REMARKS: dict[str, tuple[str, ...]] = {
    "relu": (_SIGN, "f' takes the two values 0 and 1 only, and none at x = 0"),
    "tanh": (_ENDS, "neither tanh nor y - T reaches 1, so neither does their product", _NO_SLOPE),
    "sigmoid": (_SIGN, _ENDS, _NO_SLOPE),
    "lecun": (
        "through softmax the error of cross-entropy is y - T, within (-1, 1), not -T/y: "
        "the gradient is unbounded because f is",
    ),
}


@dataclass(frozen=True)
class ActivationBounds:
    """The answer to exercise 1 A for one activation.

    one_layer: y f'(v) (y_out - T), the document's product of a single layer, from the exact range
    of each factor. last_layer: by loss, dE/dw of the softmax layer. claim: the document's answer,
    if it has one, and remarks what is different in a careful derivation and why.
    """

    calculus: Calculus
    one_layer: Interval
    last_layer: dict[str, Interval]
    claim: Claim | None
    remarks: tuple[str, ...]


def activation_bounds(name: str, *, classes: int = 10) -> ActivationBounds:
    """Return the exact ranges for an activation and a softmax over that many classes."""
    facts = calculus(name)
    error = error_range("cross_entropy", classes)
    return ActivationBounds(
        facts,
        facts.range * facts.slope_range * error,
        {loss: last_layer_range(facts.range, loss, classes) for loss in LOSSES},
        DOCUMENT.get(name),
        _REMARKS.get(name, ()),
    )


def error_range(loss: str, classes: int, *, true_class: bool | None = None) -> Interval:
    """Return the range of dE/dv of one logit, over all logits and labels.

    true_class: of the true class's logit only, or of another's. Cross-entropy: y - T. Half the
    squared error on softmax outputs: y (e - sum of y e) with e = y - T, which is for the true class
    -y ((1 - y)^2 + sum of the others' squares), least where y = 1/3 and one other has the rest, and
    then 8/27 for that other; and for another least, -sqrt(3)/18, where the true class has nothing.
    With more than two classes these are approached only. Raises UserError for an unknown loss or
    fewer than two classes.
    """
    if loss not in LOSSES:
        raise unknown("loss", loss, LOSSES)
    if classes < 2:
        raise UserError("a softmax needs classes to choose from", got=classes, do="give 2 or more")
    two = classes == 2
    least, most, closed = (-1.0, 1.0, False)
    other_least = 0.0
    if loss == "half_squared":
        least, most, closed = -_STEEPEST_SQUARE, _STEEPEST_SQUARE, two
        other_least = 0.0 if two else -math.sqrt(3) / 18
    if true_class is None:
        return Interval(least, most, closed, closed)
    if true_class:
        return Interval(least, 0.0, closed, False)
    return Interval(other_least, most, False, closed)


def last_layer_range(inputs: Interval, loss: str, classes: int = 10) -> Interval:
    """Return the range of dE/dw of the softmax layer, whose inputs lie in that interval.

    It holds for one pattern and for the mean over any number; for a sum over n patterns it is n
    times as wide. The bias of a class has the range of its error.
    """
    return inputs * error_range(loss, classes)
