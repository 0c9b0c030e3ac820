"""The activation functions Unmask knows, each with its derivative and the derivative's range.

Functions are written with tensor methods, so they run on any device, in any precision and under
autograd, and this module needs no torch of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unmask.errors import unknown
from unmask.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

LEAKY_SLOPE = 0.01
SELU_SCALE = 1.0507009873554804934193349852946
SELU_ALPHA = 1.6732632423543772848170429916717
LECUN_SCALE, LECUN_STRETCH, LECUN_TWIST = 1.7159, 2.0 / 3.0, 0.01


@dataclass(frozen=True)
class Activation:
    """An activation function f with its derivative.

    Args:
        name: by which it is looked up.
        title: for figures and tables.
        function: f, elementwise on a tensor of any shape.
        derivative: f', likewise.
        derivative_min: the infimum of f'.
        derivative_max: the supremum of f'.
    """

    name: str
    title: str
    function: Callable[[Tensor], Tensor]
    derivative: Callable[[Tensor], Tensor]
    derivative_min: float
    derivative_max: float

    @property
    def lipschitz(self) -> float:
        """The smallest L with |f(a) - f(b)| <= L |a - b|: the supremum of |f'|."""
        return max(abs(self.derivative_min), abs(self.derivative_max))


def _normal_cdf(x: Tensor) -> Tensor:
    return 0.5 * (1 + (x * math.sqrt(0.5)).erf())


def _normal_pdf(x: Tensor) -> Tensor:
    return (-0.5 * x * x).exp() / math.sqrt(2 * math.pi)


def _step(x: Tensor) -> Tensor:
    return (x > 0).to(x.dtype)


def _elu(x: Tensor) -> Tensor:
    return x.where(x > 0, x.clamp(max=0).expm1())


def _silu_derivative(x: Tensor) -> Tensor:
    s = x.sigmoid()
    return s * (1 + x * (1 - s))


def _lecun(x: Tensor) -> Tensor:
    return LECUN_SCALE * (LECUN_STRETCH * x).tanh() + LECUN_TWIST * x


def _lecun_derivative(x: Tensor) -> Tensor:
    t = (LECUN_STRETCH * x).tanh()
    return LECUN_SCALE * LECUN_STRETCH * (1 - t * t) + LECUN_TWIST


# The extrema of GELU' lie where its derivative (2 - x^2) pdf(x) is 0; SiLU's have no closed form.
_GELU_MAX = 0.5 * (1 + math.erf(1.0)) + math.sqrt(2) * math.exp(-1) / math.sqrt(2 * math.pi)
_SILU_MAX = 1.0998393201288669

ACTIVATIONS: Registry[Activation] = Registry(
    "activation",
    {
        a.name: a
        for a in (
            Activation("relu", "ReLU", lambda x: x.relu(), _step, 0.0, 1.0),
            Activation(
                "leaky_relu",
                "Leaky ReLU",
                lambda x: x.where(x > 0, LEAKY_SLOPE * x),
                lambda x: LEAKY_SLOPE + (1 - LEAKY_SLOPE) * _step(x),
                LEAKY_SLOPE,
                1.0,
            ),
            Activation("elu", "ELU", _elu, lambda x: x.clamp(max=0).exp(), 0.0, 1.0),
            Activation(
                "selu",
                "SELU",
                lambda x: SELU_SCALE * x.where(x > 0, SELU_ALPHA * x.clamp(max=0).expm1()),
                lambda x: (
                    SELU_SCALE * x.new_ones(()).where(x > 0, SELU_ALPHA * x.clamp(max=0).exp())
                ),
                0.0,
                SELU_SCALE * SELU_ALPHA,
            ),
            Activation(
                "gelu",
                "GELU",
                lambda x: x * _normal_cdf(x),
                lambda x: _normal_cdf(x) + x * _normal_pdf(x),
                1 - _GELU_MAX,
                _GELU_MAX,
            ),
            Activation(
                "silu",
                "SiLU",
                lambda x: x * x.sigmoid(),
                _silu_derivative,
                1 - _SILU_MAX,
                _SILU_MAX,
            ),
            Activation(
                "softplus",
                "Softplus",
                lambda x: x.logaddexp(x.new_zeros(())),
                lambda x: x.sigmoid(),
                0.0,
                1.0,
            ),
            Activation("tanh", "tanh", lambda x: x.tanh(), lambda x: 1 - x.tanh() ** 2, 0.0, 1.0),
            Activation(
                "sigmoid",
                "Sigmoid",
                lambda x: x.sigmoid(),
                lambda x: x.sigmoid() * (-x).sigmoid(),
                0.0,
                0.25,
            ),
            Activation(
                "lecun",
                "LeCun",
                _lecun,
                _lecun_derivative,
                LECUN_TWIST,
                LECUN_SCALE * LECUN_STRETCH + LECUN_TWIST,
            ),
            Activation(
                "erf",
                "erf",
                lambda x: x.erf(),
                lambda x: 2 / math.sqrt(math.pi) * (-x * x).exp(),
                0.0,
                2 / math.sqrt(math.pi),
            ),
            Activation(
                "linear", "Linear", lambda x: x, lambda x: x.new_ones(()).expand_as(x), 1.0, 1.0
            ),
        )
    },
)

# The activations that the C++ kernel has too, in the order of its enum.
IN_KERNEL = (
    *("relu", "leaky_relu", "elu", "selu", "gelu", "silu"),
    *("softplus", "tanh", "sigmoid", "lecun", "erf", "linear"),
)


def activation(name: str) -> Activation:
    """Return the activation of that name.

    Args:
        name: a name in ACTIVATIONS.

    Raises:
        UserError: there is no such activation; the message has the nearest name.
    """
    try:
        return ACTIVATIONS[name]
    except KeyError:
        raise unknown("activation", name, ACTIVATIONS) from None
