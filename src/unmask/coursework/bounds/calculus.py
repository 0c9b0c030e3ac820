"""Formulas, ranges and extrema of every activation function.

Formulas are Python expressions in x, so that they can be evaluated as well as typeset. Beside the
usual names, phi and Phi are the normal density and distribution function, sigma is the logistic
function, lam and alpha are SELU's constants. A place is a condition in such expressions, "a -> b"
for a limit and "a -> b-" for one from below; approx(a, b) means that a is nearly b.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from unmask.coursework.bounds.intervals import Interval
from unmask.errors import unknown
from unmask.models.activations import SELU_ALPHA, SELU_SCALE


@dataclass(frozen=True)
class Extremum:
    """The infimum or supremum of a function, and where it is attained or approached.

    Args:
        value: the number.
        expression: the value as a formula.
        place: where, as a condition.
        near: a number at which the function is within 1e-7 of the value, or infinite with the
            limit.
        attained: whether it is a minimum or maximum, and not only approached.
    """

    value: float
    expression: str
    place: str
    near: float
    attained: bool = True


@dataclass(frozen=True)
class Calculus:
    """An activation function f and its derivative f': formulas, extrema and turning points.

    Args:
        name: as in ACTIVATIONS.
        formula: of f.
        slope_formula: of f'.
        low: the infimum of f.
        high: the supremum of f.
        slope_low: the infimum of f'.
        slope_high: the supremum of f'.
        turns: where f turns.
        slope_turns: where f' turns.
    """

    name: str
    formula: str
    slope_formula: str
    low: Extremum
    high: Extremum
    slope_low: Extremum
    slope_high: Extremum
    turns: tuple[float, ...] = ()
    slope_turns: tuple[float, ...] = ()

    @property
    def range(self) -> Interval:
        """The range of f."""
        return _between(self.low, self.high)

    @property
    def slope_range(self) -> Interval:
        """The narrowest interval that holds every value of f'."""
        return _between(self.slope_low, self.slope_high)

    @property
    def lipschitz(self) -> Extremum:
        """The smallest L with |f(a) - f(b)| <= L |a - b|, the supremum of |f'|."""
        low, high = self.slope_low, self.slope_high
        return high if abs(high.value) >= abs(low.value) else low


def calculus(name: str) -> Calculus:
    """Return the formulas and extrema of an activation.

    Args:
        name: a key of CALCULUS.

    Raises:
        UserError: for an unknown name.
    """
    if name not in CALCULUS:
        raise unknown("activation", name, CALCULUS)
    return CALCULUS[name]


def _between(low: Extremum, high: Extremum) -> Interval:
    return Interval(low.value, high.value, low.attained, high.attained)


def _limit(value: float, expression: str, place: str, near: float) -> Extremum:
    return Extremum(value, expression, place, near, attained=False)


_NEVER_LOW = _limit(-math.inf, "-inf", "x -> -inf", -math.inf)
_NEVER_HIGH = _limit(math.inf, "inf", "x -> inf", math.inf)
_FLAT_FAR = _limit(0.0, "0", "abs(x) -> inf", math.inf)
_FLAT_LEFT = _limit(0.0, "0", "x -> -inf", -math.inf)

# SiLU and GELU are least where their slopes are 0, and SiLU is steepest where x tanh(x/2) = 2.
_GELU_LEAST, _SILU_LEAST, _SILU_STEEPEST = (
    -0.7517915246935644,
    -1.2784645427610735,
    2.3993572805154675,
)

CALCULUS: dict[str, Calculus] = {
    c.name: c
    for c in (
        Calculus(
            "relu",
            "x if x > 0 else 0",
            "1 if x > 0 else 0",
            Extremum(0.0, "0", "x <= 0", -1.0),
            _NEVER_HIGH,
            Extremum(0.0, "0", "x < 0", -1.0),
            Extremum(1.0, "1", "x > 0", 1.0),
        ),
        Calculus(
            "leaky_relu",
            "x if x > 0 else 0.01*x",
            "1 if x > 0 else 0.01",
            _NEVER_LOW,
            _NEVER_HIGH,
            Extremum(0.01, "0.01", "x < 0", -1.0),
            Extremum(1.0, "1", "x > 0", 1.0),
        ),
        Calculus(
            "elu",
            "x if x > 0 else exp(x) - 1",
            "1 if x > 0 else exp(x)",
            _limit(-1.0, "-1", "x -> -inf", -math.inf),
            _NEVER_HIGH,
            _FLAT_LEFT,
            Extremum(1.0, "1", "x >= 0", 1.0),
        ),
        Calculus(
            "selu",
            "lam*x if x > 0 else lam*alpha*(exp(x) - 1)",
            "lam if x > 0 else lam*alpha*exp(x)",
            _limit(-SELU_SCALE * SELU_ALPHA, "-lam*alpha", "x -> -inf", -math.inf),
            _NEVER_HIGH,
            _FLAT_LEFT,
            _limit(SELU_SCALE * SELU_ALPHA, "lam*alpha", "x -> 0-", -1e-9),
            slope_turns=(0.0,),
        ),
        Calculus(
            "gelu",
            "x*Phi(x)",
            "Phi(x) + x*phi(x)",
            Extremum(
                -0.16997120747990369, "-0.16997120747990369", "approx(x, -0.75179)", _GELU_LEAST
            ),
            _NEVER_HIGH,
            Extremum(
                -0.12890414518515492,
                "Phi(-sqrt(2)) - sqrt(2)*phi(sqrt(2))",
                "x == -sqrt(2)",
                -math.sqrt(2),
            ),
            Extremum(
                1.128904145185155,
                "Phi(sqrt(2)) + sqrt(2)*phi(sqrt(2))",
                "x == sqrt(2)",
                math.sqrt(2),
            ),
            turns=(_GELU_LEAST,),
            slope_turns=(-math.sqrt(2), math.sqrt(2)),
        ),
        Calculus(
            "silu",
            "x*sigma(x)",
            "sigma(x)*(1 + x*sigma(-x))",
            Extremum(
                -0.27846454276107385, "-0.27846454276107385", "approx(x, -1.27846)", _SILU_LEAST
            ),
            _NEVER_HIGH,
            Extremum(
                -0.09983932012886694, "-0.09983932012886694", "approx(x, -2.39936)", -_SILU_STEEPEST
            ),
            Extremum(
                1.0998393201288672, "1.0998393201288672", "approx(x, 2.39936)", _SILU_STEEPEST
            ),
            turns=(_SILU_LEAST,),
            slope_turns=(-_SILU_STEEPEST, _SILU_STEEPEST),
        ),
        Calculus(
            "softplus",
            "log(1 + exp(x))",
            "sigma(x)",
            _limit(0.0, "0", "x -> -inf", -math.inf),
            _NEVER_HIGH,
            _FLAT_LEFT,
            _limit(1.0, "1", "x -> inf", math.inf),
        ),
        Calculus(
            "tanh",
            "tanh(x)",
            "1 - tanh(x)**2",
            _limit(-1.0, "-1", "x -> -inf", -math.inf),
            _limit(1.0, "1", "x -> inf", math.inf),
            _FLAT_FAR,
            Extremum(1.0, "1", "x == 0", 0.0),
            slope_turns=(0.0,),
        ),
        Calculus(
            "sigmoid",
            "1/(1 + exp(-x))",
            "sigma(x)*(1 - sigma(x))",
            _limit(0.0, "0", "x -> -inf", -math.inf),
            _limit(1.0, "1", "x -> inf", math.inf),
            _FLAT_FAR,
            Extremum(0.25, "1/4", "x == 0", 0.0),
            slope_turns=(0.0,),
        ),
        Calculus(
            "lecun",
            "1.7159*tanh(2*x/3) + 0.01*x",
            "1.7159*(2/3)*(1 - tanh(2*x/3)**2) + 0.01",
            _NEVER_LOW,
            _NEVER_HIGH,
            _limit(0.01, "0.01", "abs(x) -> inf", math.inf),
            Extremum(1.7159 * (2 / 3) + 0.01, "1.7159*(2/3) + 0.01", "x == 0", 0.0),
            slope_turns=(0.0,),
        ),
        Calculus(
            "erf",
            "erf(x)",
            "2/sqrt(pi)*exp(-x**2)",
            _limit(-1.0, "-1", "x -> -inf", -math.inf),
            _limit(1.0, "1", "x -> inf", math.inf),
            _FLAT_FAR,
            Extremum(2 / math.sqrt(math.pi), "2/sqrt(pi)", "x == 0", 0.0),
            slope_turns=(0.0,),
        ),
        Calculus(
            "linear",
            "x",
            "1",
            _NEVER_LOW,
            _NEVER_HIGH,
            Extremum(1.0, "1", "abs(x) < inf", 0.0),
            Extremum(1.0, "1", "abs(x) < inf", 0.0),
        ),
    )
}
