"""A classifier of the length's recipe, trained in the exercise's folder, or the one that ships."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unmask.coursework.exercise import Progress, Task
from unmask.data.images import Images
from unmask.models.classifier import Classifier
from unmask.train.evaluation import Evaluation, evaluate, logits_of
from unmask.train.fit import FitProgress
from unmask.train.history import History
from unmask.train.job import train_classifier
from unmask.train.recipes import recipe


@dataclass(frozen=True)
class Made:
    """A classifier and its figures.

    Args:
        classifier: the trained one, or the one that ships.
        test: its figures on the test images.
        history: of its training, None for the one that ships.
        told: what it is and how it was made, in words.
        validation_pictures: how many images it was validated on, 0 for none.
    """

    classifier: Classifier
    test: Evaluation
    history: History | None
    told: str
    validation_pictures: int = 0


def classifier_for(task: Task, kind: str, name: str | None, train: Images, test: Images) -> Made:
    """Return the classifier trained by a recipe, or the one that ships.

    Args:
        task: its folder holds the training, which resumes from what lies there.
        kind: "mnist" or "cifar10".
        name: the recipe, None for the classifier that ships.
        train: the training images, validation images included.
        test: the test images.

    Raises:
        UserError: as train_classifier does.
        KeyboardInterrupt: on Ctrl-C.
    """
    if name is None:
        task.progress("judging the classifier that ships", None)
        classifier = Classifier.load(kind)
        return Made(classifier, evaluate(classifier, test), None, "the classifier that ships")
    chosen = recipe(kind, name, len(train))
    trained = train_classifier(
        chosen,
        train,
        test=test,
        out=task.folder,
        resume=True,
        progress=epochs(task.progress, f"training by the recipe {name}"),
    )
    stop_if_interrupted(trained.history)
    assert trained.test is not None
    told = (
        f"trained from nothing by the recipe {name} ({chosen.purpose}), "
        f"{len(trained.history.epochs)} epochs"
    )
    return Made(
        trained.classifier,
        trained.test,
        trained.history,
        told,
        trained.classifier.card.facts["data"]["validation_pictures"],
    )


def epochs(progress: Progress, told: str) -> Callable[[FitProgress], None]:
    """Return a callback for fit that reports its progress."""

    def tell(p: FitProgress) -> None:
        done = (p.epoch - 1 + p.step / p.steps) / p.epochs
        progress(f"{told}, epoch {p.epoch} of {p.epochs}", done)

    return tell


def stop_if_interrupted(history: History) -> None:
    """Raise KeyboardInterrupt for a history that Ctrl-C ended."""
    if history.ended == "interrupted":
        raise KeyboardInterrupt("training was interrupted")


def predicted(classifier: Classifier, images: Images) -> NDArray[np.int64]:
    """Return the class that a classifier predicts of each image, int64[n]."""
    return logits_of(classifier, images).argmax(1).numpy()
