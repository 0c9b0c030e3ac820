"""The verb evaluate: a model's figures on labelled images."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.table import Table

from unmask.cli.console import Console
from unmask.cli.options import Cifar10Source, Data, Device, FiguresAsJson, Model, ModelSize
from unmask.cli.progress import load_shown
from unmask.cli.streams import aside, say
from unmask.errors import UserError, unknown
from unmask.runtime import environment_stamp

if TYPE_CHECKING:
    from unmask.data.images import Images
    from unmask.data.sources import Source
    from unmask.train.evaluation import Evaluation

PARTS = ("test", "validation", "train")
_WORST = 10


def evaluate_model(
    model: Model,
    data: Data,
    /,
    *,
    source: Cifar10Source = None,
    part: Annotated[
        str | None, Parameter(help="test, validation or train; the first there is by default")
    ] = None,
    views: Annotated[
        str | None,
        Parameter(
            help="test-time augmentation to measure too: none, flip or flip_shift; its recipe's "
            "by default"
        ),
    ] = None,
    out: Annotated[
        Path | None, Parameter(help="the folder for report.html, its figures and the numbers")
    ] = None,
    size: ModelSize = None,
    device: Device = "auto",
    json: FiguresAsJson = False,
) -> int:
    """Measure a classifier: accuracy, confusion, each class, calibration, worst mistakes."""
    from unmask.data.sources import shape_for
    from unmask.models.classifier import Classifier
    from unmask.models.given import channels_of, failed
    from unmask.models.load import card_of, load_model
    from unmask.models.preprocessing import Wrapped
    from unmask.report.evaluation import write_evaluation
    from unmask.train.config import TEST_TIMES
    from unmask.train.device import pick_device
    from unmask.train.evaluation import evaluate, matched

    foreign = aside()
    loaded = load_model(model)
    console = Console(stderr=True)
    if isinstance(loaded, Wrapped):
        console.print(loaded.describe(), markup=False, highlight=False, soft_wrap=True)
    channels = channels_of(loaded.network) if isinstance(loaded, Wrapped) else None
    shape = shape_for(data, loaded.input_shape, channels=channels, size=size)
    source_data = load_shown(console, data, source, shape)
    images = _part(source_data, part)
    if loaded.class_names is not None:
        images = matched(images, loaded.class_names)
    elif isinstance(loaded, Wrapped):
        loaded.likely = len(images.class_names)
    facts = loaded.card.facts if isinstance(loaded, Classifier) else {}
    if (warning := _seen_in_training(facts, images)) is not None:
        console.print(warning, markup=False, highlight=False, soft_wrap=True)
    place = pick_device(device)
    if views is None:
        used = facts.get("recipe")
        views = str(used.get("test_time", "none")) if isinstance(used, dict) else "none"
    if views not in TEST_TIMES:
        raise unknown("views", views, TEST_TIMES)
    card = card_of(loaded, input_shape=images.shape, class_names=images.class_names)
    stamp = environment_stamp(
        model=card.weights_sha256 or card.architecture, data=images.sha256, pictures=images.name
    )
    try:
        found = evaluate(loaded.to(place), images, test_time=views, device=place, stamp=stamp)
    except UserError:
        raise
    except Exception as error:
        raise failed(error, images.shape) from error
    page = None if out is None else write_evaluation(found, images, card, out)
    foreign.close()
    if json:
        print(json_module.dumps(found.as_dict()))
    else:
        _print(Console(), found, images)
        if page is not None:
            say(f"report: {page}")
    return 0


def _seen_in_training(facts: dict[str, Any], images: Images) -> str | None:
    """Return a warning if the card names these images, or a set of that name, as training set."""
    trained = facts.get("data")
    if not isinstance(trained, dict):
        return None
    same = trained.get("sha256") == images.sha256
    # A fifth of a folder is held out, so its checksum differs.
    if not same and not (trained.get("name") == images.name and images.name.endswith(" train")):
        return None
    figures = facts.get("figures")
    held = figures.get("validation_accuracy") if isinstance(figures, dict) else None
    honest = "" if held is None else f"; on images held out it was {held:.4f}"
    return (
        "warning: the model was trained on these images, so the accuracy is too high for others"
        f"{honest}; give images it hasn't seen"
    )


def _part(source: Source, part: str | None) -> Images:
    if part is None:
        return source.tested
    found = {"test": source.test, "validation": source.validation, "train": source.train}
    chosen = found.get(part)
    if chosen is None:
        there = [name for name in PARTS if found[name] is not None]
        raise UserError("there are no such images", got=part, do=f"choose {' or '.join(there)}")
    return chosen


def _print(console: Console, found: Evaluation, images: Images) -> None:
    low, high = found.interval
    lines = [
        f"{len(images):,} images of {images.name}",
        f"accuracy {found.accuracy:.4f} (95 % interval {low:.4f} to {high:.4f})",
        f"macro-F1 {found.macro_f1:.4f}, the mean of the classes' F1",
        f"loss {found.loss:.4f}, calibration error {found.calibration_error:.4f}",
    ]
    if found.averaged is not None:
        lines.insert(2, f"accuracy with test-time augmentation {found.averaged:.4f}")
    for line in lines:
        console.print(line, markup=False, highlight=False)
    table = Table("class", "images", "recall", "precision", "F1", "most often predicted instead")
    for k, name in enumerate(found.class_names):
        others = found.confusion[k].copy()
        others[k] = 0
        most = int(others.argmax())
        taken = f"{found.class_names[most]} ({others[most]})" if others[most] else ""
        count = int(found.confusion[k].sum())
        figures = (found.recall[k], found.precision[k], found.f1[k])
        table.add_row(name, str(count), *(f"{f:.4f}" for f in figures), taken)
    console.print(table)
    for i in found.worst(_WORST):
        said, true = (found.class_names[k] for k in (found.predictions[i], found.labels[i]))
        console.print(
            f"image {i}: {true} predicted as {said}, confidence {found.confidence[i]:.1%}",
            markup=False,
            highlight=False,
        )
