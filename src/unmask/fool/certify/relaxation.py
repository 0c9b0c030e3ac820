"""Straight lines below and above an activation function over an interval.

A slope may be any number: the offset that makes a line of that slope sound is computed for it, so
slopes can be optimised by gradient and the lines stay sound at every step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from unmask.models.activations import ACTIVATIONS, Activation

# Cells, on each side of zero, of the grid on which a smooth function's offsets are searched.
_CELLS = 24
_TINY = 1e-12


@dataclass(frozen=True)
class Lines:
    """Lines with below <= f <= above on [lower, upper], each tensor of the interval's shape.

    Args:
        lower_slope, lower_offset: f(x) >= lower_slope x + lower_offset.
        upper_slope, upper_offset: f(x) <= upper_slope x + upper_offset.
    """

    lower_slope: Tensor
    lower_offset: Tensor
    upper_slope: Tensor
    upper_offset: Tensor


@dataclass(frozen=True)
class Curve:
    """An activation function, with the facts that its lines follow from.

    Args:
        activation: the function and its derivative's range.
        kink: the slopes (left, right) of a function of two straight pieces that meet in (0, 0);
            None for any other.
        knots: where any other function's derivative jumps, but for zero.
        curvature: the supremum of |f''| between zero and the knots; 0 for straight pieces.
        rising: whether f never falls.
    """

    activation: Activation
    kink: tuple[float, float] | None = None
    knots: tuple[float, ...] = ()
    curvature: float = 0.0
    rising: bool = True

    def image(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """Return bounds of f on [lower, upper]."""
        f = self.activation.function
        if self.rising:
            return f(lower), f(upper)
        flat = torch.zeros_like(lower)
        return self.offset(flat, lower, upper, above=False), self.offset(
            flat, lower, upper, above=True
        )

    def lines(self, lower: Tensor, upper: Tensor) -> Lines:
        """Return lines over [lower, upper] that leave little room between them.

        For a kink these are DeepPoly's (Singh et al., 2019): the chord above, and below whichever
        of the two pieces leaves the smaller triangle. For a smooth function each is, of the chord
        and a few tangents, the best at the interval's middle.

        Args:
            lower: float of any shape.
            upper: of the same shape, at least lower.
        """
        if self.kink is not None:
            return self._kinked(lower, upper)
        f, df = self.activation.function, self.activation.derivative
        width = (upper - lower).clamp(min=_TINY)
        middle = (lower + upper) / 2
        slopes = [(f(upper) - f(lower)) / width]
        slopes += [df(lower + part * (upper - lower)) for part in (0.0, 0.25, 0.5, 0.75, 1.0)]
        found = []
        for above in (False, True):
            best_slope = slopes[0]
            best = self.offset(best_slope, lower, upper, above=above)
            for slope in slopes[1:]:
                offset = self.offset(slope, lower, upper, above=above)
                gain = (offset + slope * middle) - (best + best_slope * middle)
                better = gain < 0 if above else gain > 0
                best_slope = torch.where(better, slope, best_slope)
                best = torch.where(better, offset, best)
            found += [best_slope, best]
        return Lines(*found)

    def steepest(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """Return the lowest and the highest slope that is searched for a lower line."""
        a = self.activation
        least, most = a.derivative_min, a.derivative_max
        if self.kink is None:
            return torch.full_like(lower, least), torch.full_like(lower, most)
        left, right = self.kink
        # A stable unit has one slope.
        return (
            torch.where(lower >= 0, right, left) + torch.zeros_like(lower),
            torch.where(upper <= 0, left, right) + torch.zeros_like(lower),
        )

    def offset(self, slope: Tensor, lower: Tensor, upper: Tensor, *, above: bool) -> Tensor:
        """Return the offset that makes a line of this slope sound on [lower, upper].

        Args:
            slope, lower, upper: of one shape.
            above: whether the line runs above f.

        Returns:
            The smallest b with f(x) <= slope x + b, or the largest with f(x) >= slope x + b, which
            a piecewise linear function has at an end or a knot; for a smooth function up to the
            grid's error. That error is bounded by curvature * cell^2 / 8, which is added, so that
            the line is sound.
        """
        f = self.activation.function

        def gap(x: Tensor) -> Tensor:
            return f(x) - slope * x

        zero = torch.zeros_like(lower)
        ends = [gap(lower), gap(upper), gap(torch.minimum(torch.maximum(zero, lower), upper))]
        values = torch.stack(ends)
        slack: Tensor | float = 0.0
        if self.knots:
            inside = [zero.add(knot).maximum(lower).minimum(upper) for knot in self.knots]
            values = torch.cat([values, torch.stack([gap(x) for x in inside])])
        if self.curvature:
            parts = torch.arange(1, _CELLS, device=lower.device, dtype=lower.dtype) / _CELLS
            parts = parts.reshape(-1, *[1] * lower.ndim)
            cells = []
            inner = [values]
            for low, high in (
                (lower.clamp(max=0), upper.clamp(max=0)),
                (lower.clamp(min=0), upper.clamp(min=0)),
            ):
                # A side that the interval doesn't reach collapses onto the nearer end.
                points = low + parts * (high - low)
                inner.append(gap(torch.minimum(torch.maximum(points, lower), upper)))
                cells.append((high - low) / _CELLS)
            values = torch.cat(inner)
            slack = self.curvature * torch.maximum(*cells) ** 2 / 8
        return values.amax(0) + slack if above else values.amin(0) - slack

    def _kinked(self, lower: Tensor, upper: Tensor) -> Lines:
        assert self.kink is not None
        left, right = self.kink
        f = self.activation.function
        chord = (f(upper) - f(lower)) / (upper - lower).clamp(min=_TINY)
        chord = torch.where(lower >= 0, right, torch.where(upper <= 0, left, chord))
        near = torch.where(upper >= -lower, right, left) + torch.zeros_like(lower)
        near = torch.where(lower >= 0, right, torch.where(upper <= 0, left, near))
        # If the left piece is flatter, the function is convex: chord above, piece below.
        low, high = (near, chord) if right >= left else (chord, near)
        return Lines(
            low,
            self.offset(low, lower, upper, above=False),
            high,
            self.offset(high, lower, upper, above=True),
        )


def piecewise(left: float, right: float) -> Curve:
    """Return the function left x below zero and right x above it, where right is positive."""

    def function(x: Tensor) -> Tensor:
        if left == 0:
            return right * x.relu() if right != 1 else x.relu()
        if left == -right:
            return right * x.abs()
        return functional.leaky_relu(right * x, left / right)

    def derivative(x: Tensor) -> Tensor:
        return torch.where(x > 0, right, left) + torch.zeros_like(x)

    activation = Activation(
        "piecewise", "piecewise", function, derivative, min(left, right), max(left, right)
    )
    return Curve(activation, kink=(left, right), rising=min(left, right) >= 0)


def smooth(name: str) -> Curve:
    """Return an activation of models.activations, which must be in CURVATURES, by its name."""
    return Curve(ACTIVATIONS[name], curvature=CURVATURES[name], rising=name not in _FALLING)


def bent(function: Callable[[Tensor], Tensor], knots: tuple[float, ...], steepest: float) -> Curve:
    """Return a continuous function of straight pieces that never falls.

    Args:
        function: elementwise.
        knots: where its pieces meet, from left to right.
        steepest: the largest slope.
    """
    activation = Activation("bent", "bent", function, _slope(function), 0.0, steepest)
    return Curve(activation, knots=knots)


def curved(
    function: Callable[[Tensor], Tensor],
    least: float,
    most: float,
    curvature: float,
    knots: tuple[float, ...] = (),
) -> Curve:
    """Return a function with a second derivative between zero and the knots.

    Args:
        function: elementwise.
        least: the infimum of its derivative, or less.
        most: the supremum of its derivative, or more.
        curvature: the supremum of |f''| between them, or more.
        knots: where its derivative jumps, but for zero.
    """
    activation = Activation("curved", "curved", function, _slope(function), least, most)
    return Curve(activation, knots=knots, curvature=curvature, rising=least >= 0)


def _slope(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    # Only where tangents are tried: a line of any slope is made sound by its offset.
    return lambda x: (function(x + _STEP) - function(x - _STEP)) / (2 * _STEP)


_STEP = 1e-4
_FALLING = ("gelu", "silu")
# Suprema of |f''| on each side of zero, rounded up: from the closed form where there is one, else
# numerically.
CURVATURES = {
    "tanh": 4 / (3 * math.sqrt(3)) + 1e-9,
    "sigmoid": 1 / (6 * math.sqrt(3)) + 1e-9,
    "softplus": 0.25,
    "elu": 1.0,
    "selu": 1.7581 + 1e-3,
    "gelu": math.sqrt(2 / math.pi) + 1e-9,
    "silu": 0.5,
    "erf": 2 * math.sqrt(2 / (math.pi * math.e)) + 1e-9,
    "lecun": 1.7159 * (2 / 3) ** 2 * 4 / (3 * math.sqrt(3)) + 1e-9,
}
