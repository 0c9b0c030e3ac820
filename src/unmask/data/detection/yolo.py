"""YOLO: a text file a picture, a line a box, its middle and size as parts of the sides."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from unmask.data.detection.annotation import Annotation, Found, PictureIndex, box_array, class_name
from unmask.data.listing import PictureFile, skipped
from unmask.errors import UserError

SUFFIX = ".txt"
NAME_FILES = ("data.yaml", "data.yml", "dataset.yaml", "classes.txt", "obj.names")
_MAX_CLASSES = 10_000
_ENTRY = re.compile(r"""^(?:-|\d+\s*:)\s*(.+)$""")


def read_yolo(files: list[PictureFile], pictures: PictureIndex, warnings: list[str]) -> Found:
    """Return the annotations of the text files that have a picture's stem.

    The classes' names come from one of NAME_FILES, and are "class 0", "class 1", ... without. A
    picture whose file is empty holds nothing to find. Other files, and those that aren't as they
    should be, are named in warnings.
    """
    names = _names(files, warnings)
    read: list[tuple[PictureFile, list[tuple[int, tuple[float, float, float, float]]]]] = []
    for file in files:
        name = file.path[-1].lower()
        if not name.endswith(SUFFIX) or name in NAME_FILES:
            continue
        try:
            read.append((file, [_line(line) for line in _text(file).splitlines() if line.strip()]))
        except UserError as error:
            warnings.append(skipped(file.path, str(error)))
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
    return Found(annotations, names)


def _line(line: str) -> tuple[int, tuple[float, float, float, float]]:
    try:
        label, x, y, width, height = line.split()
        middle = (float(x), float(y), float(width), float(height))
        number = int(label)
    except ValueError as error:
        raise UserError("a line must be: class x y width height", got=repr(line[:60])) from error
    if not 0 <= number < _MAX_CLASSES:
        raise UserError(f"classes are numbered 0 to {_MAX_CLASSES - 1}", got=number)
    x_, y_, w, h = middle
    return number, (x_ - w / 2, y_ - h / 2, x_ + w / 2, y_ + h / 2)


def _named(label: int, names: tuple[str, ...]) -> str:
    if label >= len(names):
        raise UserError(f"there are names for {len(names)} classes only", got=f"class {label}")
    return names[label]


def _names(files: list[PictureFile], warnings: list[str]) -> tuple[str, ...]:
    for wanted in NAME_FILES:
        for file in files:
            if file.path[-1].lower() != wanted:
                continue
            try:
                text = _text(file)
                is_yaml = wanted.endswith((".yaml", ".yml"))
                lines = _yaml_names(text) if is_yaml else text.splitlines()
                names = tuple(class_name(line) for line in lines if line.strip())
                if not names or len(set(names)) != len(names) or len(names) > _MAX_CLASSES:
                    raise UserError("the names of the classes must be distinct", got=names[:5])
            except UserError as error:
                warnings.append(skipped(file.path, str(error)))
            else:
                return names
    return ()


def _yaml_names(text: str) -> list[str]:
    """Return the entries of "names:" in YAML, a list or numbered, in one line or in many."""
    lines = text.splitlines()
    start = next((i for i, line in enumerate(lines) if line.startswith("names:")), None)
    if start is None:
        raise UserError("it has no entry 'names'")
    rest = lines[start].removeprefix("names:").split(" #")[0].strip()
    if rest:
        entries = rest.strip("[]{}").split(",")
        return [_unquoted(re.sub(r"^\s*\d+\s*:", "", entry)) for entry in entries]
    names = []
    for line in lines[start + 1 :]:
        entry = _ENTRY.match(line.split(" #")[0].strip())
        if entry:
            names.append(_unquoted(entry[1]))
        elif line.strip() and not line.lstrip().startswith("#"):
            break
    return names


def _unquoted(text: str) -> str:
    return text.strip().strip("'\"").strip()


def _text(file: PictureFile) -> str:
    try:
        return file.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError("no text in UTF-8", got=error.reason) from error
