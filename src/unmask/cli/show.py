"""The verb show: a model's layers, shapes and costs."""

from __future__ import annotations

import contextlib
import json as json_module
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.table import Table

from unmask.cli.console import Console
from unmask.cli.options import Model, ModelSize
from unmask.errors import UserError
from unmask.runtime import write_atomically

if TYPE_CHECKING:
    from unmask.models.card import ModelCard
    from unmask.models.summary import LayerSummary


def show(
    model: Model,
    /,
    *,
    figure: Annotated[
        Path | None, Parameter(help="draw the network into this .svg or .png file")
    ] = None,
    size: ModelSize = None,
    json: Annotated[bool, Parameter(help="print the structure and the card as JSON")] = False,
) -> int:
    """Show a network's structure: layers, shapes, parameters and multiply-adds."""
    from unmask.models.load import load_model, probed_card
    from unmask.models.preprocessing import Wrapped
    from unmask.models.summary import summarised

    loaded = load_model(model)
    if isinstance(loaded, Wrapped) and not loaded.differentiable:
        raise UserError("the layers of an ONNX file are unknown", got=model)
    card = probed_card(loaded, size)
    layers = summarised(loaded.network, card.input_shape)
    if figure is not None:
        _draw(layers, card.input_shape, figure)
    if json:
        found = {"card": card.as_dict(), "layers": [asdict(layer) for layer in layers]}
        print(json_module.dumps(found))
        return 0
    console = Console()
    console.print(_table(card, layers))
    if isinstance(loaded, Wrapped):
        console.print(loaded.describe(), markup=False, highlight=False)
    for line in _facts(card.facts):
        console.print(line, markup=False, highlight=False)
    return 0


def _draw(layers: list[LayerSummary], input_shape: tuple[int, ...], path: Path) -> None:
    if path.suffix not in (".svg", ".png"):
        raise UserError("a figure is an .svg or a .png file", got=path)
    from unmask.report.figures.classifier import network_figure
    from unmask.report.figures.style import to_png, to_svg

    drawn = network_figure(layers, input_shape)
    content = to_png(drawn) if path.suffix == ".png" else to_svg(drawn, path.stem).encode()
    with write_atomically(path) as file:
        file.write(content)


def _table(card: ModelCard, layers: list[LayerSummary]) -> Table:
    table = Table(
        title=f"{card.architecture}: images of {_shape(card.input_shape)} in "
        f"{len(card.class_names)} classes"
    )
    for name, justify in (
        ("layer", "left"),
        ("kind", "left"),
        ("output", "right"),
        ("parameters", "right"),
        ("multiply-adds", "right"),
    ):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for layer in layers:
        table.add_row(
            layer.name,
            layer.kind,
            _shape(layer.output),
            f"{layer.parameters:,}" if layer.parameters else "",
            f"{layer.multiply_adds:,}" if layer.multiply_adds else "",
        )
    table.add_section()
    table.add_row(
        "all",
        "",
        "",
        f"{sum(layer.parameters for layer in layers):,}",
        f"{sum(layer.multiply_adds for layer in layers):,}",
    )
    return table


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(str(side) for side in shape)


def _facts(facts: dict[str, Any]) -> list[str]:
    """Return the facts of the card as lines, without those that train did not write."""
    lines: list[str] = []
    strange = contextlib.suppress(KeyError, TypeError, ValueError)
    with strange:
        figures = facts["figures"]
        low, high = figures["test_accuracy_interval_95"]
        lines.append(
            f"test accuracy {figures['test_accuracy']:.4f} (95 % interval {low:.4f} to {high:.4f}) "
            f"on {figures['test_pictures']:,} images"
        )
    with strange:
        data = facts["data"]
        lines.append(f"trained on {data['pictures']:,} images of {data['name']}")
    with strange:
        lines.append(f"made by: {facts['command']}")
    return lines
