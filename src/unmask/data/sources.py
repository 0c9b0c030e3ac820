"""Pictures by name: mnist, cifar10, or a folder or zip archive of one's own."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from unmask.data.cards import CARDS
from unmask.data.cifar10 import load_cifar10
from unmask.data.fetch import fetch_dataset
from unmask.data.folder import load_folder
from unmask.data.images import Images
from unmask.data.mnist import load_mnist
from unmask.data.peek import natural_shape
from unmask.errors import UserError

Progress = Callable[[int, int], None]
Place = Path | None
_CIFAR10_PICTURES = "cifar10-jpeg.zip"


@dataclass(frozen=True, eq=False)
class Source:
    """Pictures that belong together, all with the same classes and shape.

    kind: "mnist", "cifar10" or "pictures". validation and test are None where there are none.
    licence: of the pictures, "" where unknown. warnings: one line for each file left out.
    """

    kind: str
    train: Images
    validation: Images | None
    test: Images | None
    licence: str
    warnings: tuple[str, ...] = ()


def load_source(
    data: str,
    *,
    source: Path | None = None,
    shape: tuple[int, int, int] | None = None,
    progress: Progress | None = None,
) -> Source:
    """Return the pictures of a name, or of a folder or zip archive with a folder for each class.

    source: where CIFAR-10 lies, as load_cifar10 takes it; without it the canonical archive is
    looked for in UNMASK_DATA and the cache, then cifar10-jpeg.zip in UNMASK_DATA, and then the
    archive is downloaded. shape: channels, height and width to read one's own pictures at, their
    natural_shape by default. progress(done, total) counts pictures or bytes. Raises UserError when
    the pictures are missing or damaged, or when source is given for another name.
    """
    if source is not None and data != "cifar10":
        raise UserError(
            "a source is for cifar10 alone", got=data, do="give the folder in the name's place"
        )
    if data in NAMED:
        return NAMED[data](source, progress)
    path = Path(data)
    if not path.exists():
        raise UserError(
            "there are no such pictures",
            got=data,
            do=f"give {', '.join(NAMED)}, or a folder or zip archive with a folder for each class",
        )
    channels, height, width = shape or natural_shape(path)
    folder = load_folder(path, size=(height, width), channels=channels, progress=progress)
    return Source("pictures", folder.train, folder.validation, folder.test, "", folder.warnings)


def _mnist(_source: Place, _progress: Progress | None) -> Source:
    train, test = load_mnist()
    return Source("mnist", train, None, test, CARDS["mnist"].licence)


def _cifar10(source: Place, progress: Progress | None) -> Source:
    train, test = load_cifar10(source or _found_cifar10(progress), progress=progress)
    return Source("cifar10", train, None, test, CARDS["cifar10-binary"].licence)


def _found_cifar10(progress: Progress | None) -> Path:
    home = os.environ.get("UNMASK_DATA")
    pictures = Path(home or ".") / _CIFAR10_PICTURES
    card = CARDS["cifar10-binary"]
    if home and pictures.is_file() and not (Path(home) / card.files[0].name).exists():
        return pictures
    return fetch_dataset(card, progress=progress)[0]


# What load_source knows by name: each takes where the set lies, if the user said, and a progress.
NAMED: dict[str, Callable[[Place, Progress | None], Source]] = {
    "mnist": _mnist,
    "cifar10": _cifar10,
}
