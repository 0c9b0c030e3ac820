"""The verb mask export: a trained detector becomes an ONNX file."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from unmask.errors import UserError
from unmask.mask.calibration import Calibration
from unmask.mask.export import export_detector
from unmask.mask.stored import load_detector


def export(
    model: Annotated[Path, Parameter(help="the detector.safetensors of mask train")],
    out: Annotated[Path, Parameter(help="the .onnx file to write")],
    /,
    *,
    calibration: Annotated[
        Path | None, Parameter(help="a JSON file of a calibration; scores as they are by default")
    ] = None,
    scale: Annotated[
        float, Parameter(help="pixels that the network sees for one of a picture, up to 640 in all")
    ] = 1.6,
    json: Annotated[bool, Parameter(help="print what was written as JSON")] = False,
) -> int:
    """Write a detector as ONNX for pictures of any size, checked against PyTorch."""
    network, card = load_detector(model)
    chosen = Calibration() if calibration is None else _read(calibration)
    difference = export_detector(network, card, out, calibration=chosen, scale=scale)
    if json:
        found = {"onnx": str(out), "largest_difference": difference, "bytes": out.stat().st_size}
        print(json_module.dumps(found))
    else:
        print(f"{out}: {out.stat().st_size:,} bytes, scores within {difference:.1e} of PyTorch's")
    return 0


def _read(path: Path) -> Calibration:
    try:
        return Calibration(**{k: float(v) for k, v in json_module.loads(path.read_bytes()).items()})
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is no calibration", got=str(error)) from error
