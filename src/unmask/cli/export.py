"""The verb export: a classifier becomes an ONNX file."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from unmask.cli.options import Model, ModelSize
from unmask.cli.streams import say


def export(
    model: Model,
    out: Annotated[Path, Parameter(help="the .onnx file to write")],
    /,
    *,
    size: ModelSize = None,
    json: Annotated[bool, Parameter(help="print what was written as JSON")] = False,
) -> int:
    """Write a classifier as ONNX, preprocessing inside, checked against PyTorch."""
    from unmask.models.export import export_onnx
    from unmask.models.load import load_model, probed_card

    loaded = load_model(model)
    difference = export_onnx(loaded, out, card=probed_card(loaded, size))
    if json:
        found = {"onnx": str(out), "largest_difference": difference, "bytes": out.stat().st_size}
        print(json_module.dumps(found))
    else:
        say(f"{out}: {out.stat().st_size:,} bytes, logits within {difference:.1e} of PyTorch's")
    return 0
