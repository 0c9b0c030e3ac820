"""Corrections of the face mask set's annotations, made by eye, and how they are applied.

The file names boxes of a public set and holds no image.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from unmask.data.detection.boxes import Boxes
from unmask.errors import UserError
from unmask.runtime import read_regular

Action = Literal["add", "remove", "class", "box", "ignore"]
Box = tuple[int, int, int, int]

FACE_CORRECTIONS = Path(__file__).parent / "face_corrections.csv"
FACE_COPIES = Path(__file__).parent / "face_copies.csv"
_SIDES = ("xmin", "ymin", "xmax", "ymax")
_NEW_SIDES = tuple(f"new_{side}" for side in _SIDES)
COLUMNS = ("image", "action", *_SIDES, "class", *_NEW_SIDES, "reason")
# Loaders cut boxes to the image, and some boxes of the set end one pixel beyond it.
_TOLERANCE = 1.0


@dataclass(frozen=True)
class Correction:
    """One row: what is wrong with a box of an image, or which box is missing.

    Args:
        image: the file's stem.
        action: "add" a face that nobody annotated; "remove" what is no face; "class" gives a box
            another class; "box" gives it other sides; "ignore" marks a region that can't be judged,
            so that a detection there is neither right nor a false positive, and removes the
            annotated box of that place, if there is one.
        box: xyxy in pixels, half-open: the new one for "add" and "ignore", else the annotated one.
        class_name: for "add" and "class", else "".
        new_box: for "box", else None.
        reason: in plain words.

    Raises:
        UserError: when the parts don't fit the action.
    """

    image: str
    action: Action
    box: Box
    class_name: str = ""
    new_box: Box | None = None
    reason: str = ""

    def __post_init__(self) -> None:
        """Check that the parts fit the action."""
        name = f"the correction {self.action!r} of {self.image}"
        if self.action not in get_args(Action):
            raise UserError(f"unknown {name}", do=f"choose from {', '.join(get_args(Action))}")
        if not self.image:
            raise UserError("a correction names its image")
        for box in (self.box, self.new_box):
            if box and not (0 <= box[0] < box[2] and 0 <= box[1] < box[3]):
                raise UserError(f"{name} has an empty box", got=box)
        if bool(self.class_name) != (self.action in ("add", "class")):
            raise UserError(f"{name} has a class too many or too few", got=repr(self.class_name))
        if (self.new_box is None) == (self.action == "box"):
            raise UserError(f"{name} has a new box too many or too few", got=self.new_box)


@dataclass(frozen=True, eq=False)
class CorrectedBoxes:
    """The annotations of one image after correction.

    Args:
        boxes: float32[n, 4], xyxy in pixels, the kept ones in their order, then the added.
        labels: int64[n], indices into the class names.
        ignored: float32[k, 4], regions in which a detection is neither right nor wrong.
    """

    boxes: Boxes
    labels: NDArray[np.int64]
    ignored: Boxes


def read_corrections(path: str | os.PathLike[str] | None = None) -> dict[str, list[Correction]]:
    """Return the corrections of each image, by the image's stem.

    Args:
        path: a CSV file with the columns COLUMNS, in UTF-8; by default the one that ships, for the
            725 images of Kaggle's andrewmvd/face-mask-detection that were reviewed.

    Returns:
        A list for each image that has any, in the file's order.

    Raises:
        UserError: when the file is missing or a row isn't a correction; the row is named.
    """
    file = FACE_CORRECTIONS if path is None else Path(path)
    rows = _rows(file, COLUMNS)
    found: dict[str, list[Correction]] = {}
    for row in rows:
        try:
            correction = _correction(row)
        except (UserError, TypeError, ValueError) as error:
            raise UserError(f"{file.name} line {rows.line_num}", got=error) from error
        found.setdefault(correction.image, []).append(correction)
    return found


def read_copies(path: str | os.PathLike[str] | None = None) -> list[tuple[str, ...]]:
    """Return the groups of images that show the same photograph, by the images' stems.

    Args:
        path: a CSV file with the columns group and image, in UTF-8; by default the one that ships,
            of the images that read_corrections covers. These are cropped or scaled in different
            ways, or taken a moment apart: most differ too much for a hash of the whole image.

    Returns:
        A tuple of two stems or more for each group. Such images belong in the same fold.

    Raises:
        UserError: when the file is missing or has other columns.
    """
    file = FACE_COPIES if path is None else Path(path)
    groups: dict[str, list[str]] = {}
    for row in _rows(file, ("group", "image")):
        groups.setdefault(row["group"], []).append(row["image"])
    return [tuple(images) for images in groups.values()]


def _rows(file: Path, columns: tuple[str, ...]) -> csv.DictReader[str]:
    try:
        text = read_regular(file).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"can't read {file.name}", got=error) from error
    rows = csv.DictReader(io.StringIO(text))
    if tuple(rows.fieldnames or ()) != columns:
        raise UserError(
            f"{file.name} has other columns than it needs",
            got=", ".join(rows.fieldnames or ["none"]),
            do=f"write {','.join(columns)}",
        )
    return rows


def _correction(row: dict[str, str]) -> Correction:
    new = [row[side] for side in _NEW_SIDES]
    return Correction(
        image=row["image"],
        action=cast(Action, row["action"]),
        box=_box([row[side] for side in _SIDES]),
        class_name=row["class"],
        new_box=_box(new) if any(new) else None,
        reason=row["reason"],
    )


def _box(sides: list[str]) -> Box:
    x1, y1, x2, y2 = (int(side) for side in sides)
    return x1, y1, x2, y2


def write_corrections(path: str | os.PathLike[str], corrections: Iterable[Correction]) -> None:
    """Write a file that read_corrections reads, sorted by image, place and action."""
    with Path(path).open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(COLUMNS)
        for c in sorted(corrections, key=lambda c: (c.image, c.box, c.action)):
            new = c.new_box or ("",) * 4
            rows.writerow([c.image, c.action, *c.box, c.class_name, *new, c.reason])


def apply_corrections(
    boxes: Boxes,
    labels: NDArray[np.int64],
    corrections: Iterable[Correction],
    class_names: Sequence[str],
) -> CorrectedBoxes:
    """Return one image's annotations after its corrections; the arrays given stay as they are.

    Args:
        boxes: float32[n, 4], as annotated, xyxy in pixels, possibly cut to the image.
        labels: int64[n], indices into class_names.
        corrections: of this image; each names its box as annotated, within a pixel.
        class_names: of the labels.

    Returns:
        The corrected boxes, their labels and the regions to ignore.

    Raises:
        UserError: when a correction names a box that isn't annotated, or an unknown class.
    """
    made, classes = boxes.astype(np.float32), labels.astype(np.int64)
    kept = np.ones(len(boxes), bool)
    added: list[Box] = []
    added_labels: list[int] = []
    ignored: list[Box] = []
    for c in corrections:
        if c.class_name and c.class_name not in class_names:
            raise UserError(
                f"the correction of {c.image} has an unknown class",
                got=c.class_name,
                do=f"choose from {', '.join(class_names)}",
            )
        if c.action == "add":
            added.append(c.box)
            added_labels.append(class_names.index(c.class_name))
            continue
        place = _annotated(boxes, c.box)
        if c.action == "ignore":
            ignored.append(c.box)
            if place is not None:
                kept[place] = False
        elif place is None:
            raise UserError(f"no box of {c.image} is annotated there", got=c.box)
        elif c.action == "remove":
            kept[place] = False
        elif c.action == "class":
            classes[place] = class_names.index(c.class_name)
        elif c.new_box is not None:
            made[place] = c.new_box
    return CorrectedBoxes(
        np.concatenate([made[kept], _array(added)]),
        np.concatenate([classes[kept], np.array(added_labels, np.int64)]),
        _array(ignored),
    )


def _annotated(boxes: Boxes, box: Box) -> int | None:
    if not len(boxes):
        return None
    off = np.abs(boxes - np.array(box, np.float32)).max(axis=1)
    nearest = int(off.argmin())
    return nearest if off[nearest] <= _TOLERANCE else None


def _array(boxes: list[Box]) -> Boxes:
    return np.array(boxes, np.float32).reshape(-1, 4)
