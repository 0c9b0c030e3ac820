"""Exercise 3: annotated faces, with a mask or without."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from unmask.coursework.cells import exceeded, not_run
from unmask.coursework.exercise import Exercise, Task, faces
from unmask.coursework.masked import looked_at
from unmask.coursework.sections import AGREES, CORRECTED, DIFFERS, Cell, Picture, Section, Table
from unmask.coursework.training import epochs, stop_if_interrupted
from unmask.data.detection.dataset import FACE_CLASSES, AnnotatedImages
from unmask.data.kaggle import PICTURES
from unmask.errors import UserError
from unmask.mask.runtime.classes import plain_words
from unmask.mask.training.classifier import TrainedOnFaces, face_recipe, train_on_faces

BAR, LOSS_BAR, FACES = 0.97, 0.01, 4072
# As the document has them: it swaps the last two.
DOCUMENT_COUNTS = {"with_mask": 3232, "without_mask": 123, "mask_weared_incorrect": 717}
_SHIPS = "this length trains none: what ships finds faces, where the document's is given them"


def _run(task: Task) -> tuple[Section, ...]:
    try:
        annotated, reason = faces(task), ""
    except UserError as error:
        annotated, reason = None, str(error)
    trained = None
    if annotated is not None and task.length.faces is not None:
        trained = train_on_faces(
            face_recipe(task.length.faces),
            annotated,
            out=task.folder,
            resume=True,
            progress=epochs(task.progress, f"training by the recipe {task.length.faces}"),
        )
        stop_if_interrupted(trained.trained.history)
    pictures, notes = _detector(task)
    section = _section(
        _counts(annotated) if annotated is not None else _no_counts(reason),
        _figures(trained) if trained is not None else _no_figures(reason or _SHIPS),
    )
    if trained is not None:
        notes = (*_told(trained), *notes)
        section = replace(section, settings=_settings(task, trained))
    return (replace(section, notes=notes, pictures=pictures, reason=reason),)


def _missing(reason: str) -> tuple[Section, ...]:
    return (replace(_section(_no_counts(reason), _no_figures(reason)), reason=reason),)


def _detector(task: Task) -> tuple[tuple[Picture, ...], tuple[str, ...]]:
    task.progress("looking at a portrait", None)
    try:
        return looked_at()
    except UserError as error:
        return (), (f"The detector was not tried on a portrait: {error}.",)


def _counts(annotated: AnnotatedImages) -> tuple[Cell, ...]:
    labels = np.concatenate(annotated.labels)
    found = np.bincount(labels, minlength=len(FACE_CLASSES)).tolist()
    whole = len(annotated.paths) == PICTURES
    part = "" if whole else f"{len(annotated.paths)} of the set's {PICTURES} pictures are here. "
    cells = [
        _count(PICTURES, len(annotated.paths), part),
        _count(FACES, len(labels), part),
        _count(DOCUMENT_COUNTS["with_mask"], found[0], part),
    ]
    # Swapped, whatever part of the set is here: those without a mask are several times as many.
    swapped = found[1] > found[2]
    for name, count in zip(FACE_CLASSES[1:], found[1:], strict=True):
        cell = _count(DOCUMENT_COUNTS[name], count, part)
        if swapped:
            why = f"{part}The document swaps the two: far more faces are bare than masked badly."
            cell = Cell(cell.document, cell.ours, CORRECTED, why)
        cells.append(cell)
    return tuple(cells)


def _count(document: int, ours: int, part: str) -> Cell:
    alike = document == ours
    why = "Counted in the annotations." if alike else f"{part}Counted in the annotations."
    return Cell(f"{document:,}", f"{ours:,}", AGREES if alike else DIFFERS, why)


def _no_counts(reason: str) -> tuple[Cell, ...]:
    return tuple(not_run(f"{n:,}", reason) for n in (PICTURES, FACES, *DOCUMENT_COUNTS.values()))


def _figures(result: TrainedOnFaces) -> tuple[Cell, Cell]:
    found = result.validation
    right, count = int(found.confusion.trace()), len(found.labels)
    accuracy = exceeded(BAR, right, count, of=f"faces of {result.pictures} pictures held out")
    most = int(found.confusion.sum(1).max())
    guess = f"Always saying with mask is right on {100 * most / count:.1f} %."
    if accuracy.verdict == DIFFERS:
        guess += " The document stops at the first epoch that does, on 10 % of the faces."
    loss = Cell(
        f"< {LOSS_BAR:g}",
        f"{found.loss:.4f}",
        AGREES if found.loss < LOSS_BAR else DIFFERS,
        "“Less than 1 %” in the document. A cross-entropy is no per cent, and at an accuracy of "
        f"97 % one below {LOSS_BAR:g} is out of reach: a face judged wrong adds log 2 at least, "
        f"which alone makes {0.03 * np.log(2):.3f}.",
    )
    return replace(accuracy, why=f"{accuracy.why} {guess}"), loss


def _no_figures(reason: str) -> tuple[Cell, Cell]:
    return not_run(f"> {100 * BAR:g} %", reason), not_run(f"< {LOSS_BAR:g}", reason)


def _told(result: TrainedOnFaces) -> tuple[str, ...]:
    whole = result.rows[-1]
    recalls = ", ".join(
        f"{plain_words(name)} {right} of {count}"
        for name, right, count in zip(
            FACE_CLASSES, whole.right.tolist(), whole.faces.tolist(), strict=True
        )
    )
    return (
        f"Accuracy alone says little where four faces in five wear a mask: macro-F1 "
        f"{result.validation.macro_f1:.4f}. Judged right by annotated class: {recalls}.",
    )


def _settings(task: Task, result: TrainedOnFaces) -> str:
    history = result.trained.history
    best = history.best
    assert best is not None
    return (
        f"Trained from nothing by the recipe {task.length.faces}, {len(history.epochs)} epochs in "
        f"{history.epochs[-1].seconds:.0f} s; one picture in ten held out whole, where the "
        "document holds out faces."
    )


def _section(counts: tuple[Cell, ...], figures: tuple[Cell, Cell]) -> Section:
    rows = ("pictures", "faces", *(plain_words(name) for name in FACE_CLASSES))
    return Section(
        "Exercise 3",
        "Faces with and without masks",
        "Kaggle's face mask set; faces worn improperly count as without a mask. Three blocks of "
        "convolution, batch norm, max-pool and dropout, then a hidden layer and one output, "
        "trained until the validation accuracy exceeds 97 %. It judges annotated faces and finds "
        "none itself.",
        tables=(
            Table(
                "The pictures",
                ("count",),
                tuple((name, (cell,)) for name, cell in zip(rows, counts, strict=True)),
            ),
            Table(
                "What the classifier reaches",
                ("validation accuracy", "validation loss"),
                (("with mask or without", figures),),
            ),
        ),
    )


FACES_EXERCISE = Exercise("faces", "Exercise 3: faces and masks", _run, _missing)
