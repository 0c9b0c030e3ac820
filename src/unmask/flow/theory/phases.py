"""Signals and gradients in an infinitely wide random network, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from unmask.errors import UserError
from unmask.flow.theory.gaussian import (
    HUGE_Q,
    TINY_Q,
    Floats,
    Nonlinearity,
    Phi,
    nonlinearity,
)

TRAINABLE_SCALES = 6.0
"""Schoenholz et al. 2017: nets deeper than about 6 xi_c don't train."""

_SAME, _CRITICAL, _AT_LIMIT, _ROUNDING = 1e-9, 1e-6, 1e-3, 1e-12
_SMALL_Q = 1e-6
_STEPS_A_DECADE, _HALVINGS = 8, 50
_SECTIONS, _SECTION_POINTS = 6, 129


@dataclass(frozen=True)
class Phase:
    """Mean-field theory for weights N(0, sigma_w2 / fan_in) and biases N(0, sigma_b2).

    Args:
        sigma_w2: the variance of a weight times fan_in, at least 0.
        sigma_b2: the variance of a bias, at least 0.
        q_star: the variance of the pre-activations deep in the network; inf where it grows without
            bound.
        chi_1: the factor for each layer on the mean square of a gradient, and on a small distance
            between two images.
        c_star: the correlation to which that of any two images converges.
        xi_c: the scale of that convergence, in layers; inf at criticality. Where q_star is inf, the
            scale on which signal and gradient grow.
        xi_q: the scale on which the variance converges to q_star, in layers; inf where it doesn't
            converge exponentially.
    """

    sigma_w2: float
    sigma_b2: float
    q_star: float
    chi_1: float
    c_star: float
    xi_c: float
    xi_q: float

    @property
    def name(self) -> str:
        """Return "ordered" (gradients vanish), "critical", or "chaotic" (gradients explode)."""
        if abs(self.chi_1 - 1) <= _CRITICAL:
            return "critical"
        return "ordered" if self.chi_1 < 1 else "chaotic"

    @property
    def trainable_depth(self) -> float:
        """Return 6 xi_c, about the depth of the deepest network that trains."""
        return TRAINABLE_SCALES * self.xi_c


def variance_map(phi: Phi, q: float, sigma_w2: float, sigma_b2: float) -> float:
    """Return sigma_w2 E[phi(sqrt(q) z)^2] + sigma_b2, the variance of the next layer.

    Poole et al. 2016, equation 3.

    Args:
        phi: the activation function, see nonlinearity.
        q: the variance of this layer's pre-activations, at least 0.
        sigma_w2: the variance of a weight times fan_in.
        sigma_b2: the variance of a bias.
    """
    return sigma_w2 * float(nonlinearity(phi).sample(q).square[0]) + sigma_b2


def chi(phi: Phi, q: float, sigma_w2: float) -> float:
    """Return sigma_w2 E[phi'(sqrt(q) z)^2], which is chi_1 when q is q_star.

    Poole et al. 2016, equation 7.

    Args:
        phi: the activation function, see nonlinearity.
        q: the variance of the pre-activations, at least 0.
        sigma_w2: the variance of a weight times fan_in.
    """
    return sigma_w2 * float(nonlinearity(phi).sample(q).slope_square[0])


def correlation_map(phi: Phi, q: float, c: Floats, sigma_w2: float, sigma_b2: float) -> Floats:
    """Return the correlations of images in the next layer.

    Poole et al. 2016, equation 5, divided by the next layer's variance, so that 1 always maps to 1.

    Args:
        phi: the activation function, see nonlinearity.
        q: the variance of the pre-activations of either image, at least 0.
        c: the correlations in this layer, float64[m] in [-1, 1].
        sigma_w2: the variance of a weight times fan_in.
        sigma_b2: the variance of a bias.

    Returns:
        float64[m] in [-1, 1].
    """
    values, _ = nonlinearity(phi).expand(np.array([q]))
    both = np.append(np.asarray(c, np.float64), 1.0)
    covariance: Floats = sigma_w2 * values.products(both[None])[0] + sigma_b2
    return covariance[:-1] / covariance[-1] if covariance[-1] > 0 else np.ones(len(c))


def gradient_ratio(
    phi: Phi, depth: int, sigma_w2: float, sigma_b2: float = 0.0, *, input_square: float = 1.0
) -> float:
    """Return the predicted factor on a gradient's RMS from above `depth` layers to below them.

    It is the square root of the product of chi_l over the layers (Schoenholz et al. 2017, equation
    19).

    Args:
        phi: the activation function, see nonlinearity.
        depth: the number of layers.
        sigma_w2: the variance of a weight times fan_in.
        sigma_b2: the variance of a bias.
        input_square: the mean square of the inputs, from which the variances of the layers follow.

    Returns:
        The factor, at least 0; inf where it is too large for a float.
    """
    phi = nonlinearity(phi)
    q, logarithm = sigma_w2 * input_square + sigma_b2, 0.0
    for _ in range(depth):
        samples = phi.sample(min(q, HUGE_Q))
        factor = sigma_w2 * float(samples.slope_square[0])
        if factor == 0:
            return 0.0
        logarithm += math.log(factor)
        q = sigma_w2 * float(samples.square[0]) + sigma_b2
    return math.exp(logarithm / 2) if logarithm < 1400 else math.inf


def phase(phi: Phi, sigma_w2: float, sigma_b2: float = 0.0, *, start: float = 1.0) -> Phase:
    """Return the fixed points, chi_1 and depth scales of a random network.

    Poole et al. 2016; Schoenholz et al. 2017, equations 9 and 10.

    Args:
        phi: the activation function, see nonlinearity.
        sigma_w2: the variance of a weight times fan_in, finite and at least 0.
        sigma_b2: the variance of a bias, finite and at least 0.
        start: the variance, above 0, from which q_star is approached; it matters where there are
            several fixed points or, as for ReLU at (2, 0), every variance is a fixed point.

    Returns:
        The phase. Where the variance grows without bound, q_star is inf, and chi_1 and c_star are
        limits.

    Raises:
        UserError: for variances below 0 or not finite.
    """
    for name, value in (("sigma_w2", sigma_w2), ("sigma_b2", sigma_b2)):
        if not 0 <= value < math.inf:
            raise UserError(f"{name} must be a variance", got=value, do="give 0 or more")
    phi = nonlinearity(phi)
    q_star = _fixed_variance(phi, sigma_w2, sigma_b2, start)
    q = min(max(q_star, TINY_Q), HUGE_Q)
    samples = phi.sample(q)
    chi_1 = sigma_w2 * float(samples.slope_square[0])
    response = sigma_w2 * float(samples.square_derivative[0])
    c_star = _fixed_correlation(phi, q, chi_1, sigma_w2, sigma_b2)
    return Phase(
        sigma_w2,
        sigma_b2,
        q_star,
        chi_1,
        c_star,
        _correlation_scale(phi, q_star, chi_1, c_star, sigma_w2),
        _scale(abs(response)),
    )


def critical_sigma_w2(phi: Phi, sigma_b2: float = 0.0) -> float | None:
    """Return the sigma_w2 with chi_1 = 1 at a stable q_star, or None where there is none.

    On the critical line sigma_w2 = 1 / E[phi'^2] and sigma_b2 = q - E[phi^2] / E[phi'^2] depend on
    q alone, so the result is a root in q, the smallest stable one. ReLU and similar functions are
    critical at sigma_b2 = 0 only; softplus nowhere; GELU and SiLU only where sigma_b2 is large
    enough.

    Args:
        phi: the activation function, see nonlinearity.
        sigma_b2: the variance of a bias, at least 0.
    """
    phi = nonlinearity(phi)

    def excess(q: float) -> float:
        """Return (sigma_b2 of the critical line at q - the sigma_b2 wanted) / q."""
        samples = phi.sample(q)
        slope_square = float(samples.slope_square[0])
        if slope_square == 0:
            return -math.inf
        return 1 - (float(samples.square[0]) / slope_square + sigma_b2) / q

    grid = _grid(TINY_Q, HUGE_Q)
    values = [excess(q) for q in grid]
    if max(map(abs, values)) < _SAME:
        return 1 / chi(phi, 1.0, 1.0)
    if abs(values[0]) < _CRITICAL:
        limit = 1 / chi(phi, TINY_Q, 1.0)
        if variance_map(phi, _SMALL_Q, limit, 0.0) <= _SMALL_Q * (1 + _SAME):
            return limit
    for i in range(len(grid) - 1):
        if values[i] * values[i + 1] < 0 and max(abs(values[i]), abs(values[i + 1])) > _SAME:
            q = _bisect(excess, grid[i], grid[i + 1])
            sigma_w2 = 1 / chi(phi, q, 1.0)
            if sigma_w2 * float(phi.sample(q).square_derivative[0]) < 1:
                return sigma_w2
    return None


def _fixed_variance(phi: Nonlinearity, sigma_w2: float, sigma_b2: float, start: float) -> float:
    """Return the first fixed point that the variance map reaches from start."""

    def growth(q: float) -> float:
        return variance_map(phi, q, sigma_w2, sigma_b2) / q - 1

    first = growth(start)
    if abs(first) < _SAME:
        return start
    way, limit, end = (1, HUGE_Q, math.inf) if first > 0 else (-1, TINY_Q, 0.0)
    q = start
    for further in _grid(start, limit)[1:]:
        here = growth(further)
        if not math.isfinite(here):
            return math.inf
        if way * here < -_ROUNDING:
            return _bisect(growth, q, further)
        q = further
    return end


def _fixed_correlation(
    phi: Nonlinearity, q: float, chi_1: float, sigma_w2: float, sigma_b2: float
) -> float:
    """Return the stable fixed point in [0, 1] of the correlation map.

    The map is a power series in c with no negative coefficient, hence convex: 1 is stable where the
    slope there is at most 1; otherwise there is exactly one other fixed point, which is stable.
    """
    values, _ = phi.expand(np.array([q]))
    variance = sigma_w2 * float(phi.sample(q).square[0]) + sigma_b2
    tolerance = _AT_LIMIT if q >= HUGE_Q else _CRITICAL
    if chi_1 * q <= variance * (1 + tolerance):
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(_SECTIONS):
        c = np.linspace(low, high, _SECTION_POINTS)
        above = (sigma_w2 * values.products(c[None])[0] + sigma_b2) / variance >= c
        above[-1] = False
        last = int(np.argmin(above)) - 1
        low, high = float(c[max(last, 0)]), float(c[max(last, 0) + 1])
    return low


def _correlation_scale(
    phi: Nonlinearity, q_star: float, chi_1: float, c_star: float, sigma_w2: float
) -> float:
    if math.isinf(q_star) and chi_1 > 1:
        return 1 / math.log(chi_1) if chi_1 - 1 > _SAME else math.inf
    if c_star == 1:
        return _scale(chi_1)
    _, slopes = phi.expand(np.array([q_star]))
    return _scale(sigma_w2 * float(slopes.products(np.array([[c_star]]))[0, 0]))


def _scale(factor: float) -> float:
    """Return the number of layers in which a quantity falls by e, multiplied by factor in each."""
    if factor <= 0:
        return 0.0
    return -1 / math.log(factor) if factor < 1 - _SAME else math.inf


def _grid(start: float, end: float) -> list[float]:
    steps = max(1, math.ceil(_STEPS_A_DECADE * abs(math.log10(end / start))))
    return [float(q) for q in np.geomspace(start, end, steps + 1)]


def _bisect(f: Callable[[float], float], low: float, high: float) -> float:
    """Return where f changes sign between two positive numbers, halving their ratio."""
    sign = f(low) > 0
    for _ in range(_HALVINGS):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if (f(middle) > 0) == sign else (low, middle)
    return math.sqrt(low * high)
