"""The verb models: the models that load_model knows by name."""

from __future__ import annotations

import json as json_module
from typing import Annotated

from cyclopts import Parameter
from rich.table import Table

from unmask.cli.console import Console


def models(*, json: Annotated[bool, Parameter(help="print the list as JSON")] = False) -> int:
    """List the models that ship, and how models of other libraries and your own are named."""
    from unmask.models.load import known_models

    rows = known_models()
    if json:
        print(json_module.dumps(rows))
        return 0
    table = Table("name", "what it is", "test accuracy", "corrupted, severity 3")
    for row in rows:
        figures = (row["test_accuracy"], row["shift_accuracy"])
        shown = ("" if f is None else f"{f:.{d}f}" for f, d in zip(figures, (4, 3), strict=True))
        table.add_row(row["name"], row["what"], *shown)
    Console().print(table)
    return 0
