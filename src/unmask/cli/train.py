"""The verb train: images and a recipe become a classifier."""

from __future__ import annotations

import json as json_module
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from unmask.cli.console import Console
from unmask.cli.options import (
    MANY,
    BatchSize,
    Cifar10Source,
    Data,
    Device,
    Epochs,
    FiguresAsJson,
    LearningRate,
    Resume,
    Seed,
    Size,
    Validation,
    real,
)
from unmask.cli.progress import epoch_progress, load_shown
from unmask.errors import UserError
from unmask.text import counted

if TYPE_CHECKING:
    from unmask.data.sources import Source
    from unmask.train.fit import FitProgress
    from unmask.train.job import Trained
    from unmask.train.recipes import Recipe


def train(
    data: Data,
    /,
    *,
    recipe_name: Annotated[
        str,
        Parameter(name="--recipe", help="fast, long, document and more; a wrong name lists them"),
    ] = "fast",
    out: Annotated[
        Path | None, Parameter(help="the folder of the run; runs/train-DATA-RECIPE by default")
    ] = None,
    source: Cifar10Source = None,
    size: Size = None,
    start: Annotated[
        str | None, Parameter(help="train this model further, instead of a new one")
    ] = None,
    teacher: Annotated[
        list[str] | None,
        Parameter(help="distil these models: learn what they predict as well as the labels"),
        MANY,
    ] = None,
    teacher_fraction: Annotated[
        float,
        real(0, 1, "fraction of what is learnt that is the teachers' and not the label's"),
    ] = 0.8,
    epochs: Epochs | None = None,
    batch_size: BatchSize | None = None,
    optimizer: Annotated[
        str | None, Parameter(help="sgd, adam, adamw, muon, muon_adamw; the recipe's by default")
    ] = None,
    learning_rate: LearningRate | None = None,
    weight_decay: Annotated[
        float | None,
        real(0, 1e6, "of matrices and filters; the recipe's by default"),
    ] = None,
    target: Annotated[
        float | None,
        real(0, 1, "stop when validation accuracy exceeds this"),
    ] = None,
    validation: Validation = None,
    precision: Annotated[str, Parameter(help="auto, bf16 or fp32")] = "auto",
    device: Device = "auto",
    seed: Seed = 0,
    half: Annotated[bool, Parameter(help="store the weights in half precision")] = False,
    temperature: Annotated[
        float | None, real(0, 1e6, "divide the stored model's logits by this", above=True)
    ] = None,
    calibrate: Annotated[
        bool, Parameter(help="divide them by the temperature that fits the validation images best")
    ] = False,
    resume: Resume = False,
    tensorboard: Annotated[bool, Parameter(help="write events to --out/tensorboard")] = False,
    json: FiguresAsJson = False,
) -> int:
    """Train a classifier on MNIST, CIFAR-10 or your own images, a folder for each class."""
    # torch takes a while to load, and --help needs none of it.
    from unmask.data.sources import shape_for
    from unmask.models.classifier import Classifier
    from unmask.models.load import load_model
    from unmask.runtime import claimed_folder
    from unmask.train.distributed import joined, processes
    from unmask.train.fit import FitInterrupted
    from unmask.train.job import train_classifier
    from unmask.train.recipes import recipe
    from unmask.train.teacher import Teacher

    with joined(device) as own_device:
        first = processes().first
        console = Console(stderr=True, quiet=not first)
        started = Classifier.load(start) if start else None
        teachers = tuple(map(load_model, teacher or ()))
        # Grey images are read in colour only for a model that takes colour.
        taken = [m.input_shape[0] for m in (started, *teachers) if m and m.input_shape]
        shape = shape_for(data, channels=taken[0] if taken else None, size=size)
        with processes().first_on_machine():
            pictures = load_shown(console, data, source, shape)
        chosen = recipe(pictures.kind, recipe_name, len(pictures.train))
        given: dict[str, Any] = {
            "epochs": epochs,
            "batch_size": batch_size,
            "target": target,
            "precision": None if precision == "auto" else precision,
            "seed": seed,
            "weight_decay": weight_decay,
        }
        config = replace(chosen.config, **{k: v for k, v in given.items() if v is not None})
        if optimizer not in (None, config.optimizer):
            # The recipe's learning rates belong to its own optimiser.
            usual = 0.1 if optimizer == "sgd" else 1e-3
            config = replace(
                config, optimizer=str(optimizer), rate=usual, bias_rate=None, head_rate=None
            )
        if learning_rate is not None:
            config = config.at_rate(learning_rate)
        chosen = replace(chosen, config=config)
        if validation is not None:
            chosen = replace(chosen, holdout=validation)
        out = out or Path("runs") / f"train-{Path(data).stem}-{recipe_name}"
        console.print(_found(pictures), markup=False, highlight=False, soft_wrap=True)
        claim = claimed_folder(out, data) if first else nullcontext()
        with claim, epoch_progress(console, _figures) as show:
            if first and not resume:
                _keep_previous(console, out / "model")
            try:
                trained = train_classifier(
                    chosen,
                    pictures.train,
                    out=out,
                    validation=pictures.validation,
                    test=pictures.test,
                    start=started,
                    teacher=Teacher(teachers, teacher_fraction) if teachers else None,
                    licence=pictures.licence,
                    half=half,
                    temperature=temperature,
                    calibrate=calibrate,
                    resume=resume,
                    device=own_device,
                    progress=show,
                    tensorboard=tensorboard,
                )
            except FitInterrupted:
                raise UserError(
                    "stopped before the first epoch ended; nothing was saved",
                    do="run the command again",
                ) from None
        if not first:
            return 0
        if json:
            print(json_module.dumps(_as_dict(trained, out)))
        else:
            _print(Console(), chosen, trained, out)
        return 130 if trained.history.ended == "interrupted" else 0


def _found(pictures: Source) -> str:
    parts = [("training", pictures.train), ("validation", pictures.validation)]
    counts = [
        f"{len(i):,} {name}" for name, i in (*parts, ("test", pictures.test)) if i is not None
    ]
    names = pictures.train.class_names
    shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    shape = " x ".join(map(str, pictures.train.shape))
    return f"{', '.join(counts)} images of {shape} in {len(names)} classes: {shown}"


def _keep_previous(console: Console, model: Path) -> None:
    """Move a model that lies where this run will write, and report it."""
    weights = model.with_suffix(".safetensors")
    if not weights.exists():
        return
    kept = model.with_name("model-previous")
    for suffix in (".safetensors", ".json"):
        if model.with_suffix(suffix).exists():
            model.with_suffix(suffix).replace(kept.with_suffix(suffix))
    console.print(
        f"{weights} is of an earlier run; it is kept as {kept.with_suffix('.safetensors').name}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def _as_dict(trained: Trained, out: Path) -> dict[str, Any]:
    return {
        "model": str(out / "model.safetensors"),
        "ended": trained.history.ended,
        "best_epoch": trained.history.best_epoch,
        "epochs": [asdict(e) for e in trained.history.epochs],
        "card": trained.classifier.card.as_dict(),
    }


def _print(console: Console, chosen: Recipe, trained: Trained, out: Path) -> None:
    history = trained.history
    best = history.best
    assert best is not None
    ended = {
        "finished": f"trained {counted(len(history.epochs), 'epoch')}",
        "target": f"reached the target in epoch {len(history.epochs)}",
        "interrupted": f"stopped in epoch {len(history.epochs) + 1}",
    }[history.ended]
    lines = [f"{ended} in {history.epochs[-1].seconds:.0f} s ({chosen.purpose})"]
    if best.validation_accuracy is not None:
        lines.append(
            f"validation accuracy {best.validation_accuracy:.4f} in epoch {best.epoch}"
            + _averaged(best.validation_averaged)
        )
    if (temperature := trained.classifier.card.facts.get("temperature")) is not None:
        lines.append(f"logits divided by the temperature {temperature:.4f}")
    if trained.test is not None:
        low, high = trained.test.interval
        lines.append(
            f"test accuracy {trained.test.accuracy:.4f} (95 % interval {low:.4f} to {high:.4f})"
            + _averaged(trained.test.averaged)
        )
    lines.append(f"model: {out / 'model.safetensors'}, card: {out / 'model.json'}")
    if history.ended == "interrupted":
        lines.append("that is the best so far; --resume continues from the last complete epoch")
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _averaged(accuracy: float | None) -> str:
    return "" if accuracy is None else f", {accuracy:.4f} with test-time augmentation"


def _figures(p: FitProgress) -> str:
    return (
        f"training loss {p.loss:.4f}  training accuracy {p.accuracy:.4f}  "
        f"{p.pictures_per_second:,.0f} images/s"
    )
