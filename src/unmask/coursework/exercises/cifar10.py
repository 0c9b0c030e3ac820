"""Exercise 2 C: a classifier of CIFAR-10, and a frog that passes for every other class."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from unmask.coursework.cells import not_run, proportion
from unmask.coursework.exercise import Drawings, Exercise, Task, cifar10
from unmask.coursework.fooled import DOCUMENT_WAY, SMALLEST, Fooled, fool
from unmask.coursework.sections import AGREES, DIFFERS, Cell, Picture, Section, Table
from unmask.coursework.training import Made, classifier_for
from unmask.data.cifar10 import CLASSES
from unmask.data.images import Images
from unmask.data.samples import portrait
from unmask.errors import UserError
from unmask.models.classifier import Classifier

ACCURACY, TEST_PICTURES, FROG = 0.8849, 10_000, "frog"
# Structural similarity from which on a change is taken not to be seen; 1 is the same picture.
UNSEEN = 0.99
_CANNOT_BE_SEEN = "can't be seen"


def _run(task: Task) -> tuple[Section, ...]:
    try:
        source = cifar10(task)
    except UserError as error:
        return _without(task, str(error))
    assert source.test is not None
    made = classifier_for(task, "cifar10", task.length.colours, source.train, source.test)
    fooled = fool(
        made.classifier, _frog(made.classifier, source.test), ["a frog"], "CIFAR-10", task.progress
    )
    section = _section(_accuracy(task, made), _rows(fooled))
    averaged = made.test.averaged
    views = (
        f" With mirrored and moved views averaged it is right on {100 * averaged:.2f} %."
        if averaged is not None
        else ""
    )
    return (
        replace(
            section,
            settings=f"{made.told[:1].upper()}{made.told[1:]}; {source.test.name}.{views} The frog "
            "is the first of the test pictures that the classifier knows.",
            pictures=_pictures(fooled, task.draw),
        ),
    )


def _without(task: Task, reason: str) -> tuple[Section, ...]:
    """Return the section without CIFAR-10: its figures not run, the attack shown on a portrait."""
    (section,) = _missing(reason)
    classifier = Classifier.load("cifar10")
    pixels = np.array(portrait().resize((32, 32))).transpose(2, 0, 1)[None]
    with torch.no_grad():
        said = int(classifier(torch.from_numpy(pixels).float() / 255).argmax(1))
    picture = Images(pixels, np.array([said]), CLASSES, "a portrait")
    fooled = fool(classifier, picture, ["a portrait"], "A portrait", task.progress)
    outcome = fooled.grids[SMALLEST].outcome
    figures: dict[str, Any] = classifier.card.facts.get("figures", {})
    return (
        replace(
            section,
            notes=(
                "In the frog's place stands a portrait that comes with matplotlib, 32 pixels a "
                "side, which is of none of the ten classes: the classifier that ships takes it for "
                f"a {CLASSES[said]}. {int(outcome.reached_saved.sum())} of {len(outcome.said)} "
                "changed portraits pass for the class they were to, by the search for the smallest "
                f"change (mean SSIM {outcome.similarity.mean():.4f}).",
                f"By its card the classifier that ships is right on "
                f"{100 * figures['test_accuracy']:.2f} % of the test pictures; that was not "
                "measured again here.",
            ),
            pictures=_pictures(fooled, task.draw),
        ),
    )


def _missing(reason: str) -> tuple[Section, ...]:
    lost = (not_run("all", reason), not_run(_CANNOT_BE_SEEN, reason))
    accuracy = not_run(f"{100 * ACCURACY:.2f} %", reason)
    section = _section(accuracy, tuple((way, lost) for way in (DOCUMENT_WAY, SMALLEST)))
    return (replace(section, reason=reason),)


def _frog(classifier: Classifier, test: Images) -> Images:
    """Return the first frog that the classifier knows: of another little is to be learnt."""
    frogs = np.flatnonzero(test.labels == CLASSES.index(FROG))[:100]
    with torch.no_grad():
        said = classifier(torch.from_numpy(test.pixels[frogs]).float() / 255).argmax(1).numpy()
    known = int((said == CLASSES.index(FROG)).argmax())
    return test[frogs[known : known + 1]]


def _accuracy(task: Task, made: Made) -> Cell:
    right, count = int(made.test.confusion.trace()), len(made.test.labels)
    reason = (
        "The network and the recipe are not the document's."
        if task.length.colours != "document"
        else "The recipe is the document's as far as it tells it."
    )
    return proportion(ACCURACY, right, count, of=TEST_PICTURES, reason=reason)


def _rows(fooled: Fooled) -> tuple[tuple[str, tuple[Cell | None, ...]], ...]:
    return tuple((way, (fooled.reached(way), _unseen(fooled, way))) for way in fooled.grids)


def _unseen(fooled: Fooled, way: str) -> Cell:
    outcome = fooled.grids[way].outcome
    least = float(outcome.similarity.min())
    why = (
        f"Read as: the structural similarity (SSIM) of every picture to the frog is {UNSEEN:g} or "
        f"more. Mean change of a value at most {255 * outcome.linf.mean():.1f}/255, mean L2 "
        f"{outcome.l2.mean():.2f}."
    )
    if way == DOCUMENT_WAY and least < UNSEEN:
        why += (
            " Nothing keeps the change small in this way, and the document names neither the "
            "learning rate nor the size of its generators nor how near they come to the picture."
        )
    verdict = AGREES if least >= UNSEEN else DIFFERS
    return Cell(_CANNOT_BE_SEEN, f"SSIM ≥ {np.floor(least * 1000) / 1000:.3f}", verdict, why)


def _pictures(fooled: Fooled, draw: Drawings) -> tuple[Picture, ...]:
    return (
        fooled.picture(DOCUMENT_WAY, "The document's way, and the change, magnified.", draw),
        fooled.picture(SMALLEST, "The same by the search for the smallest change.", draw),
    )


def _section(accuracy: Cell, rows: tuple[tuple[str, tuple[Cell | None, ...]], ...]) -> Section:
    return Section(
        "Exercise 2 C",
        "CIFAR-10 and a frog",
        "Three blocks of two convolutions with batch norm, max-pool and dropout, trained by Adam "
        "for 100 epochs on mirrored and moved pictures: 88.49 %. The generator attack on a frog "
        "reaches all classes, and the changes can't be seen.",
        tables=(
            Table("What the classifier reaches", ("test accuracy",), (("CIFAR-10", (accuracy,)),)),
            Table("The frog", ("classified as wanted", "the changes"), rows),
        ),
    )


COLOURS = Exercise("colours", "Exercise 2 C: CIFAR-10", _run, _missing)
