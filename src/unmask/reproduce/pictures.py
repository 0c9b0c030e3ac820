"""Where the pictures lie that don't ship: as the user says, in UNMASK_DATA, or fetched."""

from __future__ import annotations

import os
from pathlib import Path

from unmask.data.annotated import AnnotatedPictures, load_faces
from unmask.data.cards import CARDS
from unmask.data.fetch import cache_folder
from unmask.data.kaggle import NAMES, find_faces
from unmask.data.sources import Source, load_source
from unmask.errors import UserError
from unmask.reproduce.exercise import Task

_GET_CIFAR10 = (
    "unmask data cifar10 fetches them; or give --cifar10 PATH, or put the archive into the folder "
    "that UNMASK_DATA names"
)
_GET_FACES = (
    "unmask data faces fetches them with a Kaggle account; or give --faces PATH, or put the "
    "archive into the folder that UNMASK_DATA names"
)


def cifar10(task: Task) -> Source:
    """Return CIFAR-10; raise UserError, saying how to get it, where it isn't."""
    card = CARDS["cifar10-binary"]
    archive = card.files[0].name
    near = _at_home("cifar10-jpeg.zip", archive, f"{card.name}/{archive}")
    near = near or (cache_folder() / card.name / archive).is_file()
    if not (task.cifar10 or near or task.length.downloads):
        raise UserError("the pictures of CIFAR-10 are not here", do=_GET_CIFAR10)
    task.progress("reading the pictures of CIFAR-10", None)
    return load_source(
        "cifar10",
        source=task.cifar10,
        progress=lambda done, total: task.progress(
            "reading the pictures of CIFAR-10", done / max(total, 1)
        ),
    )


def faces(task: Task) -> AnnotatedPictures:
    """Return the annotated faces; raise UserError, saying how to get them, where they aren't."""
    if not (task.faces or _at_home(*NAMES) or task.length.downloads):
        raise UserError("the pictures of faces are not here", do=_GET_FACES)
    task.progress("reading the pictures of faces", None)
    return load_faces(task.faces or find_faces())


def _at_home(*names: str) -> bool:
    home = os.environ.get("UNMASK_DATA")
    return home is not None and any((Path(home) / name).exists() for name in names)
