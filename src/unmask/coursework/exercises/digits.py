"""Exercises 2 A and 2 B: a classifier of digits, and generators that fool it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from unmask.coursework.cells import all_of, exceeded, not_run
from unmask.coursework.exercise import Exercise, Task
from unmask.coursework.generator_grids import REPORT_WAY, SMALLEST, Fooled, fool
from unmask.coursework.sections import UNDECIDED, Cell, Section, Table
from unmask.coursework.training import Made, classifier_for
from unmask.data.mnist import load_mnist
from unmask.models.classifier import Classifier

DIGITS = (0, 1, 2, 4, 7)
_BAR = 0.993
_READ = "all"
_READER = "mnist-hardened"


def _run(task: Task) -> tuple[Section, ...]:
    train, test = load_mnist()
    made = classifier_for(task, "mnist", task.length.digits, train, test)
    chosen = test[np.array([int((test.labels == digit).argmax()) for digit in DIGITS])]
    fooled = fool(made.classifier, chosen, [f"digit {d}" for d in DIGITS], "MNIST", task.progress)
    a, b = _sections(_accuracy(made), _grid_rows(fooled))
    low, high = made.test.interval
    note = (
        f"On the {len(test):,} test images it is right on {100 * made.test.accuracy:.2f} % (95 % "
        f"interval {100 * low:.2f} to {100 * high:.2f} %), loss {made.test.loss:.4f}."
    )
    settings = f"{made.told[:1].upper()}{made.told[1:]}."
    return (
        replace(a, settings=settings, notes=(note,) if made.history else ()),
        replace(
            b,
            settings="The first test images of the digits 0, 1, 2, 4 and 7, each towards the "
            "nine other classes, once as the report did it and once by the search for the "
            "smallest change. The classifier is that of Exercise 2 A.",
            pictures=(
                fooled.picture(
                    REPORT_WAY, "The report's way: nothing keeps the change small.", task.draw
                ),
                fooled.picture(
                    SMALLEST, "The same pairs, by the search for the smallest change.", task.draw
                ),
            ),
        ),
    )


def _missing(reason: str) -> tuple[Section, ...]:
    rows = tuple((way, _not_run(reason)) for way in (REPORT_WAY, SMALLEST))
    return _sections(not_run(f"> {100 * _BAR:g} %", reason), rows)


def _not_run(reason: str) -> tuple[Cell, Cell]:
    return not_run("all", reason), not_run(_READ, reason)


def _accuracy(made: Made) -> Cell:
    """Return the validation accuracy of a trained classifier, or a shipped one's test accuracy."""
    if made.history is None:
        right, count = int(made.test.confusion.trace()), len(made.test.labels)
        cell = exceeded(_BAR, right, count, of="test images")
        return replace(
            cell, why=f"{cell.why} What ships was trained on every training image: none validate."
        )
    best = made.history.best
    assert best is not None
    assert best.validation_accuracy is not None
    count = made.validation_pictures
    cell = exceeded(_BAR, round(best.validation_accuracy * count), count, of="validation images")
    return replace(cell, why=f"{cell.why} Epoch {best.epoch}, after {best.train_seconds:.0f} s.")


def _grid_rows(fooled: Fooled) -> tuple[tuple[str, tuple[Cell | None, ...]], ...]:
    reader = Classifier.load(_READER)
    rows = []
    for way in (REPORT_WAY, SMALLEST):
        read, count = fooled.read_by(reader, way), len(fooled.grids[way].rows)
        cell = all_of(
            _READ,
            read,
            count,
            "Nobody was asked: a second classifier, hardened against changes, stands in for "
            f"people, and gives {read} of the {count} changed images their own digit.",
        )
        if read < count:
            cell = replace(cell, verdict=UNDECIDED)
        rows.append((way, (fooled.reached(way), cell)))
    return tuple(rows)


def _sections(
    accuracy: Cell, rows: tuple[tuple[str, tuple[Cell | None, ...]], ...]
) -> tuple[Section, Section]:
    return (
        Section(
            "Exercise 2 A",
            "A classifier of digits",
            "Three times convolution, ReLU and max-pool, then a hidden layer and softmax, trained "
            "by Adam on MNIST until the validation accuracy exceeds 99.3 %.",
            tables=(
                Table("What the classifier reaches", ("accuracy",), (("MNIST", (accuracy,)),)),
            ),
        ),
        Section(
            "Exercise 2 B",
            "Generators that fool it",
            "A generator for every image and class is first trained to give the image, then "
            "until the frozen classifier predicts the class: a grid of five digits by ten classes. "
            "Every image is classified as wanted, and people still read the original digit.",
            tables=(
                Table("The grid", ("classified as wanted", "still read as the original"), rows),
            ),
        ),
    )


DIGITS_EXERCISE = Exercise("digits", "Exercises 2 A and B: digits", _run, _missing)
