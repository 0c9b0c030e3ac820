"""Learning-rate schedules: pure functions of the step, as a part of the peak rate."""

from __future__ import annotations

import math
from collections.abc import Callable


def constant(step: int, steps: int, warmup: float, end: float) -> float:
    """Return 1 at every step."""
    return 1.0


def linear(step: int, steps: int, warmup: float, end: float) -> float:
    """Return the height, end to 1, of two straight lines: up for warmup of the steps, then down.

    step: 0 to steps - 1. warmup: the part of all steps that goes up, 0 to 1, starting at a fifth.
    end: where the last line ends, at step = steps.
    """
    done = step / steps
    if done < warmup:
        return 0.2 + 0.8 * done / warmup
    return 1 + (end - 1) * (done - warmup) / (1 - warmup)


def one_cycle(step: int, steps: int, warmup: float, end: float) -> float:
    """Return the height, end to 1, of two half cosines: up for warmup of the steps, then down.

    It starts at 1/25 (Smith and Topin, 2019, https://arxiv.org/abs/1708.07120). step, warmup and
    end as in linear.
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
