"""Exercise 1 A: the range of every factor of a gradient."""

from __future__ import annotations

import math
from dataclasses import replace

from unmask.coursework.bounds.gradients import (
    REPORT,
    BoundedNet,
    activation_bounds,
    error_range,
    layer_ranges,
    slope_values,
)
from unmask.coursework.bounds.intervals import Interval, shown
from unmask.coursework.cells import interval, not_run
from unmask.coursework.exercise import Exercise, Task
from unmask.coursework.sections import CORRECTED, Cell, Section, Table
from unmask.models.activations import activation

_ERRORS = {
    "relu": Interval(0, 1),
    "sigmoid": Interval(0, 1),
    "lecun": Interval(-math.inf, 0, False, True),
}
_SIGNS = "The error y − T has both signs: below 0 for the true class, above 0 for every other."
_WHY_ERROR = {
    "relu": _SIGNS,
    "sigmoid": _SIGNS,
    "lecun": "Through softmax the error of cross-entropy is y − T, not −T/y.",
}
_SLOPES_OF_RELU = "{0, 1}"
_LAST_ONLY = "the last layer's error only"
_NET = BoundedNet(depth=5)


def _run(task: Task) -> tuple[Section, ...]:
    task.progress("deriving the ranges", None)
    error = error_range("cross_entropy", _NET.classes)
    rows = []
    for name, claim in REPORT.items():
        found = activation_bounds(name)
        slopes = interval(claim.slope_range, found.calculus.slope_range)
        if values := slope_values(found):
            slopes = replace(slopes, document=_SLOPES_OF_RELU, ours=f"{{{', '.join(values)}}}")
        cells = (
            slopes,
            interval(_ERRORS[name], error, why=_WHY_ERROR[name]) if name in _ERRORS else None,
            interval(claim.gradient_range, found.one_layer, why=_WHY_ERROR.get(name, "")),
        )
        rows.append((activation(name).title, cells))
    deeper = ", ".join(
        f"{activation(name).title} {shown(max(-first.low, first.high))}"
        for name in REPORT
        for first in [layer_ranges(name, _NET, "cross_entropy")[0]]
    )
    below = Cell(
        _LAST_ONLY,
        "the product through all later layers",
        CORRECTED,
        "The error of a layer is the product of slopes and weights through all later ones, which "
        f"is what makes gradients vanish or explode. The largest |∂E/∂w| of the first of "
        f"{_NET.depth} hidden layers of {_NET.width}, over every net with all |w| ≤ "
        f"{_NET.weight_bound:g}: {deeper}.",
    )
    return (_section(tuple(rows), below),)


def _missing(reason: str) -> tuple[Section, ...]:
    rows = tuple(
        (
            activation(name).title,
            (
                not_run(_SLOPES_OF_RELU if name == "relu" else str(claim.slope_range), reason),
                not_run(str(_ERRORS[name]), reason) if name in _ERRORS else None,
                not_run(str(claim.gradient_range), reason),
            ),
        )
        for name, claim in REPORT.items()
    )
    return (_section(rows, not_run(_LAST_ONLY, reason)),)


def _section(rows: tuple[tuple[str, tuple[Cell | None, ...]], ...], below: Cell) -> Section:
    return Section(
        name="Exercise 1 A",
        title="How large a gradient can be",
        told="By the chain rule, ∂E/∂w = y f′(v) (error). From the range of each factor the "
        "report derives the range of the gradient of one layer.",
        settings="Exact ranges: a closed form for one layer, interval arithmetic for any other. "
        "unmask flow bounds shows all of it.",
        tables=(
            Table(
                "The range of every factor",
                ("range of f′", "range of the error", "range of ∂E/∂w"),
                rows,
            ),
            Table("Deeper layers", ("the error of a layer",), (("all layers", (below,)),)),
        ),
    )


BOUNDS = Exercise("bounds", "Exercise 1 A: ranges of the gradient", _run, _missing)
