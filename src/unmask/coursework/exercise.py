"""What an exercise of the course report needs: a length, a folder, images, and a renderer."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from unmask.coursework.sections import Section
from unmask.coursework.study.plan import StudyPlan
from unmask.coursework.study.run import Study
from unmask.data.cards import CARDS
from unmask.data.cifar10 import cifar10_at_home
from unmask.data.detection.dataset import AnnotatedImages, load_faces
from unmask.data.fetch import cache_folder
from unmask.data.kaggle import NAMES, find_faces
from unmask.data.sources import Source, load_source
from unmask.errors import UserError, unknown
from unmask.fool.grid import Grid


@dataclass(frozen=True)
class Length:
    """What is trained, and how.

    Args:
        name: "quick", "default" or "as-document".
        purpose: what it means, in words.
        study: the nets of Exercise 1.
        digits: the recipe of the classifier of Exercise 2 A, None for the one that ships.
        colours: the recipe of the classifier of Exercise 2 C, None for the one that ships.
        faces: the recipe of the classifier of Exercise 3, None for the one that ships.
        downloads: whether images that are absent are downloaded.
    """

    name: str
    purpose: str
    study: StudyPlan
    digits: str | None
    colours: str | None
    faces: str | None
    downloads: bool


LENGTHS = {
    length.name: length
    for length in (
        Length(
            name="quick",
            purpose="Exercise 1 trained from nothing over three seeds; Exercises 2 and 3 with the "
            "weights that ship",
            study=StudyPlan(seeds=3),
            digits=None,
            colours=None,
            faces=None,
            downloads=False,
        ),
        Length(
            name="default",
            purpose="everything trained from nothing, Exercises 2 and 3 by the fast recipes",
            study=StudyPlan(seeds=10),
            digits="fast",
            colours="fast",
            faces="augmented",
            downloads=True,
        ),
        Length(
            name="as-document",
            purpose="everything trained from nothing by the report's own recipes",
            study=StudyPlan(seeds=10),
            digits="document",
            colours="document",
            faces="document",
            downloads=True,
        ),
    )
}


def length(name: str) -> Length:
    """Return the length of that name.

    Args:
        name: a key of LENGTHS.

    Raises:
        UserError: for an unknown name.
    """
    if name not in LENGTHS:
        raise unknown("length", name, LENGTHS)
    return LENGTHS[name]


class Drawings(Protocol):
    """Draws the figures of the exercises, such as unmask.report.reproduction.Figures."""

    def study(self, study: Study) -> dict[str, tuple[str, str]]:
        """Return every figure of a study by name, as SVG for a wide and for a narrow window."""

    def grid(self, grid: Grid) -> bytes:
        """Return a grid of changed images as a PNG."""

    def faces(
        self, faces: Sequence[tuple[NDArray[np.uint8], str, bool]], rows: Sequence[str]
    ) -> bytes:
        """Return faces as a PNG.

        Args:
            faces: for each the pixels, uint8[3, h, w], a caption, and whether the prediction is
                right.
            rows: the titles of the rows, which the faces fill column by column.
        """


Progress = Callable[[str, float | None], None]
"""What is being done, in words, and how much of it is done, 0 to 1, None where nobody knows."""


@dataclass(frozen=True)
class Task:
    """What an exercise is given.

    Args:
        length: what is trained.
        folder: the exercise's own, for what it trains; it resumes from what lies there.
        cifar10: where the user's copy of CIFAR-10 lies, None to search for it.
        faces: where the user's copy of the face mask set lies, None to search for it.
        progress: called with what is being done and the fraction done.
        draw: draws the figures.
    """

    length: Length
    folder: Path
    cifar10: Path | None
    faces: Path | None
    progress: Progress
    draw: Drawings


@dataclass(frozen=True)
class Exercise:
    """An exercise that can be run alone.

    Args:
        name: also the name of its folder.
        title: for the page and the progress bar.
        run: returns its sections; raises UserError where it can't run, and KeyboardInterrupt on
            Ctrl-C, with everything trained so far in its folder.
        missing: returns its sections without figures of ours, given the reason.
    """

    name: str
    title: str
    run: Callable[[Task], tuple[Section, ...]]
    missing: Callable[[str], tuple[Section, ...]]


_GET_CIFAR10 = (
    "unmask data cifar10 fetches them; or give --cifar10 PATH, or put the archive into the folder "
    "that UNMASK_DATA names"
)
_GET_FACES = (
    "unmask data faces fetches them; or give --faces PATH, or put the archive into the folder that "
    "UNMASK_DATA names"
)


def cifar10(task: Task) -> Source:
    """Return CIFAR-10 from the user's path, UNMASK_DATA, the cache, or by download.

    Args:
        task: its length decides whether the images are downloaded.

    Raises:
        UserError: where it isn't found; the message states how to get it.
    """
    card = CARDS["cifar10-binary"]
    archive = card.files[0].name
    near = cifar10_at_home() is not None or (cache_folder() / card.name / archive).is_file()
    if not (task.cifar10 or near or task.length.downloads):
        raise UserError("the images of CIFAR-10 are not here", do=_GET_CIFAR10)
    task.progress("reading the images of CIFAR-10", None)
    return load_source(
        "cifar10",
        source=task.cifar10,
        progress=lambda done, total: task.progress(
            "reading the images of CIFAR-10", done / max(total, 1)
        ),
    )


def faces(task: Task) -> AnnotatedImages:
    """Return the annotated faces from the user's path, UNMASK_DATA, or by download.

    Args:
        task: its length decides whether the images are downloaded.

    Raises:
        UserError: where they aren't found; the message states how to get them.
    """
    if not (task.faces or _at_home(*NAMES) or task.length.downloads):
        raise UserError("the images of faces are not here", do=_GET_FACES)
    task.progress("reading the images of faces", None)
    return load_faces(task.faces or find_faces())


def _at_home(*names: str) -> bool:
    home = os.environ.get("UNMASK_DATA")
    return home is not None and any((Path(home) / name).exists() for name in names)
