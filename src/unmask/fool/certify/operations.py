"""The operations of a network and their bounds: affine maps, activation functions, maxima, sums.

Values are float[b, *shape]; coefficients are float[b, q, *shape], q linear functions of an
operation's output for each of b images, and are carried back to its inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from unmask.fool.certify.relaxation import Curve, Lines

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Interval:
    """Elementwise bounds.

    Args:
        lower: float[b, *shape].
        upper: likewise, at least lower.
    """

    lower: Tensor
    upper: Tensor

    @property
    def centre(self) -> Tensor:
        """The middle of each interval."""
        return (self.lower + self.upper) / 2

    @property
    def radius(self) -> Tensor:
        """Half the width of each interval."""
        return (self.upper - self.lower) / 2

    def met(self, other: Interval) -> Interval:
        """Return the intersection with another interval."""
        lower = torch.maximum(self.lower, other.lower)
        # Two sound intervals overlap; only rounding could separate them.
        return Interval(lower, torch.maximum(torch.minimum(self.upper, other.upper), lower))

    def __getitem__(self, rows: Tensor | slice) -> Interval:
        return Interval(self.lower[rows], self.upper[rows])


@dataclass(frozen=True)
class Affine:
    """x -> A x + bias.

    Args:
        apply: A x of float[n, *in].
        absolute: |A| r of float[n, *in], r at least 0.
        back: the transpose of A times float[n, *out].
        shift: the bias.
        spread: the shape that the bias is given before it is added; None for its own.
        terms: how many products the longest sum of an output has, for the rounding error.
        diagonal: whether each output depends on one input alone.
        norm: the batch normalisation that this is, as it was with its running statistics, or None.
    """

    apply: Callable[[Tensor], Tensor]
    absolute: Callable[[Tensor], Tensor]
    back: Callable[[Tensor], Tensor]
    shift: Tensor | float
    terms: int
    diagonal: bool = False
    spread: Shape | None = None
    norm: _BatchNorm | None = None

    @property
    def bias(self) -> Tensor | float:
        """The bias, broadcastable to the output's shape."""
        # A stored view would be stale, or forbidden, after a step of training.
        if self.spread is None or not isinstance(self.shift, Tensor):
            return self.shift
        return self.shift.reshape(self.spread)

    def interval(self, given: Interval) -> Interval:
        """Return the smallest box that holds the outputs of a box."""
        centre = self.apply(given.centre) + self.bias
        radius = self.absolute(given.radius)
        return Interval(centre - radius, centre + radius)

    def backward(self, coefficients: Tensor) -> tuple[Tensor, Tensor]:
        """Return the coefficients of the input, and the bias's contribution, float[b, q]."""
        b, q = coefficients.shape[:2]
        constant = (coefficients * self.bias).flatten(2).sum(2)
        back = self.back(coefficients.flatten(0, 1))
        return back.reshape(b, q, *back.shape[1:]), constant


@dataclass(frozen=True)
class Elementwise:
    """An activation function of each value."""

    curve: Curve


@dataclass(frozen=True)
class Maximum:
    """The largest of the values in each window.

    Args:
        windows: int64[outputs, k], places in the flattened input; -1 where there is none.
        shape: of the output.
    """

    windows: Tensor
    shape: Shape

    def gathered(self, values: Tensor, empty: float) -> Tensor:
        """Return values float[n, *in] by window, float[n, outputs, k]; empty where none is."""
        flat = values.flatten(1)
        found = flat[:, self.windows.clamp(min=0)]
        return torch.where(self.windows < 0, empty, found)

    def interval(self, given: Interval) -> Interval:
        """Return the box of the maxima."""
        shape = (len(given.lower), *self.shape)
        lower, upper = (
            self.gathered(v, -torch.inf).amax(2).reshape(shape) for v in (given.lower, given.upper)
        )
        return Interval(lower, upper)

    def lines(self, given: Interval) -> tuple[Tensor, Lines]:
        """Return the place in its window with the largest lower bound, and lines for each place.

        The maximum is at least the value there. It is at most sum_i a_i (x_i - l_i) + g for any g
        >= max l with a_i = max(0, u_i - g) / (u_i - l_i): for each i the right side is at least x_i
        at both ends of its interval (after Boopathy et al., 2019, CNN-Cert).

        Args:
            given: the box of the input, float[b, *in].

        Returns:
            int64[b, outputs], and lines over [b, outputs, k].
        """
        lower = self.gathered(given.lower, -torch.inf)
        upper = self.gathered(given.upper, -torch.inf)
        best = lower.argmax(2, keepdim=True)
        floor = lower.gather(2, best)
        there = upper > floor
        width = torch.where(there, upper - lower, torch.ones_like(lower)).clamp(min=1e-12)
        weight = torch.where(there, 1 / width, torch.zeros_like(width))
        ends = torch.where(there, upper, torch.zeros_like(upper)) * weight
        total = weight.sum(2, keepdim=True)
        level = (ends.sum(2, keepdim=True) - 1) / total.clamp(min=1e-12)
        level = torch.maximum(torch.where(total > 0, level, floor), floor)
        slope = ((upper - level).clamp(min=0) * weight).clamp(max=1)
        # Where one input is always the largest, it is the maximum itself.
        ahead = torch.zeros_like(upper).scatter(2, best, 1.0)
        others = torch.where(ahead > 0, -torch.inf, upper).amax(2, keepdim=True)
        sure = others <= floor
        slope = torch.where(sure, ahead, slope)
        start = torch.where(there, lower, torch.zeros_like(lower))
        offset = torch.where(sure, torch.zeros_like(level), level - slope.mul(start).sum(2, True))
        # The rounding of the slopes is compensated at the ends of each interval.
        reach = torch.where(there, upper, floor)
        lack = reach - (slope * reach + (offset + (slope * start).sum(2, True) - slope * start))
        offset = torch.where(sure, offset, offset + lack.amax(2, keepdim=True).clamp(min=0))
        zero = torch.zeros_like(slope)
        return best.squeeze(2), Lines(ahead, zero, slope, offset)

    def scattered(self, values: Tensor, like: Shape) -> Tensor:
        """Return the values float[n, outputs, k], summed at their places, as float[n, *like]."""
        kept = torch.where(self.windows < 0, torch.zeros_like(values), values)
        size = 1
        for side in like:
            size *= side
        flat = kept.new_zeros(len(values), size)
        flat = flat.index_add(1, self.windows.clamp(min=0).flatten(), kept.flatten(1))
        return flat.reshape(len(values), *like)


@dataclass(frozen=True)
class Sum:
    """The sum of its inputs, each times a sign."""

    signs: tuple[float, ...]


@dataclass(frozen=True)
class Joined:
    """The concatenation of its inputs along a dimension, 0 the first after the batch."""

    dimension: int
    sizes: tuple[int, ...]


Operation = Affine | Elementwise | Maximum | Sum | Joined


@dataclass(frozen=True)
class Node:
    """An operation on the outputs of earlier nodes; None for the input.

    Args:
        name: in the module.
        operation: applied to the inputs.
        inputs: places of earlier nodes.
        shape: of its output, without the batch.
    """

    name: str
    operation: Operation | None
    inputs: tuple[int, ...]
    shape: Shape


def linear(weight: Tensor, bias: Tensor | None) -> Affine:
    """Return x -> weight x + bias over the last dimension, as in torch.nn.Linear."""
    return Affine(
        apply=lambda x: functional.linear(x, weight),
        absolute=lambda r: functional.linear(r, weight.abs()),
        back=lambda c: c @ weight,
        shift=0.0 if bias is None else bias,
        terms=weight.shape[1] + 1,
    )


def mapped(
    function: Callable[[Tensor], Tensor],
    shape: Shape,
    like: Tensor,
    *,
    absolute: Callable[[Tensor], Tensor] | None = None,
    bias: Tensor | float = 0.0,
    terms: int = 1,
    diagonal: bool = False,
    spread: Shape | None = None,
) -> Affine:
    """Return the affine map of a linear function of float[n, *shape], its transpose by autograd.

    Args:
        function: linear, over a batch.
        shape: of its input.
        like: a tensor of the dtype and device to use.
        absolute: the same with the absolute values of its coefficients; None where none is below 0,
            which takes function itself.
        bias: added to the output.
        terms: how many products the longest sum of an output has, for the rounding error.
        diagonal: whether each output depends on one input alone.
        spread: the shape that the bias is given before it is added; None for its own.
    """

    def back(coefficients: Tensor) -> Tensor:
        graph = coefficients.requires_grad
        with torch.enable_grad():
            start = like.new_zeros(len(coefficients), *shape).requires_grad_()
            ends = function(start)
            (found,) = torch.autograd.grad(ends, start, coefficients, create_graph=graph)
        return found

    return Affine(function, absolute or function, back, bias, terms, diagonal, spread)


def scaled(factor: Tensor | float, bias: Tensor | float = 0.0) -> Affine:
    """Return x -> factor x + bias, elementwise; factor and bias broadcast over the shape."""
    size: Tensor | float = factor.abs() if isinstance(factor, Tensor) else abs(factor)
    return Affine(
        apply=lambda x: x * factor,
        absolute=lambda r: r * size,
        back=lambda c: c * factor,
        shift=bias,
        terms=2,
        diagonal=True,
    )
