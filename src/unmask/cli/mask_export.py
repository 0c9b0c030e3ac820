"""The verb mask export: a trained detector becomes an ONNX file."""

from __future__ import annotations

import json as json_module
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from unmask.cli.mask_detect import UNREADABLE
from unmask.cli.options import Scale
from unmask.cli.streams import say
from unmask.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

    from unmask.data.listing import PictureFile
    from unmask.mask.runtime.calibration import Calibration

_DRAW_STREAM = 15


def export(
    model: Annotated[Path, Parameter(help="the detector.safetensors of mask train")],
    out: Annotated[Path, Parameter(help="the .onnx file to write")],
    /,
    *,
    calibration: Annotated[
        Path | None, Parameter(help="a JSON file of a calibration; scores as they are by default")
    ] = None,
    scale: Scale = 1.6,
    int8: Annotated[
        str | None,
        Parameter(help="images such as it will see, as mask detect takes them: faster, in 8 bits"),
    ] = None,
    json: Annotated[bool, Parameter(help="print what was written as JSON")] = False,
) -> int:
    """Write a detector as ONNX for images of any size, checked against PyTorch.

    In 8 bits it is checked against itself in floating point, on other images of those given. The
    exit status is 2 when one of them could not be read: it is named, and the others are used.
    """
    # torch takes a while to load, and --help needs none of it.
    from unmask.mask.runtime.calibration import Calibration
    from unmask.mask.runtime.sources import open_sources
    from unmask.mask.training.export import export_detector, quantize_detector
    from unmask.mask.training.network import load_detector

    network, card = load_detector(model)
    chosen = Calibration() if calibration is None else _read(calibration)
    skips: list[str] = []
    told: dict[str, Any] = {"onnx": str(out)}
    if int8 is None:
        told["largest_difference"] = export_detector(
            network, card, out, calibration=chosen, scale=scale
        )
    else:
        with open_sources(int8) as sources, tempfile.TemporaryDirectory() as folder:
            for warning in sources.warnings:
                say(warning, file=sys.stderr)
            floating = Path(folder) / "detector.onnx"
            told["largest_difference"] = export_detector(
                network, card, floating, calibration=chosen, scale=scale
            )
            setting, checking = _drawn(sources.pictures, skips)
            agreement = quantize_detector(floating, out, setting, checking)
            told |= {"faces": agreement.faces, "again": agreement.again, "skipped": len(skips)}
    told["bytes"] = out.stat().st_size
    print(json_module.dumps(told) if json else _in_words(told))
    return UNREADABLE if skips else 0


def _in_words(told: dict[str, Any]) -> str:
    line = f"{told['onnx']}: {told['bytes']:,} bytes, "
    if "faces" not in told:
        return f"{line}scores within {told['largest_difference']:.1e} of PyTorch's"
    if not told["faces"]:
        return f"{line}8 bits, not checked: no face was found in the images given"
    return (
        f"{line}8 bits; of {told['faces']:,} faces found in floating point it finds "
        f"{told['again']:,} again and says the same of them"
    )


def _drawn(files: list[PictureFile], skips: list[str]) -> tuple[Iterator[Image], Iterator[Image]]:
    """Return images to set ranges by and others to check with, the same if there is only one."""
    from unmask.mask.training.export import ENOUGH
    from unmask.runtime import seeded

    order = seeded(0, _DRAW_STREAM).permutation(len(files))[: 2 * ENOUGH]
    setting = [files[i] for i in order[::2]]
    checking = [files[i] for i in order[1::2]]
    return _opened(setting, skips), _opened(checking or setting, skips)


def _opened(files: list[PictureFile], skips: list[str]) -> Iterator[Image]:
    from unmask.data.listing import skipped
    from unmask.data.picture import open_picture

    for file in files:
        try:
            yield open_picture(file.read())
        except UserError as error:
            skips.append(skipped(file.path, str(error)))
            say(skips[-1], file=sys.stderr)


def _read(path: Path) -> Calibration:
    from unmask.mask.runtime.calibration import Calibration
    from unmask.runtime import read_regular

    try:
        return Calibration(
            **{k: float(v) for k, v in json_module.loads(read_regular(path, 1 << 20)).items()}
        )
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is no calibration", got=str(error)) from error
