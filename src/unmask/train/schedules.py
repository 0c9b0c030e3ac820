"""Learning-rate schedules: pure functions of the step, as a fraction of the peak rate."""

from __future__ import annotations

import math
from collections.abc import Callable


def constant(step: int, steps: int, warmup: float, end: float) -> float:
    """Return the peak rate at every step: 1, whatever the arguments."""
    return 1.0


def linear(step: int, steps: int, warmup: float, end: float) -> float:
    """Return the height of two straight lines: up for warmup of the steps, then down.

    Args:
        step: 0 to steps - 1.
        steps: how many there are in all.
        warmup: the fraction of all steps that goes up, 0 to 1, starting at a fifth of the peak.
        end: the height of the last line at step = steps, 0 to 1.

    Returns:
        The fraction of the peak rate, 0 to 1.
    """
    done = step / steps
    if done < warmup:
        return 0.2 + 0.8 * done / warmup
    return 1 + (end - 1) * (done - warmup) / (1 - warmup)


def one_cycle(step: int, steps: int, warmup: float, end: float) -> float:
    """Return the height of two half cosines: up for warmup of the steps, then down.

    Smith and Topin, 2019, https://arxiv.org/abs/1708.07120.

    Args:
        step: 0 to steps - 1.
        steps: how many there are in all.
        warmup: the fraction of all steps that goes up, 0 to 1, starting at 1/25 of the peak.
        end: the height at step = steps, 0 to 1.

    Returns:
        The fraction of the peak rate, 0 to 1.
    """
    done = step / steps
    if done < warmup:
        return _cosine(1 / 25, 1, done / warmup)
    return _cosine(1, end, (done - warmup) / (1 - warmup))


def _cosine(start: float, stop: float, part: float) -> float:
    return stop + (start - stop) * (1 + math.cos(math.pi * part)) / 2


SCHEDULES: dict[str, Callable[[int, int, float, float], float]] = {
    "constant": constant,
    "linear": linear,
    "one_cycle": one_cycle,
}
