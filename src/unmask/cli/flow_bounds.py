"""The verb flow bounds: how large a gradient can be."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.box import SIMPLE_HEAD
from rich.table import Table

from unmask.cli.console import Console
from unmask.cli.options import Width, real, whole
from unmask.coursework.bounds.calculus import CALCULUS, Extremum
from unmask.coursework.bounds.gradients import (
    ActivationBounds,
    BoundedNet,
    BoundsTable,
    bounds_table,
    slope_values,
)
from unmask.coursework.bounds.intervals import Interval, shown
from unmask.errors import UserError
from unmask.models.activations import activation

_LOSSES = {"cross_entropy": "cross-entropy", "half_squared": "half squared error"}


def bounds(
    *activations: Annotated[str, Parameter(help=f"of {', '.join(CALCULUS)}; all by default")],
    inputs: Annotated[
        tuple[float, float], real(-1e6, 1e6, "lowest and highest input of the net")
    ] = (0.0, 1.0),
    features: Annotated[int, whole(1, 1 << 16, "inputs of the net")] = BoundedNet.features,
    depth: Annotated[int, whole(0, 100, "hidden layers")] = BoundedNet.depth,
    width: Width = BoundedNet.width,
    classes: Annotated[int, whole(2, 1024, "outputs of the softmax")] = BoundedNet.classes,
    weight: Annotated[float, real(0, 1e6, "the largest |w|")] = BoundedNet.weight_bound,
    bias: Annotated[float, real(0, 1e6, "the largest |b|")] = BoundedNet.bias_bound,
    out: Annotated[Path | None, Parameter(help="the folder for report.html")] = None,
    json: Annotated[bool, Parameter(help="print the bounds as JSON; null is infinity")] = False,
) -> int:
    """Show the exact range of f' and of dE/dw, for the last layer and any other.

    The last layer's range is a closed form, that of any other by interval arithmetic through every
    net whose weights, biases and inputs lie within the bounds given.
    """
    # torch and matplotlib take a while to load, and --help needs none of them.
    from unmask.report.bounds import bounds_as_dict, write_bounds
    from unmask.runtime import environment_stamp

    low, high = inputs
    if not low <= high:
        raise UserError("--inputs takes the lowest first", got=f"{low} {high}", do="try 0 1")
    net = BoundedNet(features, depth, width, classes, Interval(low, high), weight, bias)
    found = bounds_table(list(dict.fromkeys(activations)) or list(CALCULUS), net)
    page = write_bounds(found, environment_stamp(), out) if out else None
    if json:
        print(json_module.dumps(bounds_as_dict(found), allow_nan=False))
        return 0
    console = Console()
    console.print(_slope_table(found))
    console.print(_gradient_table(found))
    console.print(_layer_table(found))
    _print_remarks(console, found)
    if page:
        console.print(f"Report: {page}", highlight=False, soft_wrap=True)
    return 0


def _slope_table(found: BoundsTable) -> Table:
    from unmask.report.notation import plain

    table = _table("The activations", "f", "f'", "range of f'", "infimum", "supremum", "Lipschitz")
    for b in found.activations:
        c = b.calculus
        table.add_row(
            activation(c.name).title,
            plain(c.formula),
            plain(c.slope_formula),
            _slopes(b),
            _met(c.slope_low),
            _met(c.slope_high),
            shown(abs(c.lipschitz.value)),
        )
    return table


def _gradient_table(found: BoundsTable) -> Table:
    table = _table(
        f"dE/dw: the last layer through a softmax over {found.net.classes} classes, and one layer",
        *_LOSSES.values(),
        "f f' (y - T)",
        "the report",
    )
    for b in found.activations:
        table.add_row(
            activation(b.calculus.name).title,
            *(str(b.last_layer[loss]) for loss in _LOSSES),
            str(b.one_layer),
            str(b.claim.gradient_range) if b.claim else "",
        )
    return table


def _layer_table(found: BoundsTable) -> Table:
    net = found.net
    table = _table(
        f"|dE/dw| at most, cross-entropy: {net.features} inputs in {net.inputs}, "
        f"{net.depth} hidden layers of {net.width}, "
        f"|w| ≤ {shown(net.weight_bound)}, |b| ≤ {shown(net.bias_bound)}",
        *(f"layer {layer}" for layer in range(1, net.depth + 1)),
        "softmax layer",
    )
    for b in found.activations:
        ranges = found.layers[b.calculus.name]["cross_entropy"]
        largest = (max(-r.low, r.high) for r in ranges)
        table.add_row(activation(b.calculus.name).title, *(shown(value) for value in largest))
    return table


def _print_remarks(console: Console, found: BoundsTable) -> None:
    for b in found.activations:
        for remark in b.remarks:
            line = f"- {activation(b.calculus.name).title}: {remark}"
            console.print(line, markup=False, highlight=False)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for name in ("", *columns):
        # A formula too long for its column continues on the next line, uncut.
        table.add_column(name, overflow="fold")
    return table


def _slopes(b: ActivationBounds) -> str:
    values = slope_values(b)
    return f"{{{', '.join(values)}}}" if values else str(b.calculus.slope_range)


def _met(extremum: Extremum) -> str:
    from unmask.report.bounds import closed_form
    from unmask.report.notation import plain

    exact, digits = plain(closed_form(extremum)), shown(extremum.value)
    value = digits if exact in ("", digits) else f"{exact} = {digits}"
    return f"{value}, {'at' if extremum.attained else 'as'} {plain(extremum.place)}"
