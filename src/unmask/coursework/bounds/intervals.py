"""Intervals of real numbers with open or closed ends, and boxes: arrays of intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]

_MARGIN = 16 * float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Interval:
    """All numbers between two ends.

    Args:
        low: the lower end, which may be -inf.
        high: the upper end, which may be inf.
        low_closed: whether low belongs to it.
        high_closed: whether high belongs to it.
    """

    low: float
    high: float
    low_closed: bool = True
    high_closed: bool = True

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise ValueError(f"an interval needs low <= high, not {self.low} and {self.high}")

    def __mul__(self, other: Interval) -> Interval:
        """Return the products of a number of this interval and a number of the other."""
        ends = [
            (_product(a, b), (closed and beside) or _zero(a, closed) or _zero(b, beside))
            for a, closed in self._ends()
            for b, beside in other._ends()
        ]
        low, high = min(v for v, _ in ends), max(v for v, _ in ends)
        return Interval(low, high, (low, True) in ends, (high, True) in ends)

    def __contains__(self, value: float) -> bool:
        """Return whether a number lies in it."""
        above = value > self.low or (self.low_closed and value == self.low)
        return above and (value < self.high or (self.high_closed and value == self.high))

    def __str__(self) -> str:
        return (
            f"{'[' if self.low_closed else '('}{shown(self.low)}, "
            f"{shown(self.high)}{']' if self.high_closed else ')'}"
        )

    def _ends(self) -> tuple[tuple[float, bool], tuple[float, bool]]:
        return (self.low, self.low_closed), (self.high, self.high_closed)


def shown(value: float) -> str:
    """Return a number with at most five significant digits, infinity as its sign."""
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    return f"{value:.5g}".replace("-", "−")


def _product(a: float, b: float) -> float:
    return 0.0 if a == 0 or b == 0 else a * b


def _zero(end: float, closed: bool) -> bool:
    return closed and end == 0


@dataclass(frozen=True)
class Box:
    """One closed interval for every element of an array.

    Results are widened by more than the rounding errors, so that values of the operands never leave
    the result.

    Args:
        low: float64 of any shape.
        high: float64 of the same shape, low <= high.
    """

    low: Floats
    high: Floats

    def __post_init__(self) -> None:
        if self.low.shape != self.high.shape or not (self.low <= self.high).all():
            raise ValueError("a box needs low <= high, of one shape")

    @staticmethod
    def full(shape: int | Sequence[int], low: float, high: float) -> Box:
        """Return the same interval for every element."""
        return Box(np.full(shape, float(low)), np.full(shape, float(high)))

    @staticmethod
    def points(values: Floats) -> Box:
        """Return intervals of one number each."""
        values = np.asarray(values, np.float64)
        return Box(values, values)

    @property
    def transposed(self) -> Box:
        """Return the box of the transposed matrix."""
        return Box(self.low.T, self.high.T)

    def widened(self, unit: float | Floats = 0.0) -> Box:
        """Return the box with its ends moved apart by rounding errors of numbers up to unit."""
        ends = []
        for end, way in ((self.low, -_MARGIN), (self.high, _MARGIN)):
            finite = np.isfinite(end)
            size = np.abs(end, where=finite, out=np.zeros_like(end)) + unit
            ends.append(np.where(finite, end + way * size, end))
        return Box(*ends)

    def clipped(self, low: float | Floats, high: float | Floats) -> Box:
        """Return the box with its ends moved into the interval from low to high."""
        return Box(np.clip(self.low, low, high), np.clip(self.high, low, high))

    def hull(self, other: Box) -> Box:
        """Return the smallest box that holds both."""
        return Box(np.minimum(self.low, other.low), np.maximum(self.high, other.high))

    def __contains__(self, values: Floats) -> bool:
        """Return whether every element lies in its interval."""
        return bool(((self.low <= values) & (values <= self.high)).all())

    def __add__(self, other: Box) -> Box:
        """Return the sums of independent elements."""
        return Box(self.low + other.low, self.high + other.high).widened()

    def __mul__(self, other: Box) -> Box:
        """Return the products of independent elements, with broadcasting."""
        with np.errstate(invalid="ignore", over="ignore"):
            products = [a * b for a in (self.low, self.high) for b in (other.low, other.high)]
        # 0 * inf: an end at infinity is never reached, and 0 times any number is 0.
        products = [np.where(np.isnan(p), 0.0, p) for p in products]
        return Box(np.minimum.reduce(products), np.maximum.reduce(products)).widened()

    def __matmul__(self, matrix: Box) -> Box:
        """Return the vector-matrix product [n] @ [n, m] of independent elements."""
        terms = Box(self.low[:, None], self.high[:, None]) * matrix
        # A sum of n terms is off by less than n ulps of the sum of their sizes.
        size = np.maximum(np.abs(terms.low), np.abs(terms.high)).sum(0)
        with np.errstate(invalid="ignore"):
            slack = len(self.low) * np.finfo(np.float64).eps * size
            low, high = terms.low.sum(0) - slack, terms.high.sum(0) + slack
        return Box(np.where(np.isnan(low), -np.inf, low), np.where(np.isnan(high), np.inf, high))
