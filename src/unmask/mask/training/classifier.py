"""The course report's classifier: faces cut out of images, and whether each wears a mask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unmask.data.augment import Augmentation
from unmask.data.detection.dataset import FACE_CLASSES, AnnotatedImages
from unmask.data.images import Images
from unmask.errors import UserError, unknown
from unmask.mask.evaluate.folds import folds
from unmask.mask.evaluate.metrics import SIZES, size_name
from unmask.mask.training.crops import FaceCrops, crops
from unmask.runtime import environment_stamp
from unmask.stats import wilson
from unmask.train.config import FitConfig
from unmask.train.evaluation import Evaluation, evaluation_of, logits_of
from unmask.train.fit import FitProgress
from unmask.train.job import Trained, train_classifier
from unmask.train.recipes import Recipe


@dataclass(frozen=True, eq=False)
class SizeRow:
    """The figures of the faces of one size.

    Args:
        name: the range of sizes, in words.
        faces: int64[k], how many there are of each class.
        right: int64[k], how many of these were classified correctly.
    """

    name: str
    faces: NDArray[np.int64]
    right: NDArray[np.int64]

    @property
    def accuracy(self) -> float:
        """The fraction of the faces that is classified correctly, NaN without any."""
        return float(self.right.sum() / self.faces.sum()) if self.faces.any() else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % confidence interval of the accuracy (Wilson, 1927)."""
        return wilson(int(self.right.sum()), int(self.faces.sum()))

    @property
    def recall_intervals(self) -> list[tuple[float, float]]:
        """The 95 % confidence interval of each class's recall (Wilson, 1927)."""
        pairs = zip(self.right.tolist(), self.faces.tolist(), strict=True)
        return [wilson(right, faces) for right, faces in pairs]

    def as_dict(self) -> dict[str, Any]:
        """Return counts, proportions and their 95 % intervals as plain values, None without any."""
        parts = zip(self.right.tolist(), self.faces.tolist(), strict=True)
        return {
            "name": self.name,
            "faces": self.faces.tolist(),
            "right": self.right.tolist(),
            "accuracy": self.accuracy if self.faces.any() else None,
            "accuracy_interval_95": list(self.interval),
            "recall": [right / faces if faces else None for right, faces in parts],
            "recall_intervals_95": [list(pair) for pair in self.recall_intervals],
        }


def by_size(
    sides: NDArray[np.float64], kinds: NDArray[np.int64], right: NDArray[np.bool_], classes: int
) -> tuple[SizeRow, ...]:
    """Return a row for each of metrics.SIZES and one for all faces, last.

    Args:
        sides: float64[n], of the faces in pixels of the image.
        kinds: int64[n], the annotated class of each face, 0 to classes - 1; these may be finer than
            the classes of the network.
        right: bool[n], which faces were classified correctly.
        classes: how many annotated classes there are.
    """

    def row(name: str, inside: NDArray[np.bool_]) -> SizeRow:
        faces, own = (
            np.bincount(kinds[chosen], minlength=classes).astype(np.int64)
            for chosen in (inside, inside & right)
        )
        return SizeRow(name, faces, own)

    ranges = [
        row(size_name(least, below), (sides >= least) & (sides < below))
        for least, below in pairwise(SIZES)
    ]
    return (*ranges, row("all sizes", np.ones(len(sides), bool)))


@dataclass(frozen=True)
class FaceRecipe:
    """How faces are cut out and trained on.

    Args:
        size: side of the crops in pixels, see crops.
        context: what is kept around a face, see crops.
        repeats: how often an epoch shows a face of each of FACE_CLASSES.
        recipe: see train_classifier.
    """

    size: int
    context: float
    repeats: tuple[int, ...]
    recipe: Recipe


FACE_RECIPES: dict[str, FaceRecipe] = {
    "document": FaceRecipe(
        size=48,
        context=0.25,
        repeats=(1, 1, 1),
        recipe=Recipe(
            name="document",
            purpose="the report's Exercise 3: trained until validation accuracy exceeds 97 %",
            architecture="document_masks",
            settings={"widths": [32, 64, 128], "dropout": [0.2, 0.3, 0.4], "hidden": 64},
            config=FitConfig(
                epochs=100,
                batch_size=32,
                optimizer="adam",
                rate=5e-4,
                schedule="constant",
                target=0.97,
                precision="fp32",
            ),
            holdout=0.0,
        ),
    ),
    "augmented": FaceRecipe(
        size=48,
        context=0.25,
        repeats=(1, 1, 3),
        recipe=Recipe(
            name="augmented",
            purpose="the same network, its images changed, its weights and views averaged",
            architecture="document_masks",
            settings={"widths": [32, 64, 128], "dropout": [0.1, 0.2, 0.3], "hidden": 64},
            config=FitConfig(
                epochs=30,
                batch_size=64,
                optimizer="adamw",
                rate=3e-3,
                weight_decay=0.05,
                warmup=0.2,
                label_smoothing=0.05,
                averaging="ema",
                averaging_horizon=150,
                augmentation=Augmentation(flip="random", shift=2, crop=0.75),
                test_time="flip",
            ),
            holdout=0.0,
        ),
    ),
    "wide": FaceRecipe(
        size=48,
        context=0.25,
        repeats=(1, 1, 3),
        recipe=Recipe(
            name="wide",
            purpose="augmented, with half as many channels again and more views: what ships",
            architecture="document_masks",
            settings={"widths": [48, 96, 192], "dropout": [0.1, 0.2, 0.3], "hidden": 64},
            config=FitConfig(
                epochs=40,
                batch_size=64,
                optimizer="adamw",
                rate=2e-3,
                weight_decay=0.05,
                warmup=0.2,
                label_smoothing=0.05,
                averaging="ema",
                averaging_horizon=150,
                augmentation=Augmentation(flip="random", shift=2, crop=0.75),
                test_time="flip_shift",
            ),
            holdout=0.0,
        ),
    ),
}


def face_recipe(name: str) -> FaceRecipe:
    """Return the recipe of that name; raise UserError for an unknown one."""
    if name not in FACE_RECIPES:
        raise unknown("recipe", name, FACE_RECIPES)
    return FACE_RECIPES[name]


@dataclass(frozen=True, eq=False)
class TrainedOnFaces:
    """A classifier of faces, its history, and its figures on the faces of held-out images.

    Args:
        trained: the classifier and its history.
        validation: the figures, with the recipe's test-time augmentation.
        rows: by size and by FACE_CLASSES, see by_size.
        pictures: how many images were held out.
        warnings: a line for each image left out.
    """

    trained: Trained
    validation: Evaluation
    rows: tuple[SizeRow, ...]
    pictures: int
    warnings: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the validation's figures as plain values."""
        return {
            **self.validation.as_dict(),
            "held_out_pictures": self.pictures,
            "annotated_classes": list(FACE_CLASSES),
            "by_size": [row.as_dict() for row in self.rows],
        }


def train_on_faces(
    chosen: FaceRecipe,
    annotated: AnnotatedImages,
    *,
    out: Path,
    classes: int = 2,
    parts: int = 10,
    resume: bool = False,
    device: str = "auto",
    progress: Callable[[FitProgress], None] | None = None,
) -> TrainedOnFaces:
    """Train on the faces of all images but one part of them, and measure on that part.

    A recipe without a target doesn't choose an epoch by these faces.

    Args:
        chosen: how faces are cut out, and how the network is trained.
        annotated: with FACE_CLASSES.
        out: see train_classifier; the card also states how faces are cut out.
        classes: 2 counts masks worn improperly as no mask, 3 keeps them apart.
        parts: how many parts the images are divided into (see folds). The recipe's seed chooses the
            one held out, so that seeds below parts are measured on different images.
        resume: see train_classifier.
        device: auto, cpu, cuda or cuda:N.
        progress: see train_classifier.

    Raises:
        UserError: for another number of classes, and as folds, crops and train_classifier do.
    """
    if classes not in (2, 3):
        raise UserError("faces are told apart in 2 or 3 classes", got=classes)
    config = chosen.recipe.config
    if config.target is None:
        config = replace(config, validate_from=config.epochs)
    seen, held = folds(annotated, parts)[config.seed % parts]
    shown = crops(annotated[seen], chosen.size, chosen.context)
    kept = crops(annotated[held], chosen.size, chosen.context)
    often = np.array(chosen.repeats)[shown.images.labels]
    images = classed(shown[np.repeat(np.arange(len(shown)), often)].images, classes)
    validation = classed(kept.images, classes)
    trained = train_classifier(
        replace(chosen.recipe, config=config),
        images,
        validation=validation,
        out=out,
        resume=resume,
        device=device,
        progress=progress,
    )
    found = _measured(trained, validation, kept, config.test_time)
    result = TrainedOnFaces(trained, *found, len(held), shown.warnings + kept.warnings)
    card = trained.classifier.card
    facts = {
        **card.facts,
        "faces": {"size": chosen.size, "context": chosen.context, "repeats": chosen.repeats},
        "validation": result.as_dict(),
    }
    trained.classifier.card = replace(card, facts=facts)
    trained.classifier.save(out / "model")
    return result


def classed(faces: Images, classes: int) -> Images:
    """Return faces of FACE_CLASSES with their labels in 2 or 3 classes.

    Args:
        faces: images labelled 0 to 2.
        classes: with 2, masks worn improperly count as no mask.
    """
    labels = np.minimum(faces.labels, classes - 1)
    return Images(faces.pixels, labels, faces.class_names[:classes], faces.name)


def _measured(
    trained: Trained, validation: Images, kept: FaceCrops, views: str
) -> tuple[Evaluation, tuple[SizeRow, ...]]:
    logits = logits_of(trained.classifier, validation, test_time=views)
    stamp = environment_stamp(model=trained.classifier.card.weights_sha256, data=validation.sha256)
    found = evaluation_of(logits, validation, stamp=stamp)
    right = found.predictions == validation.labels
    return found, by_size(kept.sides, kept.images.labels, right, len(FACE_CLASSES))
