"""Exercise 2 C: a classifier of CIFAR-10, and a frog changed into every other class."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from unmask.coursework.cells import not_run, proportion
from unmask.coursework.exercise import Drawings, Exercise, Task, cifar10
from unmask.coursework.generator_grids import REPORT_WAY, SMALLEST, Fooled, fool
from unmask.coursework.sections import AGREES, DIFFERS, FROM_CARD, Cell, Picture, Section, Table
from unmask.coursework.training import Made, classifier_for, predicted
from unmask.data.cifar10 import CLASSES
from unmask.data.images import Images
from unmask.data.samples import cifar10_sample
from unmask.errors import UserError
from unmask.models.classifier import Classifier

ACCURACY, TEST_IMAGES, FROG = 0.8849, 10_000, "frog"
# The structural similarity above which a change counts as invisible; 1 is the same image.
UNSEEN = 0.99
_CANNOT_BE_SEEN = "can't be seen"


def _run(task: Task) -> tuple[Section, ...]:
    try:
        source = cifar10(task)
    except UserError as error:
        if task.length.colours is not None:
            return _missing(str(error))
        return (_of_sample(task),)
    assert source.test is not None
    made = classifier_for(task, "cifar10", task.length.colours, source.train, source.test)
    fooled = _fooled(task, made.classifier, source.test)
    averaged = made.test.averaged
    views = (
        f" With mirrored and shifted views averaged it is right on {100 * averaged:.2f} %."
        if averaged is not None
        else ""
    )
    settings = (
        f"{made.told[:1].upper()}{made.told[1:]}; {source.test.name}.{views} The frog is the first "
        "of the test images that the classifier knows."
    )
    return (_filled(task, fooled, _accuracy(task, made), settings),)


def _of_sample(task: Task) -> Section:
    """Return the section without the whole set: the frog ships, the card states the accuracy."""
    classifier, sample = Classifier.load("cifar10"), cifar10_sample()
    right = int((predicted(classifier, sample) == sample.labels).sum())
    figures = classifier.card.facts["figures"]
    cell = proportion(
        ACCURACY,
        round(figures["test_accuracy"] * TEST_IMAGES),
        TEST_IMAGES,
        of=TEST_IMAGES,
        reason="The network and the recipe are not the report's.",
    )
    cell = replace(
        cell,
        source=FROM_CARD,
        why=f"{cell.why} By the card of the classifier that ships, measured at its release on the "
        f"{TEST_IMAGES:,} test images; unmask evaluate cifar10 cifar10 measures it again.",
    )
    settings = (
        f"The classifier that ships. The frog is the first that it knows of the {len(sample)} test "
        f"images that ship, of which it is right on {right}. With the whole set, which unmask data "
        "cifar10 fetches, the accuracy is measured here as well."
    )
    return _filled(task, _fooled(task, classifier, sample), cell, settings)


def _fooled(task: Task, classifier: Classifier, test: Images) -> Fooled:
    return fool(classifier, _frog(classifier, test), ["a frog"], "CIFAR-10", task.progress)


def _filled(task: Task, fooled: Fooled, accuracy: Cell, settings: str) -> Section:
    section = _section(accuracy, _rows(fooled))
    return replace(section, settings=settings, pictures=_pictures(fooled, task.draw))


def _missing(reason: str) -> tuple[Section, ...]:
    lost = (not_run("all", reason), not_run(_CANNOT_BE_SEEN, reason))
    accuracy = not_run(f"{100 * ACCURACY:.2f} %", reason)
    section = _section(accuracy, tuple((way, lost) for way in (REPORT_WAY, SMALLEST)))
    return (replace(section, reason=reason),)


def _frog(classifier: Classifier, test: Images) -> Images:
    """Return the first frog that is classified correctly: fooling any other shows little."""
    frogs = test[np.flatnonzero(test.labels == CLASSES.index(FROG))[:100]]
    known = int((predicted(classifier, frogs) == frogs.labels).argmax())
    return frogs[known : known + 1]


def _accuracy(task: Task, made: Made) -> Cell:
    right, count = int(made.test.confusion.trace()), len(made.test.labels)
    reason = (
        "The network and the recipe are not the report's."
        if task.length.colours != "document"
        else "The recipe is the report's as far as it tells it."
    )
    return proportion(ACCURACY, right, count, of=TEST_IMAGES, reason=reason)


def _rows(fooled: Fooled) -> tuple[tuple[str, tuple[Cell | None, ...]], ...]:
    return tuple((way, (fooled.reached(way), _unseen(fooled, way))) for way in fooled.grids)


def _unseen(fooled: Fooled, way: str) -> Cell:
    outcome = fooled.grids[way].outcome
    least = float(outcome.similarity.min())
    why = (
        f"Read as: the structural similarity (SSIM) of every image to the frog is {UNSEEN:g} or "
        f"more. Mean change of a value at most {255 * outcome.linf.mean():.1f}/255, mean L2 "
        f"{outcome.l2.mean():.2f}."
    )
    if way == REPORT_WAY and least < UNSEEN:
        why += (
            " Nothing keeps the change small in this way, and the report names neither the "
            "learning rate nor the size of its generators nor how near they come to the image."
        )
    verdict = AGREES if least >= UNSEEN else DIFFERS
    return Cell(_CANNOT_BE_SEEN, f"SSIM ≥ {np.floor(least * 1000) / 1000:.3f}", verdict, why)


def _pictures(fooled: Fooled, draw: Drawings) -> tuple[Picture, ...]:
    return (
        fooled.picture(REPORT_WAY, "The report's way, and the change, magnified.", draw),
        fooled.picture(SMALLEST, "The same by the search for the smallest change.", draw),
    )


def _section(accuracy: Cell, rows: tuple[tuple[str, tuple[Cell | None, ...]], ...]) -> Section:
    return Section(
        "Exercise 2 C",
        "CIFAR-10 and a frog",
        "Three blocks of two convolutions with batch norm, max-pool and dropout, trained by Adam "
        "for 100 epochs on mirrored and moved images: 88.49 %. The generator attack on a frog "
        "reaches all classes, and the changes can't be seen.",
        tables=(
            Table("What the classifier reaches", ("test accuracy",), (("CIFAR-10", (accuracy,)),)),
            Table("The frog", ("classified as wanted", "the changes"), rows),
        ),
    )


COLOURS = Exercise("colours", "Exercise 2 C: CIFAR-10", _run, _missing)
