"""The report's classifier learns drawn faces and is measured on others, as its card says."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unmask.data.detection.dataset import FACE_CLASSES, AnnotatedImages, load_faces
from unmask.data.images import Images
from unmask.errors import UserError
from unmask.mask.evaluate.folds import folds
from unmask.mask.training import classifier as module
from unmask.mask.training.classifier import FaceRecipe, classed, face_recipe, train_on_faces
from unmask.mask.training.crops import crops
from unmask.models.classifier import Classifier
from unmask.train.evaluation import logits_of

FACES = Path(os.environ.get("UNMASK_DATA", "../shared/data")) / "faces"
COLOURS = ((40, 200, 60), (210, 50, 40), (40, 60, 220))


@pytest.fixture(scope="module")
def annotated(tmp_path_factory: pytest.TempPathFactory) -> AnnotatedImages:
    """Forty images of noise with a coloured square of each class, of two sizes."""
    folder = tmp_path_factory.mktemp("drawn")
    random = np.random.default_rng(0)
    paths, boxes = [], []
    for i in range(40):
        pixels = random.integers(90, 140, (40, 120, 3), np.uint8)
        own = []
        for k, colour in enumerate(COLOURS):
            side = 10 if i % 2 else 24
            x, y = 6 + 38 * k + int(random.integers(8)), int(random.integers(1, 39 - side))
            pixels[y : y + side, x : x + side] = colour
            own.append([x, y, x + side, y + side])
        paths.append(folder / f"{i}.png")
        Image.fromarray(pixels).save(paths[-1])
        boxes.append(np.array(own, np.float32))
    labels = tuple(np.arange(3) for _ in paths)
    sizes = np.tile([120, 40], (len(paths), 1))
    return AnnotatedImages(tuple(paths), sizes, tuple(boxes), labels, FACE_CLASSES, "drawn")


def small(name: str = "augmented", **config: object) -> FaceRecipe:
    chosen = face_recipe(name)
    plain = {"epochs": 6, "batch_size": 16, "precision": "fp32", **config}
    recipe = replace(
        chosen.recipe,
        settings={"widths": [8, 8, 8], "dropout": [0.0, 0.0, 0.0], "hidden": 16},
        config=replace(chosen.recipe.config, **plain),  # type: ignore[arg-type]
    )
    return replace(chosen, size=16, recipe=recipe)


@pytest.mark.parametrize("classes", [2, 3])
def test_what_is_told_is_what_the_stored_classifier_says_of_pictures_not_seen(
    annotated: AnnotatedImages, tmp_path: Path, classes: int
) -> None:
    chosen = small(seed=3)
    result = train_on_faces(chosen, annotated, out=tmp_path, classes=classes, parts=5, device="cpu")
    held = folds(annotated, 5)[3][1]
    assert result.pictures == len(held)
    kept = crops(annotated[held], chosen.size, chosen.context)
    model = Classifier.load(tmp_path / "model")
    labels = classed(kept.images, classes).labels
    images = Images(kept.images.pixels, labels, model.class_names, "held")
    said = logits_of(model, images, test_time="flip").argmax(1).numpy()
    assert model.class_names == FACE_CLASSES[:classes]
    np.testing.assert_array_equal(result.validation.predictions, said)
    assert result.validation.accuracy == np.mean(said == labels) > 0.95
    whole = result.rows[-1]
    assert whole.faces.tolist() == [len(held)] * 3
    for kind in range(3):
        own = kept.images.labels == kind
        assert whole.right[kind] == np.sum(said[own] == labels[own])
    assert [row.faces.sum() > 0 for row in result.rows] == [True, False, True, False, False, True]
    facts = model.card.facts
    assert facts["faces"] == {"size": 16, "context": chosen.context, "repeats": [1, 1, 3]}
    assert facts["validation"]["accuracy"] == result.validation.accuracy
    assert facts["validation"]["macro_f1"] == result.validation.macro_f1
    assert facts["figures"]["epoch"] == 6, "no epoch is picked by the images held out"
    times = np.array(chosen.repeats)
    assert facts["data"]["pictures"] == (len(annotated) - len(held)) * times.sum()


def test_no_picture_held_out_is_trained_on(
    annotated: AnnotatedImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(chosen: object, images: Images, *, validation: Images, **_: object) -> None:
        def distinct(pictures: Images) -> set[bytes]:
            return {picture.tobytes() for picture in pictures.pixels}

        assert len(distinct(images)) == 3 * 32
        assert len(distinct(validation)) == 3 * 8
        assert not distinct(images) & distinct(validation)
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "train_classifier", stop)
    for seed in range(5):
        with pytest.raises(KeyboardInterrupt):
            train_on_faces(small(seed=seed), annotated, out=tmp_path, parts=5)


def test_the_documents_recipe_ends_at_its_target(
    annotated: AnnotatedImages, tmp_path: Path
) -> None:
    chosen = small("document", epochs=60)
    result = train_on_faces(chosen, annotated, out=tmp_path, parts=5, device="cpu")
    history = result.trained.history
    assert history.ended == "target"
    figures = [epoch.validation_accuracy for epoch in history.epochs]
    assert figures[-1] == result.validation.accuracy > 0.97
    assert max([0.0, *(f for f in figures[:-1] if f is not None)]) <= 0.97


def test_worn_improperly_counts_as_without() -> None:
    faces = Images(np.zeros((4, 3, 2, 2), np.uint8), np.array([0, 2, 1, 2]), FACE_CLASSES, "four")
    two = classed(faces, 2)
    assert two.labels.tolist() == [0, 1, 1, 1]
    assert two.class_names == ("with_mask", "without_mask")
    assert classed(faces, 3).labels.tolist() == [0, 2, 1, 2]


def test_two_classes_have_one_output_and_the_binary_cross_entropy() -> None:
    chosen = face_recipe("document").recipe
    model = Classifier.create(
        chosen.architecture,
        chosen.settings,
        class_names=FACE_CLASSES[:2],
        input_shape=(3, 16, 16),
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        seed=0,
    ).eval()
    pixels = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    logits, labels = model(pixels), torch.tensor([0, 1, 1, 0, 1])
    assert torch.equal(logits[:, 0], torch.zeros(5))
    binary = torch.nn.functional.binary_cross_entropy_with_logits(logits[:, 1], labels.float())
    torch.testing.assert_close(torch.nn.functional.cross_entropy(logits, labels), binary)


def test_mistakes_get_one_line(annotated: AnnotatedImages, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown recipe: got 'document3'; did you mean 'document'"):
        face_recipe("document3")
    with pytest.raises(UserError, match="2 or 3 classes: got 4"):
        train_on_faces(small(), annotated, out=tmp_path, classes=4)
    with pytest.raises(UserError, match="folds"):
        train_on_faces(small(), annotated, out=tmp_path, parts=1)


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.skipif(not FACES.is_dir(), reason="the face mask set is not there")
def test_faces_of_the_set_are_told_apart_better_than_by_guessing(tmp_path: Path) -> None:
    faces = load_faces(FACES)
    few = faces[np.arange(0, len(faces), 5)]
    config = {"epochs": 8, "batch_size": 32}
    chosen = face_recipe("augmented")
    recipe = replace(chosen.recipe, config=replace(chosen.recipe.config, **config))
    result = train_on_faces(
        replace(chosen, size=32, recipe=recipe), few, out=tmp_path, parts=5, device="cpu"
    )
    most = result.validation.confusion.sum(1).max() / len(result.validation.labels)
    # Always saying "with mask" has this macro-F1.
    assert result.validation.macro_f1 > most / (1 + most) + 0.15
    assert result.validation.accuracy > most
