"""The verb mask train: annotated images become a detector."""

from __future__ import annotations

import json as json_module
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from unmask.cli.console import Console
from unmask.cli.mask_detect import UNREADABLE
from unmask.cli.options import (
    Annotations,
    BatchSize,
    Device,
    Epochs,
    FiguresAsJson,
    LearningRate,
    Resume,
    Scale,
    Seed,
    real,
)
from unmask.cli.progress import epoch_progress
from unmask.cli.streams import say
from unmask.errors import UserError

if TYPE_CHECKING:
    from unmask.data.detection.dataset import AnnotatedImages
    from unmask.mask.evaluate.folds import Fold
    from unmask.mask.training.trainer import DetectorProgress, DetectorSettings

# The detector's scale for which the canvases have the scales of CanvasSettings.
_SCALE = 1.6


def train(
    folder: Annotations,
    /,
    *,
    out: Annotated[
        Path | None, Parameter(help="where everything goes; runs/mask-FOLDER by default")
    ] = None,
    epochs: Epochs = 80,
    batch_size: BatchSize = 16,
    learning_rate: LearningRate = 0.04,
    scale: Scale = _SCALE,
    validation: Annotated[
        float | None,
        real(
            0,
            0.5,
            "fraction of the images that validates and calibrates; 0.2, or the folder valid beside "
            "train",
            above=True,
            do="one image in 7 is 0.143",
        ),
    ] = None,
    classes: Annotated[
        tuple[str, ...],
        Parameter(
            help="what the annotations' classes are: with=NAME without=NAME improper=NAME",
            consume_multiple=True,
        ),
    ] = (),
    wild: Annotated[
        bool,
        Parameter(
            help="draw hands, beards, scarves and shields on faces, change light and camera, show "
            "scenes without a face: for the classes of the face mask set, and long trainings"
        ),
    ] = False,
    device: Device = "auto",
    seed: Seed = 0,
    resume: Resume = False,
    overwrite: Annotated[bool, Parameter(help="start again where a training was stopped")] = False,
    json: FiguresAsJson = False,
) -> int:
    """Train a detector on annotated images with any class names, and write it as ONNX.

    The exit status is 2 when a file could not be read: it is named, and the others are used.
    """
    # torch takes a while to load, and --help needs none of it.
    from unmask.cli.mask_table import print_metrics
    from unmask.data.detection.dataset import left_out, read_annotated, readable
    from unmask.mask.evaluate.confidence import answers, calibrated, found_in
    from unmask.mask.evaluate.metrics import measured
    from unmask.mask.runtime.classes import renamed
    from unmask.mask.training.canvases import WILD, CanvasSettings
    from unmask.mask.training.export import export_detector
    from unmask.mask.training.network import load_detector, network_detector
    from unmask.mask.training.trainer import DetectorSettings
    from unmask.runtime import claim_folder

    console = Console(stderr=True)
    out = out or Path("runs") / f"mask-{folder.stem}"
    if (out / "checkpoint.safetensors").exists() and not (resume or overwrite):
        raise UserError(
            f"there is a training in {out}",
            do="--resume continues it, --overwrite starts again, --out goes elsewhere",
        )
    claim_folder(out, folder)
    annotated, warnings = read_annotated(folder)
    if classes:
        annotated = annotated.named(renamed(annotated.class_names, classes, merge=True))
    annotated, damaged = readable(annotated)
    warnings += damaged
    for line in warnings:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    chosen, held = _dealt(annotated, validation, seed)
    canvas = WILD if wild else CanvasSettings()
    least, most = (side * scale / _SCALE for side in canvas.scales)
    settings = DetectorSettings(canvas=replace(canvas, scales=(least, most)))
    fit = replace(settings.fit, epochs=epochs, batch_size=batch_size, rate=learning_rate, seed=seed)
    settings = replace(settings, fit=fit)
    _train(console, annotated[chosen], settings, out, resume, device)
    network, card = load_detector(out / "detector.safetensors")
    found = found_in(network_detector(network, card.class_names, scale), annotated[held])
    calibration = calibrated(annotated[held], found, scale=scale)
    said = [answers(d, calibration, scale=scale, threshold=0.0) for d in found]
    metrics = measured(annotated[held], said, threshold=calibration.face)
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
        say("on the images held out, by which it is calibrated too:")
        print_metrics(Console(), metrics)
        say(f"{onnx}: scores within {difference:.1e} of PyTorch's")
        say(f"try it: unmask mask detect IMAGE --model {onnx}")
    return UNREADABLE if left_out(warnings) else 0


def _dealt(annotated: AnnotatedImages, validation: float | None, seed: int) -> Fold:
    """Return the training and the validation images, by their folders or split at random."""
    from unmask.data.detection.dataset import given_parts
    from unmask.mask.evaluate.folds import folds

    given = given_parts(annotated)
    if validation is None and given:
        return given["train"], given["validation"]
    count = round(1 / (validation or 0.2))
    try:
        return folds(annotated, count, seed)[0]
    except UserError as error:
        raise UserError(
            f"{len(annotated)} images are too few to hold out one in {count}",
            got=error,
            do=f"give {count} that differ or more, or a larger --validation, 0.5 at most",
        ) from error


def _train(
    console: Console,
    annotated: AnnotatedImages,
    settings: DetectorSettings,
    out: Path,
    resume: bool,
    device: str,
) -> None:
    from unmask.mask.training.trainer import train_detector

    with epoch_progress(console, _figures) as show:
        try:
            train_detector(
                annotated, settings, directory=out, resume=resume, device=device, progress=show
            )
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"stopped; --resume --out {out} continues after the last complete epoch"
            ) from None


def _figures(p: DetectorProgress) -> str:
    return f"face {p.face:.3f}  sides {p.sides:.3f}  classes {p.classes:.3f}"
