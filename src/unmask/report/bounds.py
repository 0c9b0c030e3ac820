"""The bounds on gradients as one self-contained HTML file, and as plain values."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from markupsafe import Markup

from unmask.coursework.bounds.calculus import Extremum
from unmask.coursework.bounds.gradients import (
    ActivationBounds,
    BoundsTable,
    error_range,
    slope_values,
)
from unmask.coursework.bounds.intervals import Interval, shown
from unmask.models.activations import activation
from unmask.report.files import write_files
from unmask.report.html import render
from unmask.report.notation import interval_mathml, mathml, number_mathml, plain
from unmask.sweep.spec import LOSSES

PAGE = "report.html"
_LONGEST = 8


def write_bounds(found: BoundsTable, stamp: dict[str, Any], folder: Path) -> Path:
    """Write report.html into the folder and return its path.

    Args:
        found: the bounds.
        stamp: the provenance.
        folder: where the page goes.

    Raises:
        UserError: when the folder can't be written.
    """
    return write_files(folder, {PAGE: bounds_page(found, stamp)})[0]


def bounds_page(found: BoundsTable, stamp: dict[str, Any]) -> str:
    """Return the page as HTML, with its formulas as MathML."""
    return render(
        "bounds.html",
        {
            "title": _title,
            "math": mathml,
            "interval": interval_mathml,
            "value": _value_mathml,
            "slopes": _slopes_mathml,
            "shown": shown,
        },
        found=found,
        net=found.net,
        losses=LOSSES,
        errors={loss: error_range(loss, found.net.classes) for loss in LOSSES},
        stamp=stamp,
        palette={},
    )


def _title(name: str) -> str:
    return activation(name).title


def bounds_as_dict(found: BoundsTable) -> dict[str, Any]:
    """Return all bounds as plain values; an end at infinity is None."""
    net = found.net
    return {
        "activations": [_activation_as_dict(bounds) for bounds in found.activations],
        "net": {
            "inputs": net.features,
            "hidden_layers": net.depth,
            "width": net.width,
            "classes": net.classes,
            "input_range": _interval_as_dict(net.inputs),
            "weight_bound": net.weight_bound,
            "bias_bound": net.bias_bound,
        },
        "layers": {
            name: {loss: [_interval_as_dict(r) for r in ranges] for loss, ranges in losses.items()}
            for name, losses in found.layers.items()
        },
    }


def closed_form(extremum: Extremum) -> str:
    """Return the extremum's formula, or "" where that is only a number of many digits."""
    number = extremum.expression.lstrip("-").replace(".", "").isdigit()
    return "" if number and len(extremum.expression) > _LONGEST else extremum.expression


def _value_mathml(extremum: Extremum) -> Markup:
    """Return the exact value and, where the formula doesn't show it, its digits."""
    exact, digits = closed_form(extremum), shown(extremum.value)
    if plain(exact) == digits:
        return mathml(exact)
    sign = "=" if float(digits.replace("−", "-")) == extremum.value else "≈"
    rounded = Markup("<math><mo>{}</mo>{}</math>").format(sign, number_mathml(digits))
    return Markup("{} {}").format(mathml(exact), rounded) if exact else rounded


def _slopes_mathml(bounds: ActivationBounds) -> Markup:
    """Return the range of f': the two values for ReLU and similar functions, else the interval."""
    values = slope_values(bounds)
    if not values:
        return interval_mathml(bounds.calculus.slope_range)
    return Markup("<math><mo>{{</mo><mn>{}</mn><mo>}}</mo></math>").format(", ".join(values))


def _activation_as_dict(bounds: ActivationBounds) -> dict[str, Any]:
    facts, claim = bounds.calculus, bounds.claim
    return {
        "name": facts.name,
        "f": facts.formula,
        "f_range": _interval_as_dict(facts.range),
        "f_prime": facts.slope_formula,
        "f_prime_range": _interval_as_dict(facts.slope_range),
        "f_prime_low": _extremum_as_dict(facts.slope_low),
        "f_prime_high": _extremum_as_dict(facts.slope_high),
        "lipschitz": abs(facts.lipschitz.value),
        "one_layer": _interval_as_dict(bounds.one_layer),
        "last_layer": {loss: _interval_as_dict(r) for loss, r in bounds.last_layer.items()},
        "document": None
        if claim is None
        else {
            "f_prime_range": _interval_as_dict(claim.slope_range),
            "gradient_range": _interval_as_dict(claim.gradient_range),
        },
        "remarks": list(bounds.remarks),
    }


def _extremum_as_dict(extremum: Extremum) -> dict[str, Any]:
    return {
        "value": extremum.value,
        "expression": closed_form(extremum) or None,
        "at": extremum.place,
        "attained": extremum.attained,
    }


def _interval_as_dict(interval: Interval) -> dict[str, Any]:
    return {
        "low": interval.low if math.isfinite(interval.low) else None,
        "high": interval.high if math.isfinite(interval.high) else None,
        "low_attained": interval.low_closed,
        "high_attained": interval.high_closed,
    }
