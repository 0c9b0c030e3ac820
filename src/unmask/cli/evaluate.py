"""The verb evaluate: what a model makes of labelled pictures."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from unmask.cli.loading import load_shown
from unmask.cli.options import Cifar10Source, Data, Device, FiguresAsJson, Model
from unmask.data.images import Images
from unmask.data.sources import Source
from unmask.errors import UserError, unknown
from unmask.models.classifier import Classifier
from unmask.report.evaluation import write_evaluation
from unmask.runtime import environment_stamp
from unmask.train.config import TEST_TIMES
from unmask.train.device import pick_device
from unmask.train.evaluation import Evaluation, evaluate, matched

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
        Parameter(help="views to average too: none, flip or flip_shift; its recipe's by default"),
    ] = None,
    out: Annotated[
        Path | None, Parameter(help="the folder for report.html, its figures and the numbers")
    ] = None,
    device: Device = "auto",
    json: FiguresAsJson = False,
) -> int:
    """Measure a classifier: accuracy, confusion, each class, calibration, worst mistakes."""
    classifier = Classifier.load(model)
    pictures = load_shown(Console(stderr=True), data, source, classifier.card.input_shape)
    images = matched(_part(pictures, part), classifier.class_names)
    place = pick_device(device)
    if views is None:
        used = classifier.card.facts.get("recipe")
        views = str(used.get("test_time", "none")) if isinstance(used, dict) else "none"
    if views not in TEST_TIMES:
        raise unknown("views", views, TEST_TIMES)
    found = evaluate(
        classifier.to(place),
        images,
        test_time=views,
        device=place,
        stamp=environment_stamp(
            model=classifier.card.weights_sha256, data=images.sha256, pictures=images.name
        ),
    )
    page = None if out is None else write_evaluation(found, images, classifier.card, out)
    if json:
        print(json_module.dumps(found.as_dict()))
    else:
        _print(Console(), found, images)
        if page is not None:
            print(f"report: {page}")
    return 0


def _part(pictures: Source, part: str | None) -> Images:
    found = {"test": pictures.test, "validation": pictures.validation, "train": pictures.train}
    if part is None:
        return next(images for images in found.values() if images is not None)
    chosen = found.get(part)
    if chosen is None:
        there = [name for name in PARTS if found[name] is not None]
        raise UserError("there are no such pictures", got=part, do=f"choose {' or '.join(there)}")
    return chosen


def _print(console: Console, found: Evaluation, images: Images) -> None:
    low, high = found.interval
    lines = [
        f"{len(images):,} pictures of {images.name}",
        f"accuracy {found.accuracy:.4f} (95 % interval {low:.4f} to {high:.4f})",
        f"macro-F1 {found.macro_f1:.4f}, the mean of the classes' F1",
        f"loss {found.loss:.4f}, calibration error {found.calibration_error:.4f}",
    ]
    if found.averaged is not None:
        lines.insert(2, f"accuracy with averaged views {found.averaged:.4f}")
    for line in lines:
        console.print(line, markup=False, highlight=False)
    table = Table("class", "pictures", "recall", "precision", "F1", "most often taken for")
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
            f"picture {i}: {true} taken for {said}, {found.confidence[i]:.1%} sure",
            markup=False,
            highlight=False,
        )
