"""YOLO: a text file an image, a line a box, its middle and size as parts of the sides."""

from __future__ import annotations

from pathlib import PurePosixPath

from unmask.data.detection.annotation import Annotation, Found, PictureIndex, box_array, class_name
from unmask.data.listing import PictureFile, skipped
from unmask.errors import UserError

SUFFIX = ".txt"
NAME_FILES = ("data.yaml", "data.yml", "dataset.yaml", "mask.yaml", "classes.txt", "obj.names")
_MAX_CLASSES = 10_000


def read_yolo(files: list[PictureFile], pictures: PictureIndex, warnings: list[str]) -> Found:
    """Return the annotations of the text files that have an image's stem.

    The classes' names come from one of NAME_FILES, and are "class 0", "class 1", ... without. An
    image whose file is empty, or that has none in a folder with labels, holds nothing to find.
    Polygons and turned boxes become the boxes round them, which is said once. Text files that
    belong to no image (README.txt, train.txt) are passed over; others that aren't as they should be
    are named in warnings.
    """
    names = _names(files, warnings)
    read: list[tuple[PictureFile, list[tuple[int, Box]]]] = []
    outlines = 0
    for file in files:
        name = file.path[-1].lower()
        if not name.endswith(SUFFIX) or name in NAME_FILES:
            continue
        belongs = PurePosixPath(file.path[-1]).stem in pictures
        try:
            rows = [line for line in _text(file).splitlines() if line.strip()]
            labelled = [_line(line) for line in rows]
        except UserError as error:
            if belongs:
                warnings.append(skipped(file.path, str(error)))
            continue
        if belongs or labelled:
            read.append((file, labelled))
            outlines += sum(len(line.split()) > 5 for line in rows)
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
    return Found(annotations, names)


Box = tuple[float, float, float, float]


def _line(line: str) -> tuple[int, Box]:
    wanted = "a line must be: class x y width height, or class and the corners of an outline"
    try:
        label, *rest = line.split()
        # Some tools number classes as 0.0.
        number = int(float(label))
        values = [float(value) for value in rest]
    except (ValueError, OverflowError) as error:
        raise UserError(wanted, got=repr(line[:60])) from error
    if not 0 <= number < _MAX_CLASSES:
        raise UserError(f"classes are numbered 0 to {_MAX_CLASSES - 1}", got=number)
    if len(values) == 4:
        x, y, w, h = values
        return number, (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
    if len(values) < 6 or len(values) % 2:
        raise UserError(wanted, got=repr(line[:60]))
    across, down = values[::2], values[1::2]
    return number, (min(across), min(down), max(across), max(down))


def _named(label: int, names: tuple[str, ...]) -> str:
    if label >= len(names):
        raise UserError(f"there are names for {len(names)} classes only", got=f"class {label}")
    return names[label]


def _names(files: list[PictureFile], warnings: list[str]) -> tuple[str, ...]:
    others = sorted({f.path[-1].lower() for f in files} - set(NAME_FILES))
    yamls = [name for name in others if name.endswith((".yaml", ".yml"))]
    for wanted in (*NAME_FILES, *yamls):
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
    """Return the entries of "names:" in YAML, a list or numbered."""
    import yaml  # type: ignore[import-untyped, unused-ignore]

    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise UserError("no YAML", got=str(error).splitlines()[0]) from error
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, dict):
        try:
            return [str(names[key]) for key in sorted(names, key=int)]
        except (TypeError, ValueError) as error:
            raise UserError("the keys of 'names' must be numbers", got=error) from error
    if not isinstance(names, list):
        raise UserError("it has no entry 'names'")
    return [str(name) for name in names]


def _text(file: PictureFile) -> str:
    try:
        return file.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError("no text in UTF-8", got=error.reason) from error
