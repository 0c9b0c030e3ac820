"""What an exercise of the course report is given: a length, a folder, the images, and who draws."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from unmask.coursework.sections import Section
from unmask.coursework.study.run import Study, StudyPlan
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

    study: the nets of Exercise 1. digits, colours and faces: the recipes of the classifiers of
    Exercises 2 A, 2 C and 3, None for what ships. downloads: whether images that are absent are
    fetched.
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
    """Return the length of that name; raise UserError for an unknown one."""
    if name not in LENGTHS:
        raise unknown("length", name, LENGTHS)
    return LENGTHS[name]


class Drawings(Protocol):
    """Who draws the figures of the exercises."""

    def study(self, study: Study) -> dict[str, tuple[str, str]]:
        """Return every figure of a study by name, as SVG for a wide and for a narrow window."""

    def grid(self, grid: Grid) -> bytes:
        """Return a grid of changed images as a PNG."""

    def faces(
        self, faces: Sequence[tuple[NDArray[np.uint8], str, bool]], rows: Sequence[str]
    ) -> bytes:
        """Return faces as a PNG: uint8[3, h, w], a caption, and whether that is right.

        rows: the titles of the rows that the faces fill column by column.
        """


Progress = Callable[[str, float | None], None]
"""What is being done, in words, and how much of it is done, 0 to 1, None where nobody knows."""


@dataclass(frozen=True)
class Task:
    """What an exercise is given.

    folder: its own, for what it trains; it goes on from what lies there. cifar10 and faces: where
    the user says that the images lie. draw: who draws the figures.
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

    name: as its folder is called. run raises UserError where it can't, Interrupted on Ctrl-C, with
    everything trained so far in its folder; missing gives its sections with no figures of ours,
    for a reason.
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
    """Return CIFAR-10; raise UserError, saying how to get it, where it isn't."""
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
    """Return the annotated faces; raise UserError, saying how to get them, where they aren't."""
    if not (task.faces or _at_home(*NAMES) or task.length.downloads):
        raise UserError("the images of faces are not here", do=_GET_FACES)
    task.progress("reading the images of faces", None)
    return load_faces(task.faces or find_faces())


def _at_home(*names: str) -> bool:
    home = os.environ.get("UNMASK_DATA")
    return home is not None and any((Path(home) / name).exists() for name in names)
