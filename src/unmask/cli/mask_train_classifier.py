"""The verb mask train-classifier: annotated faces become the course report's classifier."""

from __future__ import annotations

import json as json_module
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.box import SIMPLE_HEAD
from rich.table import Table

from unmask.cli.console import Console
from unmask.cli.options import (
    Annotations,
    BatchSize,
    Device,
    Epochs,
    FiguresAsJson,
    LearningRate,
    Resume,
    Seed,
    real,
    whole,
)
from unmask.cli.progress import epoch_progress
from unmask.errors import UserError
from unmask.text import counted

if TYPE_CHECKING:
    from unmask.mask.training.classifier import SizeRow, TrainedOnFaces
    from unmask.train.fit import FitProgress


def train_classifier(
    faces: Annotations,
    /,
    *,
    classes: Annotated[
        int, whole(2, 3, "2 counts masks worn improperly as none, 3 tells them apart")
    ] = 2,
    recipe_name: Annotated[
        str, Parameter(name="--recipe", help="document or augmented; see docs/mask.md")
    ] = "augmented",
    out: Annotated[
        Path | None, Parameter(help="where everything goes; runs/faces-RECIPE-CLASSES by default")
    ] = None,
    validation: Annotated[
        float,
        real(
            0.001,
            0.5,
            "fraction of the images that is held out, chosen by --seed",
            do="one image in ten is 0.1",
        ),
    ] = 0.1,
    epochs: Epochs | None = None,
    batch_size: BatchSize | None = None,
    learning_rate: LearningRate | None = None,
    device: Device = "auto",
    seed: Seed = 0,
    resume: Resume = False,
    overwrite: Annotated[bool, Parameter(help="begin anew where a training was stopped")] = False,
    json: FiguresAsJson = False,
) -> int:
    """Train the course report's classifier on faces cut out of annotated images, and measure it."""
    # torch takes a while to load, and --help needs none of it.
    from unmask.data.detection.dataset import FACE_CLASSES, read_annotated
    from unmask.mask.training.classifier import face_recipe, train_on_faces
    from unmask.runtime import claimed_folder
    from unmask.train.fit import FitInterrupted

    console = Console(stderr=True)
    chosen = face_recipe(recipe_name)
    given: dict[str, Any] = {
        "epochs": epochs,
        "batch_size": batch_size,
        "rate": learning_rate,
        "seed": seed,
    }
    config = replace(chosen.recipe.config, **{k: v for k, v in given.items() if v is not None})
    chosen = replace(chosen, recipe=replace(chosen.recipe, config=config))
    out = out or Path("runs") / f"faces-{recipe_name}-{classes}"
    if (out / "checkpoint.safetensors").exists() and not (resume or overwrite):
        raise UserError(
            f"there is a training in {out}",
            do="--resume continues it, --overwrite begins anew, --out goes elsewhere",
        )
    annotated, warnings = read_annotated(faces)
    _tell(console, warnings)
    with claimed_folder(out, faces), epoch_progress(console, _figures) as show:
        try:
            result = train_on_faces(
                chosen,
                annotated.with_classes(FACE_CLASSES),
                out=out,
                classes=classes,
                parts=round(1 / validation),
                resume=resume,
                device=device,
                progress=show,
            )
        except FitInterrupted:
            raise UserError(
                "stopped before the first epoch ended; nothing was saved",
                do="run the command again",
            ) from None
    _tell(console, result.warnings)
    if json:
        card = result.trained.classifier.card.as_dict()
        told = {"model": str(out / "model.safetensors"), **result.as_dict(), "card": card}
        print(json_module.dumps(told))
    else:
        _print(Console(), result, out)
    return 130 if result.trained.history.ended == "interrupted" else 0


def _print(console: Console, result: TrainedOnFaces, out: Path) -> None:
    from unmask.data.detection.dataset import FACE_CLASSES
    from unmask.mask.runtime.classes import plain_words, short_words

    history, found = result.trained.history, result.validation
    ended = {
        "finished": f"trained {counted(len(history.epochs), 'epoch')}",
        "target": f"reached the target in epoch {len(history.epochs)}",
        "interrupted": f"stopped in epoch {len(history.epochs) + 1}",
    }[history.ended]
    low, high = found.interval
    most = found.confusion.sum(1).max() / len(found.labels)
    lines = [
        f"{ended} in {history.epochs[-1].seconds:.0f} s",
        f"accuracy {found.accuracy:.4f} (95 % interval {low:.4f} to {high:.4f}) on "
        f"{len(found.labels):,} faces of {result.pictures} images held out",
        f"macro-F1 {found.macro_f1:.4f}; always saying the most frequent class: "
        f"accuracy {most:.4f}, macro-F1 {_guessing(most, len(found.class_names)):.4f}",
    ]
    whole = result.rows[-1]
    for name, right, faces, (low, high) in zip(
        FACE_CLASSES, whole.right, whole.faces, whole.recall_intervals, strict=True
    ):
        recall = f"{right / faces:.4f} (95 % interval {low:.4f} to {high:.4f})" if faces else "–"
        lines.append(f"recall {recall}  {plain_words(name)}, {right} of {faces}")
    _tell(console, tuple(lines))
    table = Table(box=SIMPLE_HEAD)
    kinds = [short_words(name) for name in FACE_CLASSES]
    for heading in ("faces", "all", "accuracy", "95 % interval", *kinds):
        table.add_column(heading)
    for row in result.rows:
        table.add_row(*_cells(row))
    console.print(table)
    _tell(console, (f"model: {out / 'model.safetensors'}, card: {out / 'model.json'}",))
    if history.ended == "interrupted":
        _tell(console, ("--resume continues from the last complete epoch",))


def _guessing(most: float, classes: int) -> float:
    """Return the macro-F1 of always predicting the class that a fraction most of the faces have."""
    return 2 * most / (1 + most) / classes


def _cells(row: SizeRow) -> tuple[str, ...]:
    count = str(row.faces.sum())
    if not row.faces.any():
        return (row.name, count)
    low, high = row.interval
    kinds = zip(row.right.tolist(), row.faces.tolist(), strict=True)
    parts = [f"{right}/{faces}" for right, faces in kinds]
    return (row.name, count, f"{row.accuracy:.3f}", f"{low:.3f} to {high:.3f}", *parts)


def _tell(console: Console, lines: tuple[str, ...]) -> None:
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _figures(p: FitProgress) -> str:
    return f"loss {p.loss:.4f}  accuracy {p.accuracy:.4f}  {p.pictures_per_second:,.0f} faces/s"
