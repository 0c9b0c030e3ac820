"""YOLO: one text file for each image, one line for each box, centre and size as fractions."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from unmask.data.detection.annotation import (
    Annotation,
    Found,
    PictureIndex,
    box_array,
    box_round,
    class_name,
)
from unmask.data.listing import PictureFile, skipped
from unmask.errors import UserError

SUFFIX = ".txt"
NAME_FILES = (
    "data.yaml",
    "data.yml",
    "dataset.yaml",
    "mask.yaml",
    "classes.txt",
    "_classes.txt",
    "obj.names",
    "_darknet.labels",
)
# The first part of the path of a file in the folder above the given one.
ABOVE = ".."
_YAML = (".yaml", ".yml")
_MAX_CLASSES = 10_000
_WANTED = "a line must be: class x y width height, or class and the corners of an outline"

Box = tuple[float, float, float, float]


def read_yolo(files: list[PictureFile], pictures: PictureIndex, warnings: list[str]) -> Found:
    """Return the annotations of YOLO's text files, each with the stem of an image.

    The classes' names come from one of NAME_FILES or another YAML file, beside the images or above
    them; without one they are "class 0", "class 1", .... An image whose file is empty is
    background, and so is one without a file in a folder where others have one. Outlines and rotated
    boxes become the boxes round them, with one warning for all; key points (kpt_shape in the YAML)
    and a confidence behind the box are ignored. Text files that belong to no image (README.txt,
    train.txt) are ignored; others that are malformed are named in warnings.

    Args:
        files: all files of the tree; those that end in .txt are read, and those that name classes.
        pictures: its images.
        warnings: gets one line for each thing left out.
    """
    names, key_points = _described(files, warnings)
    read: list[tuple[PictureFile, list[tuple[int, Box]]]] = []
    outlines = 0
    for file in files:
        name = file.path[-1].lower()
        if not name.endswith(SUFFIX) or name in NAME_FILES:
            continue
        belongs = PurePosixPath(file.path[-1]).stem in pictures
        try:
            rows = [line for line in _text(file).splitlines() if line.strip()]
            labelled = [_line(line, key_points) for line in rows]
        except UserError as error:
            if belongs:
                warnings.append(skipped(file.path, str(error)))
            continue
        if belongs or labelled:
            read.append((file, [(label, box) for label, box, _ in labelled]))
            outlines += sum(outline for _, _, outline in labelled)
    if outlines:
        warnings.append(f"outlines and turned boxes taken as the boxes round them: {outlines}")
    if not names:
        count = 1 + max((label for _, lines in read for label, _ in lines), default=-1)
        names = tuple(f"class {k}" for k in range(count))
    annotations = []
    for file, lines in read:
        try:
            annotations.append(
                Annotation(
                    file.path,
                    pictures.find(file.path, PurePosixPath(file.path[-1]).stem),
                    box_array([box for _, box in lines]),
                    tuple(_named(label, names) for label, _ in lines),
                    relative=True,
                )
            )
        except UserError as error:
            warnings.append(skipped(file.path, str(error)))
    return Found(annotations + _background(annotations, files, pictures, warnings), names)


def _background(
    annotations: list[Annotation],
    files: list[PictureFile],
    pictures: PictureIndex,
    warnings: list[str],
) -> list[Annotation]:
    """Return empty annotations for images without a file in folders where others have one."""
    labelled = {annotation.picture for annotation in annotations}
    folders = {path[:-1] for path in labelled}
    # An image whose own file can't be used is no background.
    stems = {PurePosixPath(f.path[-1]).stem for f in files if f.path[-1].lower().endswith(SUFFIX)}
    empty = [
        path
        for path in pictures.paths
        if path not in labelled
        and path[:-1] in folders
        and PurePosixPath(path[-1]).stem not in stems
    ]
    if empty:
        first = "/".join(empty[0])
        line = f"images without a label file taken as background: {len(empty)}, the first {first!r}"
        warnings.append(line)
    return [Annotation(path, path, box_array([]), (), relative=True) for path in empty]


def _line(line: str, key_points: bool) -> tuple[int, Box, bool]:
    """Return a line's class and box, and whether the box was derived from an outline."""
    try:
        label, *rest = line.split()
        # Some tools number classes as 0.0.
        number = int(float(label))
        values = [float(value) for value in rest]
    except (ValueError, OverflowError) as error:
        raise UserError(_WANTED, got=repr(line[:60])) from error
    if not 0 <= number < _MAX_CLASSES:
        raise UserError(f"classes are numbered 0 to {_MAX_CLASSES - 1}", got=number)
    boxed = len(values) in (4, 5) or (key_points and len(values) > 4)
    # Tools that turn or shift images leave values a little outside; no image is a million wide.
    if any(2 < abs(value) < 1e6 for value in (values[:4] if boxed else values)):
        raise UserError(
            "values must be fractions of the image's width and height",
            got=repr(line[:60]),
            do="divide pixels by the width and height",
        )
    if boxed:
        x, y, w, h = values[:4]
        return number, (x - w / 2, y - h / 2, x + w / 2, y + h / 2), False
    if len(values) < 6 or len(values) % 2:
        raise UserError(_WANTED, got=repr(line[:60]))
    return number, box_round(values[::2], values[1::2]), True


def _named(label: int, names: tuple[str, ...]) -> str:
    if label >= len(names):
        raise UserError(f"there are names for {len(names)} classes only", got=f"class {label}")
    return names[label]


def _described(files: list[PictureFile], warnings: list[str]) -> tuple[tuple[str, ...], bool]:
    """Return the classes' names, and whether lines hold key points after their boxes."""
    found: list[tuple[PictureFile, tuple[str, ...], bool]] = []
    others = sorted({f.path[-1].lower() for f in files} - set(NAME_FILES))
    wanted = (*NAME_FILES, *(name for name in others if name.endswith(_YAML)))
    rank = {name: i for i, name in enumerate(wanted)}
    named = [f for f in files if f.path[-1].lower() in rank]
    for file in sorted(named, key=lambda f: (f.path[0] == ABOVE, rank[f.path[-1].lower()])):
        name = file.path[-1].lower()
        try:
            text, key_points = _text(file), False
            if name.endswith(_YAML):
                content = _yaml(text)
                entry = content.get("names") if isinstance(content, dict) else None
                # YAML of another kind, or a description without the names.
                if entry is None:
                    continue
                lines, key_points = _yaml_names(entry), "kpt_shape" in content
            else:
                lines = text.splitlines()
            names = tuple(class_name(line) for line in lines if line.strip())
            if not names or len(set(names)) != len(names) or len(names) > _MAX_CLASSES:
                raise UserError("the names of the classes must be distinct", got=names[:5])
        except UserError as error:
            if name in NAME_FILES:
                warnings.append(skipped(file.path, str(error)))
        else:
            found.append((file, names, key_points))
    if not found:
        return (), False
    (first, names, key_points), *more = found
    for file, other, _ in more:
        if other != names and file.path[0] != ABOVE:
            warnings.append(
                f"{'/'.join(file.path)!r} names other classes than {'/'.join(first.path)!r}, "
                f"which counts: {', '.join(names[:12])}"
            )
    return names, key_points


def _yaml(text: str) -> Any:
    import yaml  # type: ignore[import-untyped, unused-ignore]

    try:
        # All values as text, since a class may be called yes, no or 1.0; and no objects.
        return yaml.load(text, Loader=yaml.BaseLoader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UserError("no YAML", got=str(error).splitlines()[0]) from error


def _yaml_names(names: object) -> list[str]:
    """Return the entries of "names" in YAML: a list, a numbered mapping, or text with commas."""
    if isinstance(names, dict):
        try:
            return [str(names[key]) for key in sorted(names, key=int)]
        except (TypeError, ValueError) as error:
            raise UserError("the keys of 'names' must be numbers", got=error) from error
    if isinstance(names, str):
        return [name.strip() for name in names.strip("[]").split(",")]
    if not isinstance(names, list):
        raise UserError("'names' is no list")
    return [str(name) for name in names]


def _text(file: PictureFile) -> str:
    try:
        return file.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError("no text in UTF-8", got=error.reason) from error
