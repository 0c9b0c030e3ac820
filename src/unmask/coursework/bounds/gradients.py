"""How large a gradient can be: exact ranges of one layer, interval arithmetic for any other."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from unmask.coursework.bounds.calculus import Calculus, calculus
from unmask.coursework.bounds.intervals import Box, Interval, shown
from unmask.errors import UserError, unknown
from unmask.models.activations import Activation, activation
from unmask.sweep.spec import LOSSES

if TYPE_CHECKING:
    from torch import Tensor

_STEEPEST_SQUARE = 8 / 27
"""The supremum of |y (e - sum y e)|, e = y - T, over softmax outputs y and labels T."""


@dataclass(frozen=True)
class Claim:
    """The report's ranges for an activation.

    Args:
        slope_range: of f'.
        gradient_range: of dE/dw of one layer.
    """

    slope_range: Interval
    gradient_range: Interval


REPORT: dict[str, Claim] = {
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

    Args:
        calculus: its formulas and extrema.
        one_layer: y f'(v) (y_out - T), the report's product for a single layer, from the exact
            range of each factor.
        last_layer: by loss, dE/dw of the softmax layer.
        claim: the report's answer, None if it has none.
        remarks: what differs in a careful derivation, and why.
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
        REPORT.get(name),
        _REMARKS.get(name, ()),
    )


def slope_values(bounds: ActivationBounds) -> list[str]:
    """Return the values of f' where it takes only one or two, and nothing otherwise."""
    facts = bounds.calculus
    if facts.name not in ("relu", "leaky_relu", "linear"):
        return []
    return list(dict.fromkeys([shown(facts.slope_low.value), shown(facts.slope_high.value)]))


def error_range(loss: str, classes: int, *, true_class: bool | None = None) -> Interval:
    """Return the range of dE/dv of one logit, over all logits and labels.

    Cross-entropy: y - T. Half the squared error on softmax outputs: y (e - sum of y e) with e = y -
    T. For the true class that is -y ((1 - y)^2 + sum of the others' squares), least, -8/27, where y
    = 1/3 and one other class has the rest; for that other class it is then 8/27. For another class
    it is least, -sqrt(3)/18, where the true class has probability 0. With more than two classes
    these are only approached.

    Args:
        loss: "cross_entropy" or "half_squared".
        classes: 2 or more.
        true_class: True for the logit of the true class only, False for that of another class, None
            for any.

    Raises:
        UserError: for an unknown loss or fewer than two classes.
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
    """Return the range of dE/dw of the softmax layer.

    It holds for one pattern and for the mean over any number; for a sum over n patterns it is n
    times as wide. The bias of a class has the range of its error.

    Args:
        inputs: the interval that holds the layer's inputs.
        loss: "cross_entropy" or "half_squared".
        classes: 2 or more.

    Raises:
        UserError: as error_range does.
    """
    return inputs * error_range(loss, classes)


Function: TypeAlias = "Callable[[Tensor], Tensor]"

MAX_DEPTH, MAX_WIDTH = 100, 1024


@dataclass(frozen=True)
class LayerBox:
    """Bounds on a layer's parameters.

    Args:
        weights: of W, [n_in, n_out].
        biases: of b, [n_out].
    """

    weights: Box
    biases: Box


def uniform_layers(
    sizes: Sequence[int], weight_bound: float, bias_bound: float = 0.0
) -> list[LayerBox]:
    """Return layers between those sizes with every |w| <= weight_bound and |b| <= bias_bound."""
    return [
        LayerBox(
            Box.full((n_in, n_out), -weight_bound, weight_bound),
            Box.full(n_out, -bias_bound, bias_bound),
        )
        for n_in, n_out in itertools.pairwise(sizes)
    ]


@dataclass(frozen=True)
class BoundedNet:
    """Multilayer perceptrons with parameters and inputs within bounds, ending in a softmax.

    Args:
        features: the number of inputs, 1 to 65536.
        depth: hidden layers, 0 to 100.
        width: hidden width, 1 to 1024.
        classes: 2 to 1024.
        inputs: the finite interval that holds every input.
        weight_bound: every |w| is at most this, 0 or more.
        bias_bound: every |b| is at most this, 0 or more.

    Raises:
        UserError: when a setting is out of its range.
    """

    features: int = 784
    depth: int = 3
    width: int = 32
    classes: int = 10
    inputs: Interval = field(default_factory=lambda: Interval(0.0, 1.0))
    weight_bound: float = 0.3
    bias_bound: float = 0.0

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("inputs", self.features, 1, 1 << 16),
            ("hidden layers", self.depth, 0, MAX_DEPTH),
            ("units a layer", self.width, 1, MAX_WIDTH),
            ("classes", self.classes, 2, MAX_WIDTH),
        ):
            if not low <= value <= high:
                raise UserError(
                    f"the number of {name} is out of range", got=value, do=f"give {low} to {high}"
                )
        for name, bound in (("weights", self.weight_bound), ("biases", self.bias_bound)):
            if not 0 <= bound < math.inf:
                raise UserError(
                    f"the {name} need a bound on their size", got=bound, do="give 0 or more"
                )
        if math.isinf(self.inputs.low) or math.isinf(self.inputs.high):
            raise UserError(
                "the inputs need two finite bounds", got=str(self.inputs), do="give for example 0 1"
            )

    @property
    def layers(self) -> list[LayerBox]:
        """Return the layers, the softmax layer last."""
        sizes = [self.features, *[self.width] * self.depth, self.classes]
        return uniform_layers(sizes, self.weight_bound, self.bias_bound)


@dataclass(frozen=True)
class BoundsTable:
    """The closed forms of some activations, and the bounds of every layer of a net.

    Args:
        activations: the closed forms.
        net: the bounds on parameters and inputs.
        layers: activation -> loss -> the interval of dE/dw of each layer, layer 1 first.
    """

    activations: tuple[ActivationBounds, ...]
    net: BoundedNet
    layers: dict[str, dict[str, tuple[Interval, ...]]]


def bounds_table(names: Sequence[str], net: BoundedNet) -> BoundsTable:
    """Return the bounds for some activations and a net.

    Args:
        names: keys of CALCULUS.
        net: the bounds on parameters and inputs.

    Raises:
        UserError: for an unknown activation.
    """
    return BoundsTable(
        tuple(activation_bounds(name, classes=net.classes) for name in names),
        net,
        {name: {loss: layer_ranges(name, net, loss) for loss in LOSSES} for name in names},
    )


def layer_ranges(name: str, net: BoundedNet, loss: str) -> tuple[Interval, ...]:
    """Return an interval for each layer that holds every entry of its dE/dW."""
    box = Box.full(net.features, net.inputs.low, net.inputs.high)
    bounds = gradient_bounds(name, net.layers, box, loss=loss)
    return tuple(Interval(float(b.low.min()), float(b.high.max())) for b in bounds)


def gradient_bounds(
    name: str,
    layers: Sequence[LayerBox],
    inputs: Box,
    *,
    loss: str = "cross_entropy",
    label: int | None = None,
) -> list[Box]:
    """Return a box that holds dE/dW for every layer, by interval arithmetic (Moore, 1966).

    It holds for every network whose parameters lie in the layers' boxes, for one input in the box,
    and for the mean over any number of such inputs. Interval arithmetic ignores that the same
    weight or signal appears twice: from the second layer on the true range may be narrower.

    Args:
        name: the activation.
        layers: the boxes of the parameters, the softmax layer last.
        inputs: a box [n_in].
        loss: "cross_entropy" or "half_squared".
        label: the true class, None for any.

    Returns:
        A box float64[n_in, n_out] for each layer.

    Raises:
        UserError: for an unknown activation or loss.
    """
    f, facts = activation(name), calculus(name)
    outputs, fields = [inputs], []
    for layer in layers:
        fields.append(outputs[-1] @ layer.weights + layer.biases)
        outputs.append(_image(f, facts, fields[-1]))
    error = _errors(fields[-1], loss, label)
    bounds = []
    for i in range(len(layers) - 1, -1, -1):
        below = outputs[i]
        column = Box(below.low[:, None], below.high[:, None])
        bounds.append(column * Box(error.low[None], error.high[None]))
        if i:
            error = _slopes(f, facts, fields[i - 1]) * (error @ layers[i].weights.transposed)
    return bounds[::-1]


def _image(f: Activation, facts: Calculus, v: Box) -> Box:
    """Return the box of f over v."""
    return _over(f.function, facts.turns, facts.range, v)


def _slopes(f: Activation, facts: Calculus, v: Box) -> Box:
    """Return the box of f' over v."""
    return _over(f.derivative, facts.slope_turns, facts.slope_range, v)


def _over(function: Function, turns: tuple[float, ...], whole: Interval, v: Box) -> Box:
    """Return the box of a function over v, which is met at v's ends or where the function turns."""
    import torch

    with torch.no_grad():
        at_ends = [function(torch.from_numpy(end)).numpy() for end in (v.low, v.high)]
        low, high = np.minimum(*at_ends), np.maximum(*at_ends)
        for turn in turns:
            value = function(torch.tensor(turn, dtype=torch.float64)).item()
            inside = (v.low <= turn) & (turn <= v.high)
            low = np.where(inside, np.minimum(low, value), low)
            high = np.where(inside, np.maximum(high, value), high)
    # An end at infinity may have no value, as GELU's -inf * 0; the whole range holds it.
    low = np.where(np.isnan(low), whole.low, low)
    high = np.where(np.isnan(high), whole.high, high)
    unit = 1 + np.minimum(np.maximum(np.abs(v.low), np.abs(v.high)), 1e300)
    return Box(low, high).widened(unit).clipped(whole.low, whole.high).widened()


def _softmax(logits: Box) -> Box:
    """Return the box of the softmax outputs.

    An output is least where its own logit is least and all others are greatest.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        low = np.exp(logits.high[None] - logits.low[:, None])
        high = np.exp(logits.low[None] - logits.high[:, None])
    np.fill_diagonal(low, 1.0)
    np.fill_diagonal(high, 1.0)
    return Box(1 / low.sum(1), 1 / high.sum(1)).widened().clipped(0, 1)


def _errors(logits: Box, loss: str, label: int | None) -> Box:
    """Return the box of dE/dlogits."""
    y = _softmax(logits)
    labels = range(len(y.low)) if label is None else [label]
    return reduce(Box.hull, (_errors_of(y, loss, some) for some in labels))


def _errors_of(y: Box, loss: str, label: int) -> Box:
    classes = len(y.low)
    true = error_range(loss, classes, true_class=True)
    other = error_range(loss, classes, true_class=False)
    target = np.zeros(classes)
    target[label] = 1
    error = (y + Box.points(-target)).clipped(-target, 1 - target)
    if loss == "half_squared":
        shares = y * error
        share = Box(shares.low.sum(keepdims=True), shares.high.sum(keepdims=True)).widened(1.0)
        error = y * (error + Box(-share.high, -share.low))
    low = np.where(target > 0, true.low, other.low)
    high = np.where(target > 0, true.high, other.high)
    return error.clipped(low, high).widened()
