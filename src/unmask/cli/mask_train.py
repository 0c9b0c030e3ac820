"""The verb mask train: annotated pictures become a detector."""

from __future__ import annotations

import json as json_module
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from unmask.cli.epochs import epoch_progress
from unmask.cli.mask_detect import UNREADABLE
from unmask.cli.mask_table import print_metrics
from unmask.cli.options import Annotations, BatchSize, Device, Epochs, FiguresAsJson, Resume
from unmask.data.detection.dataset import AnnotatedImages, left_out, read_annotated, readable
from unmask.errors import UserError
from unmask.mask.evaluate.confidence import calibrated, found_in
from unmask.mask.evaluate.folds import folds
from unmask.mask.evaluate.metrics import measured
from unmask.mask.training.canvases import CanvasSettings
from unmask.mask.training.export import export_detector
from unmask.mask.training.network import load_detector, network_detector
from unmask.mask.training.trainer import DetectorProgress, DetectorSettings, train_detector

_FIT = DetectorSettings().fit
# Seen by the network at this scale, pictures are trained on as CanvasSettings has them.
_SCALE = 1.6


def train(
    folder: Annotations,
    /,
    *,
    out: Annotated[
        Path | None, Parameter(help="where everything goes; runs/mask-FOLDER by default")
    ] = None,
    epochs: Epochs = _FIT.epochs,
    batch: BatchSize = _FIT.batch_size,
    rate: Annotated[float, Parameter(help="the filters' peak learning rate")] = _FIT.rate,
    scale: Annotated[
        float, Parameter(help="pixels that the network sees for one of a picture, up to 640 in all")
    ] = _SCALE,
    validation: Annotated[
        int, Parameter(help="one in so many pictures validates and calibrates")
    ] = 5,
    device: Device = "auto",
    seed: Annotated[int, Parameter(help="of weights, order and canvases")] = 0,
    resume: Resume = False,
    json: FiguresAsJson = False,
) -> int:
    """Train a detector on annotated pictures with any class names, and write it as ONNX.

    The exit status is 2 when a file could not be read: it is named, and the others are used.
    """
    console = Console(stderr=True)
    if not 0.1 <= scale <= 8:
        raise UserError("the scale must lie in 0.1 to 8", got=scale)
    annotated, warnings = read_annotated(folder)
    annotated, damaged = readable(annotated)
    warnings += damaged
    for line in warnings:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    chosen, held = folds(annotated, validation, seed)[0]
    least, most = (side * scale / _SCALE for side in CanvasSettings().scales)
    settings = DetectorSettings(canvas=CanvasSettings(scales=(least, most)))
    fit = replace(settings.fit, epochs=epochs, batch_size=batch, rate=rate, seed=seed)
    settings = replace(settings, fit=fit)
    out = out or Path("runs") / f"mask-{folder.stem}"
    _train(console, annotated[chosen], settings, out, resume, device)
    network, card = load_detector(out / "detector.safetensors")
    found = found_in(network_detector(network, card.class_names, scale), annotated[held])
    calibration = calibrated(annotated[held], found, scale=scale)
    metrics = measured(annotated[held], found, threshold=calibration.face)
    onnx = out / "detector.onnx"
    difference = export_detector(network, card, onnx, calibration=calibration, scale=scale)
    if json:
        told = {
            "onnx": str(onnx),
            "largest_difference": difference,
            "calibration": calibration.as_dict(),
            "validation": metrics.as_dict(),
        }
        print(json_module.dumps(told))
    else:
        print("on the pictures held out, by which it is calibrated too:")
        print_metrics(Console(), metrics)
        print(f"{onnx}: scores within {difference:.1e} of PyTorch's")
        print(f"try it: unmask mask detect PICTURE --model {onnx}")
    return UNREADABLE if left_out(warnings) else 0


def _train(
    console: Console,
    annotated: AnnotatedImages,
    settings: DetectorSettings,
    out: Path,
    resume: bool,
    device: str,
) -> None:
    with epoch_progress(console, _figures) as show:
        try:
            train_detector(
                annotated, settings, directory=out, resume=resume, device=device, progress=show
            )
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"stopped; --resume --out {out} goes on after the last whole epoch"
            ) from None


def _figures(p: DetectorProgress) -> str:
    return f"face {p.face:.3f}  sides {p.sides:.3f}  classes {p.classes:.3f}"
