"""The verb models: the models that load_model knows by name."""

from __future__ import annotations

import json as json_module
from typing import Annotated

from cyclopts import Parameter
from rich.table import Table

from unmask.cli.console import Console
from unmask.models.load import known_models


def models(*, json: Annotated[bool, Parameter(help="print the list as JSON")] = False) -> int:
    """List the models that ship, and how models of other libraries and your own are named."""
    rows = known_models()
    if json:
        print(json_module.dumps(rows))
        return 0
    table = Table("name", "what it is", "test accuracy")
    for row in rows:
        accuracy = row["test_accuracy"]
        table.add_row(row["name"], row["what"], "" if accuracy is None else f"{accuracy:.4f}")
    Console().print(table)
    return 0
