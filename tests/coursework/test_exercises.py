"""Each exercise on what is small: its figures are those of what it was given."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import made_up
from made_up_annotations import voc_text
from unmask.coursework import exercise, portraits
from unmask.coursework.exercise import LENGTHS, Length, Task
from unmask.coursework.exercises import cifar10 as colours
from unmask.coursework.exercises import depth as study
from unmask.coursework.exercises import digits, faces
from unmask.coursework.exercises.cifar10 import COLOURS
from unmask.coursework.exercises.depth import STUDY
from unmask.coursework.exercises.digits import DIGITS_EXERCISE
from unmask.coursework.exercises.faces import FACES_EXERCISE
from unmask.coursework.exercises.ranges import BOUNDS
from unmask.coursework.run import EXERCISES
from unmask.coursework.sections import (
    AGREES,
    CORRECTED,
    DIFFERS,
    FROM_CARD,
    NOT_RUN,
    SOME_SEEDS,
    UNDECIDED,
    Cell,
    Picture,
    Section,
)
from unmask.coursework.study.plan import StudyPlan
from unmask.coursework.study.run import Study
from unmask.coursework.training import Made
from unmask.data.cifar10 import CLASSES
from unmask.data.images import Images
from unmask.data.sources import Source
from unmask.errors import UserError
from unmask.mask.training.classifier import FACE_RECIPES
from unmask.models.classifier import Classifier
from unmask.train.evaluation import evaluate
from unmask.train.history import EpochFigures, History


class Blank:
    """Draws nothing."""

    def study(self, study: Study) -> dict[str, tuple[str, str]]:
        return {name: (name, name) for name in ("accuracy", "gradients-trained")}

    def grid(self, grid: object) -> bytes:
        return b""

    def faces(self, faces: object, rows: object) -> bytes:
        return b""


def task(folder: Path, length: Length = LENGTHS["quick"], **given: Path) -> Task:
    where: dict[str, Path | None] = {"cifar10": None, "faces": None, **given}
    return Task(length, folder, progress=lambda doing, part: None, draw=Blank(), **where)


def cells(section: Section) -> dict[str, Cell]:
    return dict(section.named())


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda e: e.name)
def test_without_a_run_every_figure_of_the_document_is_still_there(exercise: object) -> None:
    sections = exercise.missing("because")  # type: ignore[attr-defined]
    found = [cell for s in sections for _, cell in s.named()]
    assert found
    assert {(c.verdict, c.ours, c.why) for c in found} == {(NOT_RUN, "", "because")}


def test_the_bounds_are_those_of_a_careful_derivation(tmp_path: Path) -> None:
    (section,) = BOUNDS.run(task(tmp_path))
    found = cells(section)
    verdicts = {place: cell.verdict for place, cell in found.items()}
    assert {p for p, v in verdicts.items() if v == CORRECTED} == {
        "ReLU: range of the error",
        "ReLU: range of ∂E/∂w",
        "Sigmoid: range of the error",
        "Sigmoid: range of ∂E/∂w",
        "LeCun: range of the error",
        "all layers: the error of a layer",
    }
    assert found["Sigmoid: range of ∂E/∂w"].ours == "(−0.25, 0.25)"
    assert found["ReLU: range of f′"].ours == "{0, 1}"
    assert set(verdicts.values()) == {CORRECTED, AGREES}
    assert set(cells(BOUNDS.missing("because")[0])) == set(found)


def test_the_study_holds_each_cell_against_its_seeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = made_up.study()
    monkeypatch.setattr(study, "run_study", lambda plan, **others: made)
    names = ("accuracy", "gradients-trained", "tanh-lecun-curves")
    drawn = {name: Picture(name, name, name.split("-")[-1]) for name in names}
    drawn["gradients-trained"] = replace(drawn["gradients-trained"], wide="gradients")
    monkeypatch.setattr(study, "_pictures", lambda figures: drawn)
    length = replace(LENGTHS["quick"], study=made.plan)
    b, c, d = STUDY.run(task(tmp_path, length))
    found = cells(b)
    # Ours are 0.960, 0.961 and 0.962: 0.961 ± 4.3027 * 0.001 * sqrt(4 / 3).
    assert "Within 0.9560 to 0.9660" in found["5 layers: ReLU accuracy"].why
    assert found["5 layers: ReLU accuracy"].verdict == AGREES
    assert found["5 layers: tanh accuracy"].verdict == DIFFERS
    assert "names no settings" in found["5 layers: tanh accuracy"].why
    assert found["40 layers: ReLU accuracy"].verdict == UNDECIDED
    assert found["5 layers: Sigmoid loss"].verdict == AGREES
    assert found["40 layers: Sigmoid loss"].document == "2.3012"
    assert cells(c)["40 layers: ReLU"].verdict == SOME_SEEDS
    assert cells(c)["5 layers: tanh"].verdict == AGREES
    assert cells(d)["5 layers: largest gradients"].verdict == AGREES
    assert cells(d)["40 layers: largest gradients"].ours == "in 40 of 41 layers"
    assert "Not the report's settings: epochs" in b.settings
    assert [p.wide for s in (b, c, d) for p in s.pictures] == ["accuracy", "gradients", "curves"]
    lost = STUDY.missing("because")
    assert [set(cells(s)) for s in lost] == [set(cells(s)) for s in (b, c, d)]


def test_what_the_study_did_not_train_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, a = made_up.study(depths=(5,), activations=("tanh",)), Picture("a", "a")
    monkeypatch.setattr(study, "run_study", lambda plan, **others: made)
    monkeypatch.setattr(study, "_pictures", lambda figures: {"accuracy": a, "gradients-trained": a})
    b, _, d = STUDY.run(task(tmp_path, replace(LENGTHS["quick"], study=made.plan)))
    told = {p for p, cell in b.named() if cell.verdict != NOT_RUN}
    assert told == {"5 layers: tanh accuracy", "5 layers: tanh loss"}
    assert {c.verdict for c in cells(d).values()} == {NOT_RUN}


def test_a_tiny_study_trains_and_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unmask.coursework.study import run as study_run

    sets = (made_up.pictures(250), made_up.pictures(100, seed=5))
    monkeypatch.setattr(study_run, "load_mnist", lambda: sets)
    plan = StudyPlan(
        depths=(5,),
        activations=("tanh", "lecun"),
        seeds=2,
        width=5,
        batch_size=16,
        epochs=1,
        probe_epoch=1,
        training_pictures=200,
        validation_pictures=50,
    )
    given = task(tmp_path / "study", replace(LENGTHS["quick"], study=plan))
    first = STUDY.run(given)
    assert [p.wide for p in first[0].pictures] == ["accuracy"]
    again = STUDY.run(given)
    assert [s.tables for s in first] == [s.tables for s in again]
    assert cells(first[0])["5 layers: tanh loss"].verdict != NOT_RUN


def digits_made() -> tuple[Images, Images]:
    """Images of MNIST, one of each digit to train on, few to test with."""
    from unmask.data.mnist import load_mnist

    train, test = load_mnist()
    return train[:20], test[:60]


def test_digits_are_fooled_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digits, "load_mnist", digits_made)
    monkeypatch.setattr(digits, "DIGITS", (1,))
    a, b = DIGITS_EXERCISE.run(task(tmp_path))
    accuracy = cells(a)["MNIST: accuracy"]
    assert (accuracy.document, accuracy.ours) == ("> 99.3 %", "100.00 %")
    assert "60 of 60 test images" in accuracy.why
    found = cells(b)
    assert {c.ours for c in found.values()} == {"9 of 9"}
    assert len(b.pictures) == 2
    lost = DIGITS_EXERCISE.missing("because")
    assert [set(cells(s)) for s in lost] == [set(cells(a)), set(found)]


def test_of_what_is_trained_the_validation_counts() -> None:
    test = digits_made()[1]
    classifier = Classifier.load("mnist")
    best = EpochFigures(3, 30, 300, 0.1, 0.1, 0.9, 0.1, 0.9925, None, 12.0, 13.0, 9.0)
    history = History((replace(best, epoch=1), replace(best, epoch=2), best), 3, "finished")
    made = Made(classifier, evaluate(classifier, test), history, "trained", 12_000)
    cell = digits._accuracy(made)
    assert "11,910 of 12,000 validation images" in cell.why
    assert "Epoch 3, after 12 s." in cell.why
    # 99.25 %, and 99.39 at the upper end: the bar is within what chance does.
    assert cell.verdict == AGREES


def frogs() -> Images:
    random = np.random.default_rng(0)
    labels = np.array([6, 6, *range(10)])
    return Images(
        random.integers(0, 256, (12, 3, 32, 32), np.uint8).astype(np.uint8),
        labels,
        CLASSES,
        "noise",
    )


def small_classifier() -> Classifier:
    return Classifier.create(
        "block_cnn",
        {"widths": [4, 4, 4]},
        class_names=CLASSES,
        input_shape=(3, 32, 32),
        mean=[0.5] * 3,
        std=[0.25] * 3,
        seed=0,
    ).eval()


def test_the_frog_and_its_classifier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    test, classifier = frogs(), small_classifier()
    source = Source("cifar10", test, None, test, "")
    monkeypatch.setattr(colours, "cifar10", lambda given: source)
    made = Made(classifier, evaluate(classifier, test, test_time="flip"), None, "a small one")
    monkeypatch.setattr(colours, "classifier_for", lambda *given: made)
    (section,) = COLOURS.run(task(tmp_path))
    found = cells(section)
    right = int(made.test.confusion.trace())
    assert found["CIFAR-10: test accuracy"].ours == f"{100 * right / 12:.2f} %"
    assert section.settings.startswith("A small one; noise. With mirrored and shifted views")
    smallest = found["the smallest change: the changes"]
    assert smallest.ours.startswith("SSIM ≥ ")
    assert smallest.verdict == (AGREES if float(smallest.ours[7:]) >= 0.99 else DIFFERS)
    assert set(found) == set(cells(COLOURS.missing("because")[0]))


def test_without_cifar10_a_frog_that_ships_is_fooled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("UNMASK_DATA", raising=False)
    monkeypatch.setattr(exercise, "cache_folder", lambda: tmp_path)
    small = small_classifier()
    small.card = replace(small.card, facts={"figures": {"test_accuracy": 0.9}})
    monkeypatch.setattr(colours.Classifier, "load", lambda name: small)
    (section,) = COLOURS.run(task(tmp_path))
    found = cells(section)
    assert not section.reason
    assert NOT_RUN not in {c.verdict for c in found.values()}
    accuracy = found["CIFAR-10: test accuracy"]
    assert (accuracy.ours, accuracy.source) == ("90.00 %", FROM_CARD)
    assert {c.source for p, c in found.items() if p != "CIFAR-10: test accuracy"} == {""}
    # A length that trains needs the whole set.
    (section,) = COLOURS.run(task(tmp_path, replace(LENGTHS["as-document"], downloads=False)))
    assert "unmask data cifar10 fetches them" in section.reason
    assert {c.verdict for c in cells(section).values()} == {NOT_RUN}


@pytest.fixture(scope="module")
def drawn_faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten images with four coloured squares each, of which two are bare faces."""
    root = tmp_path_factory.mktemp("faces")
    random = np.random.default_rng(0)
    kinds = (
        ("with_mask", (40, 200, 60)),
        ("without_mask", (210, 50, 40)),
        ("without_mask", (200, 60, 40)),
        ("mask_weared_incorrect", (40, 60, 220)),
    )
    for folder in ("images", "annotations"):
        (root / folder).mkdir()
    for i in range(10):
        pixels = random.integers(0, 255, (40, 160, 3), np.uint8)
        things = []
        for k, (name, colour) in enumerate(kinds):
            x, y = 4 + 38 * k, int(random.integers(1, 15))
            pixels[y : y + 24, x : x + 24] = colour
            things.append((name, (x, y, x + 24, y + 24)))
        Image.fromarray(pixels).save(root / "images" / f"{i}.jpg")
        text = voc_text(f"{i}", 160, 40, things)  # type: ignore[arg-type]
        (root / "annotations" / f"{i}.xml").write_text(text)
    return root


def test_faces_are_counted_and_learnt(
    drawn_faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = FACE_RECIPES["document"]
    config = replace(chosen.recipe.config, epochs=1, batch_size=8)
    tiny = replace(chosen, recipe=replace(chosen.recipe, config=config))
    monkeypatch.setattr(faces, "face_recipe", lambda name: tiny)
    given = task(tmp_path / "faces", LENGTHS["as-document"], faces=drawn_faces)
    (section,) = FACES_EXERCISE.run(given)
    found = cells(section)
    counts = {p: (c.document, c.ours, c.verdict) for p, c in section.tables[0].named()}
    assert counts == {
        "images: count": ("853", "10", DIFFERS),
        "faces: count": ("4,072", "40", DIFFERS),
        "with mask: count": ("3,232", "10", DIFFERS),
        "without mask: count": ("123", "20", CORRECTED),
        "mask worn improperly: count": ("717", "10", CORRECTED),
    }
    accuracy = found["with mask or without: validation accuracy"]
    assert "of 4 faces of 1 images held out" in accuracy.why
    assert found["with mask or without: validation loss"].document == "< 0.01"
    assert "macro-F1" in section.notes[0]
    assert "1 epochs" in section.settings
    assert set(found) == set(cells(FACES_EXERCISE.missing("because")[0]))


def test_without_faces_the_figures_are_those_of_the_cards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("UNMASK_DATA", raising=False)
    seen = [
        portraits.FaceSeen("A", worn, np.zeros((3, 4, 4), np.uint8), "with_mask", 0.9)
        for worn in portraits.WORN
    ]
    monkeypatch.setattr(faces, "classified", lambda classifier: tuple(seen))
    monkeypatch.setattr(faces, "detected", raising_no_detector)
    (section,) = FACES_EXERCISE.run(task(tmp_path))
    found = cells(section)
    assert not section.reason
    assert {c.source for c in found.values()} == {FROM_CARD}
    assert {p: c.ours for p, c in section.tables[0].named()} == {
        "images: count": "853",
        "faces: count": "4,072",
        "with mask: count": "3,232",
        "without mask: count": "717",
        "mask worn improperly: count": "123",
    }
    accuracy = found["with mask or without: validation accuracy"]
    card = Classifier.load("faces").card.facts["folds"]
    assert accuracy.ours == f"{100 * card['right'] / card['faces']:.2f} %"
    assert accuracy.verdict == AGREES
    assert "0 of 1 without a mask, 1 of 1 with a mask" in section.notes[0]
    assert "this installation holds no detector" in section.notes[1]
    (section,) = FACES_EXERCISE.run(
        task(tmp_path, replace(LENGTHS["as-document"], downloads=False))
    )
    assert "--faces PATH" in section.reason
    assert {c.verdict for c in cells(section).values()} == {NOT_RUN}


def raising_no_detector(detector: object) -> None:
    raise UserError("this installation holds no detector", do="train one")
