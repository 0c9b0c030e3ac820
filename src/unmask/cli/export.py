"""The verb export: a classifier becomes an ONNX file."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from unmask.cli.options import Model
from unmask.models.classifier import Classifier
from unmask.models.export import export_onnx


def export(
    model: Model,
    out: Annotated[Path, Parameter(help="the .onnx file to write")],
    /,
    *,
    json: Annotated[bool, Parameter(help="print what was written as JSON")] = False,
) -> int:
    """Write a classifier as ONNX for any batch, checked against PyTorch."""
    classifier = Classifier.load(model)
    difference = export_onnx(classifier, out)
    if json:
        found = {"onnx": str(out), "largest_difference": difference, "bytes": out.stat().st_size}
        print(json_module.dumps(found))
    else:
        print(f"{out}: {out.stat().st_size:,} bytes, logits within {difference:.1e} of PyTorch's")
    return 0
