"""Slopes of the relaxation, optimised by gradient: alpha-CROWN (Xu et al., 2021)."""

from __future__ import annotations

import math
import time

import torch
from torch import Tensor

from unmask.fool.certify.bounds import Relaxed, Slopes, Splits, lower_bounds
from unmask.fool.certify.operations import Elementwise

# Adam's decay rates (Kingma and Ba, 2015), and the factor by which its steps shrink.
_MEANS, _SQUARES, _DECAY = 0.9, 0.999, 0.97


def optimised(
    relaxed: Relaxed,
    coefficients: Tensor,
    *,
    steps: int = 20,
    rate: float = 0.25,
    splits: Splits | None = None,
    start: Slopes | None = None,
    goal: float = 0.0,
    until: float = math.inf,
) -> tuple[Tensor, Slopes]:
    """Return the best lower bounds found, float[b, q], and the slopes of the last step.

    Args:
        relaxed: boxes around the input of each bent node.
        coefficients: float[b, q, classes], linear functions of the logits.
        steps: of Adam, each one forward and one backward pass; 0 gives CROWN's own bounds.
        rate: the learning rate of Adam, decayed by 0.97 a step.
        splits: signs that are assumed; each gets a multiplier (Wang et al., 2021).
        start: slopes to start from, of the same shapes.
        goal: the bound that is enough.
        until: time.perf_counter() after which no further step begins.

    Returns:
        The bounds, never below those that the search started from, and the slopes.
    """
    slopes, ranges = _free(relaxed, coefficients.shape[1], splits or {}, start)
    best = lower_bounds(relaxed, coefficients)
    every = [*slopes.lower.values(), *slopes.upper.values(), *slopes.signs.values()]
    if not every or not steps:
        return best, slopes
    # torch.optim imports a compiler that takes longer to load than most images take to certify.
    means = [torch.zeros_like(v) for v in every]
    squares = [torch.zeros_like(v) for v in every]
    for step in range(1, steps + 1):
        if time.perf_counter() > until:
            break
        with torch.enable_grad():
            found = lower_bounds(relaxed, coefficients, slopes)
            best = torch.maximum(best, found.detach())
            # A function that is proved needs no better bound.
            loss = -torch.where(best > goal, torch.zeros_like(found), found).sum()
            gradients = torch.autograd.grad(loss, every, allow_unused=True)
        length = rate * _DECAY**step * (1 - _SQUARES**step) ** 0.5 / (1 - _MEANS**step)
        for value, gradient, mean, square in zip(every, gradients, means, squares, strict=True):
            if gradient is not None:
                mean.lerp_(gradient, 1 - _MEANS)
                square.lerp_(gradient * gradient, 1 - _SQUARES)
                value.detach().sub_(length * mean / (square.sqrt() + 1e-8))
        with torch.no_grad():
            for place, (low, high) in ranges.items():
                slopes.lower[place].copy_(
                    torch.minimum(torch.maximum(slopes.lower[place], low), high)
                )
            _within(slopes.signs, splits or {})
    found = lower_bounds(relaxed, coefficients, slopes).detach()
    return torch.maximum(best, found), slopes


def _within(signs: object, splits: Splits) -> None:
    assert isinstance(signs, dict)
    for place, multiplier in signs.items():
        sign = splits[place][:, None]
        # The sign of a multiplier is its split's, so that what it adds is never positive.
        multiplier.copy_(torch.where(sign > 0, multiplier.clamp(min=0), multiplier.clamp(max=0)))
        multiplier.mul_((sign != 0).to(multiplier.dtype))


def _free(
    relaxed: Relaxed, functions: int, splits: Splits, start: Slopes | None
) -> tuple[Slopes, dict[int, tuple[Tensor, Tensor]]]:
    """Return leaves to optimise, and the range of the lower slopes."""
    lower: dict[int, Tensor] = {}
    upper: dict[int, Tensor] = {}
    signs: dict[int, Tensor] = {}
    ranges: dict[int, tuple[Tensor, Tensor]] = {}
    for place in relaxed.network.bent:
        operation = relaxed.network.nodes[place].operation
        if not isinstance(operation, Elementwise):
            continue
        box = relaxed.inputs[place]
        _, lines = relaxed.lines(place)
        shape = (len(box.lower), functions, *box.lower.shape[1:])
        if operation.curve.kink is not None and not bool(relaxed.unstable(place).any()):
            continue
        low, high = operation.curve.steepest(box.lower, box.upper)
        ranges[place] = low[:, None], high[:, None]
        before = None if start is None else start.lower.get(place)
        lower[place] = _leaf(lines.lower_slope[:, None].expand(shape) if before is None else before)
        if before is not None:
            with torch.no_grad():
                lower[place].copy_(
                    torch.minimum(torch.maximum(lower[place], low[:, None]), high[:, None])
                )
        if operation.curve.kink is None:
            before = None if start is None else start.upper.get(place)
            upper[place] = _leaf(
                lines.upper_slope[:, None].expand(shape) if before is None else before
            )
        if place in splits and bool((splits[place] != 0).any()):
            before = None if start is None else start.signs.get(place)
            signs[place] = _leaf(box.lower.new_zeros(shape) if before is None else before)
    return Slopes(lower, upper, signs), ranges


def _leaf(values: Tensor) -> Tensor:
    return values.detach().clone().requires_grad_()
