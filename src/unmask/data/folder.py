"""Images in one folder for each class, on disk or in a zip archive, become Images."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unmask.data.images import Images
from unmask.data.listing import PictureFile, list_pictures, skipped
from unmask.data.peek import file_traits
from unmask.data.picture import decode_picture
from unmask.errors import UserError

# The end of the warning for a folder without images.
EMPTY = " holds no image, so it is no class"
_UNPLACED = "it lies in no class's folder"
MAX_BYTES = 1 << 33
MAX_SIDE = 4096

_PARTS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True, eq=False)
class PictureFolder:
    """The images of a tree; all parts have the same classes.

    Args:
        train: the training images.
        validation: the validation images, None where the tree has none.
        test: the test images, None where the tree has none.
        warnings: one line for every file that was left out.
        traits: by part, what file_traits tells of each file, float64[n, k].
    """

    train: Images
    validation: Images | None
    test: Images | None
    warnings: tuple[str, ...]
    traits: dict[str, NDArray[np.float64]] = field(default_factory=dict)


def load_folder(
    path: str | os.PathLike[str],
    *,
    size: tuple[int, int],
    channels: int,
    progress: Callable[[int, int], None] | None = None,
) -> PictureFolder:
    """Read a tree CLASS/... or PART/CLASS/..., a folder or a zip archive, at one size.

    PART is train, validation (val, valid) or test; a tree without parts is all training images.
    Folders that hold nothing but one other folder are passed through, and folders in a class's
    folder belong to it. Images come in the order of their paths and classes in that of their names.
    A file that can't be read is left out with a warning.

    Args:
        path: the folder or zip archive.
        size: (height, width) in 1..4096; decode_picture crops and scales each image to it.
        channels: 1 (grey) or 3 (colour).
        progress: called with the number of images read so far and of all.

    Raises:
        UserError: when there are no training images, fewer than two classes, classes that the
            training images lack, or when the pixels would take more than MAX_BYTES.
    """
    if not (len(size) == 2 and all(isinstance(s, int) and 1 <= s <= MAX_SIDE for s in size)):
        raise UserError("the size must be (height, width)", got=size, do=f"give 1 to {MAX_SIDE}")
    if channels not in (1, 3):
        raise UserError("channels must be 1 (grey) or 3 (colour)", got=channels)
    root = Path(path)
    with list_pictures(root) as listing:
        warnings = [*listing.warnings]
        places = _places(listing.files, warnings)
        warnings += _empty_classes(root, places)
        needed = len(places) * channels * size[0] * size[1]
        if needed > MAX_BYTES:
            raise UserError(
                f"the images of {root} would take too much memory",
                got=f"{needed} bytes",
                do=f"choose a smaller size; the limit is {MAX_BYTES}",
            )
        counts = Counter(place.part for place in places)
        pixels = {part: np.empty((n, channels, *size), np.uint8) for part, n in counts.items()}
        classes: dict[str, list[str]] = {part: [] for part in counts}
        traits: dict[str, list[tuple[float, ...]]] = {part: [] for part in counts}
        for done, place in enumerate(places, 1):
            kept = classes[place.part]
            try:
                data = place.file.read()
                pixels[place.part][len(kept)] = decode_picture(data, size=size, channels=channels)
            except UserError as error:
                warnings.append(skipped(place.file.path, str(error)))
            else:
                kept.append(place.class_name)
                traits[place.part].append(file_traits(data))
            if progress:
                progress(done, len(places))
    names = _class_names(root, classes, warnings)
    numbers = {name: number for number, name in enumerate(names)}

    def images(part: str) -> Images | None:
        found = classes.get(part)
        if not found:
            return None
        labels = np.array([numbers[name] for name in found], np.int64)
        return Images(pixels[part][: len(found)], labels, names, f"{root.stem} {part}")

    train = images("train")
    assert train is not None
    return PictureFolder(
        train,
        images("validation"),
        images("test"),
        tuple(warnings),
        {part: np.array(rows) for part, rows in traits.items() if rows},
    )


def _empty_classes(root: Path, places: list[_Place]) -> list[str]:
    """Return a warning for each folder beside the class folders that holds no image."""
    if not root.is_dir():
        return []
    warnings = []
    for folder in [root, *(c for c in sorted(root.iterdir()) if c.is_dir())]:
        part = "train" if folder == root else _PARTS.get(folder.name.lower(), "")
        used = {place.class_name for place in places if place.part == part}
        children = [
            c.name for c in sorted(folder.iterdir()) if c.is_dir() and c.name[0] not in "._"
        ]
        # Only beside classes: elsewhere a folder may hold anything.
        if used.isdisjoint(children):
            continue
        above = "" if folder == root else f"{folder.name}/"
        warnings += [
            f"{above + name!r}{EMPTY}"
            for name in children
            if name not in used and name.isprintable()
        ]
    return warnings


_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar")


def _more(count: int) -> str:
    return f" (and {count:,} more)" if count > 0 else ""


def _class_names(root: Path, classes: dict[str, list[str]], warnings: list[str]) -> tuple[str, ...]:
    names = sorted(set(classes.get("train", ())))
    mend = "put the images of each class into a folder with the name of the class"
    if not names:
        # Images that lie in no class's folder say more than the files beside them.
        seen = sorted(warnings, key=lambda w: not w.endswith(_UNPLACED))
        told = f"{seen[0]}{_more(len(seen) - 1)}" if seen else "nothing"
        if any(f"{end}'" in line for line in seen for end in _ARCHIVES):
            mend = f"unpack the archives inside it, and {mend}"
        raise UserError(f"no training images in {root}", got=told, do=mend)
    if len(names) == 1:
        raise UserError(f"{root} needs two classes or more", got=f"only {names[0]!r}", do=mend)
    for part, found in classes.items():
        if lacking := sorted(set(found) - set(names)):
            raise UserError(
                f"the {part} images of {root} have classes that the training images lack",
                got=", ".join(map(repr, lacking)),
                do="add training images of these classes, or leave the classes out",
            )
    return tuple(names)


@dataclass(frozen=True)
class _Place:
    file: PictureFile
    part: str
    class_name: str


def _places(files: list[PictureFile], warnings: list[str]) -> list[_Place]:
    depth = _wrappers([file.path for file in files])
    tops = [
        (_PARTS.get(file.path[depth].lower()), len(file.path) > depth + 2)
        for file in files
        if len(file.path) > depth + 1
    ]
    # A class may be called "train" too: then its images lie in it, and not in folders.
    parted = ("train", True) in tops and not {part for part, _ in tops} <= {"train", None}
    places = []
    for file in files:
        folders = file.path[depth:-1]
        part = _PARTS.get(folders[0].lower()) if parted and folders else "train"
        if part is None:
            warnings.append(skipped(file.path, "it is neither training nor test data"))
        elif len(folders) <= parted:
            warnings.append(skipped(file.path, _UNPLACED))
        else:
            places.append(_Place(file, part, folders[parted]))
    return places


def _wrappers(paths: list[tuple[str, ...]]) -> int:
    """Return how many folders lie one inside the other before the tree branches."""
    depth = 0
    while len({path[depth] for path in paths if len(path) > depth + 1}) == 1 and any(
        len(path) > depth + 2 for path in paths
    ):
        depth += 1
    return depth
