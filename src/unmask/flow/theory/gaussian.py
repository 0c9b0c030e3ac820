"""Expectations of an activation function over one Gaussian, and over two correlated ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from unmask.errors import UserError
from unmask.models.activations import Activation, activation

Floats: TypeAlias = NDArray[np.float64]
Function: TypeAlias = Callable[[torch.Tensor], torch.Tensor]

TINY_Q, HUGE_Q = 1e-16, 1e8
"""The variances at which the limits q -> 0 and q -> infinity are taken."""

_LEAST_Q = 1e-280
_NODES_A_PANEL, _REACH, _FINEST = 16, 12, 16
_TERMS = 256
_SCAN_REACH, _SCAN_POINTS, _SCAN_HALVINGS = 20.0, 4000, 36


@dataclass(frozen=True)
class Nonlinearity:
    """An activation function phi, its derivative, and the jumps of either.

    Args:
        function: phi, elementwise on a float64 tensor of any shape.
        derivative: phi', likewise.
        jumps: the places other than 0 at which phi or phi' jumps, in increasing order.
    """

    function: Function
    derivative: Function
    jumps: tuple[float, ...]

    def sample(self, q: float | Floats) -> Samples:
        """Return phi and phi' at the nodes of a quadrature rule for v ~ N(0, q).

        Args:
            q: the variance or variances, float64[m], at least 0; only one for a phi with jumps away
                from 0, since each variance then needs its own rule.

        Returns:
            The samples, float64[m, nodes] each.
        """
        scale = np.sqrt(np.maximum(np.atleast_1d(np.asarray(q, np.float64)), _LEAST_Q))
        rule = _rule(tuple(jump / float(scale[0]) for jump in self.jumps))
        v = torch.from_numpy(scale[:, None] * rule.z)
        with torch.no_grad():
            value = self.function(v).numpy()
        return Samples(scale, rule, value, self.derivative(v).numpy())

    def expand(self, q: Floats) -> tuple[Series, Series]:
        """Return the Hermite series of phi and of phi' at the variances q, float64[m]."""
        if self.jumps and len(q) > 1:
            each = [self.expand(q[i : i + 1]) for i in range(len(q))]
            return Series.joined([a for a, _ in each]), Series.joined([b for _, b in each])
        samples = self.sample(q)
        return samples.series(samples.value), samples.series(samples.slope)


Phi: TypeAlias = str | Activation | Function | Nonlinearity
"""A name of the package's, an Activation, any elementwise torch callable, or a Nonlinearity."""


def nonlinearity(phi: Phi, derivative: Function | None = None) -> Nonlinearity:
    """Return an activation function with its derivative and its jumps between -20 and 20.

    Args:
        phi: the name of an activation, an Activation, an elementwise torch callable, or a
            Nonlinearity, which is returned unchanged.
        derivative: phi' of a callable; None computes it by autograd.

    Raises:
        UserError: for an unknown name, and for a callable that is not a deterministic elementwise
            function of a float64 tensor.
    """
    if isinstance(phi, Nonlinearity):
        return phi
    if isinstance(phi, str):
        phi = activation(phi)
    if isinstance(phi, Activation):
        return _of_activation(phi)
    function = phi
    _require_elementwise(function)
    slope = derivative or _autograd(function)
    return Nonlinearity(function, slope, _jumps(function, slope))


@dataclass(frozen=True)
class Samples:
    """phi and phi' at the nodes of a quadrature rule, for m variances.

    Args:
        scale: sqrt(q), float64[m].
        rule: the nodes z and their weights.
        value: phi(scale z), float64[m, nodes].
        slope: phi'(scale z), float64[m, nodes].
    """

    scale: Floats
    rule: Rule
    value: Floats
    slope: Floats

    def mean(self, values: Floats) -> Floats:
        """Return the expectation, float64[m], of a quantity given at the nodes."""
        return values @ self.rule.weights

    @property
    def square(self) -> Floats:
        """Return E[phi^2], float64[m]."""
        return self.mean(self.value**2)

    @property
    def slope_square(self) -> Floats:
        """Return E[phi'^2], float64[m]."""
        return self.mean(self.slope**2)

    def elasticity(self, values: Floats) -> Floats:
        """Return d ln E[f] / d ln q, float64[m], of a quantity f given at the nodes."""
        return self.mean(values * (self.rule.z**2 - 1)) / (2 * self.mean(values))

    @property
    def square_derivative(self) -> Floats:
        """Return d E[phi^2] / dq, float64[m]: E[phi phi' z] / sqrt(q)."""
        return self.mean(self.value * self.slope * self.rule.z) / self.scale

    def series(self, values: Floats) -> Series:
        """Return the Hermite series of a quantity given at the nodes."""
        weighted = values * self.rule.weights
        coefficients = weighted @ self.rule.hermite.T
        power = coefficients**2
        total = self.mean(values**2)
        mirrored = np.sum(weighted * values[:, ::-1], axis=1)
        signs = np.where(np.arange(_TERMS) % 2, -1.0, 1.0)
        remainder = np.maximum(total - power.sum(1), 0.0)
        earlier = np.maximum(total - power[:, : _TERMS // 2].sum(1), 0.0)
        return Series(
            coefficients=coefficients,
            remainder=remainder,
            mirrored_remainder=np.clip(mirrored - power @ signs, -remainder, remainder),
            # The remainder of k^-p after K terms falls by 2^(p-1) from K/2 to K: 1.4 for a jump,
            # where p = 3/2, and 2.8 for a kink, where p = 5/2.
            jumps=bool(earlier.sum() < 2 * remainder.sum()),
        )


@dataclass(frozen=True)
class Series:
    """A function's expansion in normalised Hermite polynomials, f(z) = sum over k of a_k he_k(z).

    Args:
        coefficients: a_k, float64[m, terms].
        remainder: the sum of a_k^2 beyond the last term, float64[m].
        mirrored_remainder: the sum of (-1)^k a_k^2 beyond the last term, float64[m].
        jumps: whether the a_k^2 of the remainder fall as k^-3/2, as for a function that jumps,
            rather than as k^-5/2, as for one with a kink.
    """

    coefficients: Floats
    remainder: Floats
    mirrored_remainder: Floats
    jumps: bool

    @staticmethod
    def joined(parts: list[Series]) -> Series:
        """Return the series of several functions as one."""
        return Series(
            np.concatenate([s.coefficients for s in parts]),
            np.concatenate([s.remainder for s in parts]),
            np.concatenate([s.mirrored_remainder for s in parts]),
            any(s.jumps for s in parts),
        )

    def products(self, c: Floats) -> Floats:
        """Return E[f_a(z) f_b(z')], where z and z' are standard normal with correlation c[a, b].

        It is the sum over k of a_k b_k c^k (Mehler 1866); the sum beyond the last term is
        approximated by an integral over k. The error is below 1e-6 E[f^2] for functions with kinks
        or jumps, and rounding for smooth ones.

        Args:
            c: the correlations, float64[m, m] in [-1, 1], or any matrix when m is 1.

        Returns:
            The expectations, float64 of c's shape.
        """
        a = self.coefficients
        peaks = np.flatnonzero(np.abs(a).max(0) > 1e-16 * np.abs(a).max())
        last = int(peaks[-1]) if len(peaks) else 0
        total = np.zeros(np.broadcast_shapes(c.shape, (len(a), len(a))))
        for k in range(last, -1, -1):
            total = total * c + np.outer(a[:, k], a[:, k])
        positive = np.sqrt(np.outer(self.remainder, self.remainder))
        roots = np.sqrt(np.abs(self.mirrored_remainder))
        negative = np.outer(np.sign(self.mirrored_remainder) * roots, roots)
        tail: Floats = np.where(c >= 0, positive, negative) * _tail_shape(np.abs(c), self.jumps)
        return total + tail


def _tail_shape(c: Floats, jumps: bool) -> Floats:
    """Return the sum of k^-p c^k over k >= terms, over that of k^-p, as integrals; p is 3/2 or 5/2.

    With t = -terms ln c it is (p - 1) E_p(t), where E_p is the exponential integral.
    """
    t = -_TERMS * np.log(np.maximum(c, 1e-300))
    complementary = torch.special.erfc(torch.from_numpy(np.sqrt(t))).numpy()
    after_jump = np.exp(-t) - np.sqrt(math.pi * t) * complementary
    shape: Floats = after_jump if jumps else np.exp(-t) - 2 * t * after_jump
    return np.maximum(shape, 0.0)


@dataclass(frozen=True)
class Rule:
    """Nodes and weights for E[f(z)] with z ~ N(0, 1), symmetric about 0.

    Args:
        z: the nodes, float64[nodes].
        weights: float64[nodes]; the sum of weights f(z) is the expectation.
    """

    z: Floats
    weights: Floats

    @cached_property
    def hermite(self) -> Floats:
        """The normalised Hermite polynomials at the nodes, float64[terms, nodes]."""
        h = np.ones((_TERMS, len(self.z)))
        h[1] = self.z
        for k in range(1, _TERMS - 1):
            h[k + 1] = (self.z * h[k] - math.sqrt(k) * h[k - 1]) / math.sqrt(k + 1)
        return h


@lru_cache(maxsize=64)
def _rule(jumps: tuple[float, ...]) -> Rule:
    """Return Gauss-Legendre panels that end at 0, at every jump and its mirror image, and at 12.

    The panels halve towards 0, so a steep function and its limit, a step, are integrated equally
    well; a Gauss-Hermite rule of the same size is off by several per cent for either.
    """
    ends = {float(k) for k in range(1, _REACH + 1)} | {2.0**-k for k in range(1, _FINEST + 1)}
    ends |= {abs(jump) for jump in jumps if 0 < abs(jump) < _REACH}
    half = sorted(ends)
    edges = np.array([*(-e for e in reversed(half)), 0.0, *half])
    x, w = np.polynomial.legendre.leggauss(_NODES_A_PANEL)
    centre, radius = (edges[1:] + edges[:-1])[:, None] / 2, np.diff(edges)[:, None] / 2
    z = (centre + radius * x).ravel()
    return Rule(z, (radius * w).ravel() * np.exp(-z * z / 2) / math.sqrt(2 * math.pi))


@lru_cache(maxsize=64)
def _of_activation(phi: Activation) -> Nonlinearity:
    return Nonlinearity(phi.function, phi.derivative, _jumps(phi.function, phi.derivative))


def _autograd(function: Function) -> Function:
    def derivative(v: torch.Tensor) -> torch.Tensor:
        with torch.enable_grad():
            v = v.detach().requires_grad_()
            (slope,) = torch.autograd.grad(function(v).sum(), v)
        return slope

    return derivative


def _require_elementwise(function: Any) -> None:
    # With this many points a random function can't repeat its values by chance.
    v = torch.linspace(-3, 3, 201, dtype=torch.float64).requires_grad_()
    try:
        value, part = function(v), function(v[:100])
        fits = value.shape == v.shape and value.dtype == v.dtype and value.requires_grad
        fits = fits and torch.allclose(value[:100], part, rtol=1e-9, atol=1e-12)
    except Exception as error:
        fits, value = False, f"{type(error).__name__}: {error}"
    if not fits:
        raise UserError(
            "an activation must be a deterministic function of each element of a float64 tensor",
            got=value if isinstance(value, str) else repr(function),
            do="give a callable such as torch.tanh, or a name of the package's",
        )


def _jumps(function: Function, derivative: Function) -> tuple[float, ...]:
    """Return where the function or its derivative jumps, other than at 0, in increasing order.

    Each interval of a grid is halved repeatedly towards the greater change: almost nothing of the
    change remains for a smooth function, and all of it for a jump.
    """
    found = set()
    grid = torch.linspace(-_SCAN_REACH, _SCAN_REACH, _SCAN_POINTS, dtype=torch.float64)
    for f in (function, derivative):
        low, high = grid[:-1].clone(), grid[1:].clone()
        with torch.no_grad():
            at_low, at_high = f(low), f(high)
            largest = at_low.abs().max()
            for _ in range(_SCAN_HALVINGS):
                middle = (low + high) / 2
                at_middle = f(middle)
                left = (at_middle - at_low).abs() >= (at_high - at_middle).abs()
                low, high = low.where(left, middle), middle.where(left, high)
                at_low, at_high = at_low.where(left, at_middle), at_middle.where(left, at_high)
        jump = (at_high - at_low).abs() > 1e-6 * largest
        found |= {round(float(v), 10) for v in high[jump]}
    return tuple(sorted(found - {0.0}))
