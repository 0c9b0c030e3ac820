"""Images by name: mnist, cifar10, or a folder or zip archive of your own."""

from __future__ import annotations

import contextlib
import difflib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unmask.data.cards import CARDS
from unmask.data.cifar10 import ARCHIVE, cifar10_at_home, load_cifar10
from unmask.data.fetch import fetch_dataset
from unmask.data.folder import load_folder
from unmask.data.images import Images
from unmask.data.mnist import load_mnist
from unmask.data.peek import natural_shape
from unmask.errors import UserError
from unmask.registry import Registry

Progress = Callable[[int, int], None]
Place = Path | None
_LOOKED_AT = 1000


@dataclass(frozen=True, eq=False)
class Source:
    """Images that belong together, all with the same classes and shape.

    Args:
        kind: "mnist", "cifar10" or "pictures".
        train: the training images.
        validation: the validation images, None where there are none.
        test: the test images, None where there are none.
        licence: of the images, "" where unknown.
        warnings: one line for each file left out.
        traits: by part, what file_traits tells of each image's file, float64[n, k]; of folders and
            archives alone.
    """

    kind: str
    train: Images
    validation: Images | None
    test: Images | None
    licence: str
    warnings: tuple[str, ...] = ()
    traits: dict[str, NDArray[np.float64]] = field(default_factory=dict)

    @property
    def tested(self) -> Images:
        """The images to test a model with: those for testing, for validation, or of training."""
        return self.test or self.validation or self.train


def shape_for(
    data: str,
    stated: tuple[int, int, int] | None = None,
    *,
    channels: int | None = None,
    size: int | Sequence[int] | None = None,
) -> tuple[int, int, int] | None:
    """Return the shape at which to read images, None for that of the images themselves.

    Args:
        data: mnist, cifar10, or the path of a folder or zip archive.
        stated: channels, height and width that the model states, which decide.
        channels: that it takes, where it states no shape; those of the images by default.
        size: that is wanted, likewise; see sides.

    Raises:
        UserError: when data is neither a folder nor a zip archive, or as sides does.
    """
    if stated is not None or data in NAMED or (channels is None and size is None):
        return stated
    path = Path(data)
    natural = natural_shape(path) if path.exists() else (3, 1, 1)
    height, width = natural[1:] if size is None else sides(size)
    return channels or natural[0], height, width


def sides(size: int | Sequence[int]) -> tuple[int, int]:
    """Return a height and a width.

    Args:
        size: both, or one number for both, in pixels.

    Raises:
        UserError: when there are more numbers.
    """
    numbers = (size,) if isinstance(size, int) else tuple(size)
    if len(numbers) not in (1, 2):
        raise UserError(
            "a size is one number, or height and width",
            got=" ".join(map(str, numbers)),
            do="write --size 224, or --size 224 320",
        )
    return numbers[0], numbers[-1]


def load_source(
    data: str,
    *,
    source: Path | None = None,
    shape: tuple[int, int, int] | None = None,
    progress: Progress | None = None,
) -> Source:
    """Return the images of a name, or of a folder or zip archive with a folder for each class.

    Args:
        data: mnist, cifar10, or the path of a folder or zip archive.
        source: where CIFAR-10 lies, as load_cifar10 takes it. By default the canonical archive and
            then the lossless sheets are searched for in UNMASK_DATA, then the archive in the cache;
            then the archive is downloaded.
        shape: channels, height and width at which to read your own images; by default
            natural_shape.
        progress: called with the number of images or bytes done, and of all.

    Raises:
        UserError: when the images are missing or damaged, or source is given for another name.
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
            "there are no such images",
            got=data,
            do=f"{_near(path)}give {', '.join(NAMED)}, or a folder or zip archive with a folder "
            "for each class",
        )
    channels, height, width = shape or natural_shape(path)
    folder = load_folder(path, size=(height, width), channels=channels, progress=progress)
    return Source(
        "pictures",
        folder.train,
        folder.validation,
        folder.test,
        "",
        folder.warnings,
        folder.traits,
    )


def _near(path: Path) -> str:
    """Return a question about the name that was meant, "" where none is like it."""
    known = {name.lower(): name for name in NAMED}
    with contextlib.suppress(OSError):
        beside = itertools.islice(path.parent.iterdir(), _LOOKED_AT)
        known |= {str(p).lower(): str(p) for p in beside if p.is_dir() or p.suffix == ".zip"}
    near = difflib.get_close_matches(str(path).lower(), known, n=1, cutoff=0.7)
    return f"did you mean {known[near[0]]!r}? " if near else ""


def _mnist(_source: Place, _progress: Progress | None) -> Source:
    train, test = load_mnist()
    return Source("mnist", train, None, test, CARDS["mnist"].licence)


def _cifar10(source: Place, progress: Progress | None) -> Source:
    train, test = load_cifar10(source or _found_cifar10(progress), progress=progress)
    return Source("cifar10", train, None, test, CARDS["cifar10-binary"].licence)


def _found_cifar10(progress: Progress | None) -> Path:
    near = cifar10_at_home()
    if near is None or near.name == ARCHIVE:
        # Which also checks an archive that lies in UNMASK_DATA.
        return fetch_dataset(CARDS["cifar10-binary"], progress=progress)[0]
    return near


# What load_source knows by name: each takes where the set lies, or None, and a progress callback.
NAMED: Registry[Callable[[Place, Progress | None], Source]] = Registry(
    "data set",
    {
        "mnist": _mnist,
        "cifar10": _cifar10,
    },
)
