"""CVAT: one XML file for many images, boxes and outlines in pixels."""

from __future__ import annotations

import math
from collections.abc import Iterator
from xml.etree.ElementTree import Element

from unmask.data.detection.annotation import (
    Annotation,
    Found,
    PictureIndex,
    box_array,
    box_round,
    class_name,
)
from unmask.data.detection.voc import SUFFIX, parse_xml
from unmask.data.listing import PictureFile, skipped
from unmask.errors import UserError

OUTERMOST = "annotations"
_SIDES = ("xtl", "ytl", "xbr", "ybr")


def read_cvat(files: list[PictureFile], pictures: PictureIndex, warnings: list[str]) -> Found:
    """Return the annotations of CVAT's XML files ("CVAT for images 1.1").

    Rotated boxes and outlines become the boxes round them, with one warning for all; points, lines
    and tags are ignored. XML of other kinds is left to read_voc.

    Args:
        files: all files of the tree; those that end in .xml are read.
        pictures: its images.
        warnings: gets one line for each thing left out.
    """
    annotations: list[Annotation] = []
    outlines = 0
    for file in files:
        if not file.path[-1].lower().endswith(SUFFIX):
            continue
        try:
            root = parse_xml(file.read())
            if root.tag != OUTERMOST:
                continue
            images = root.findall("image")
            if not images and root.find("track") is not None:
                raise UserError(
                    "CVAT annotations of a video, whose frames aren't named",
                    do='export it as "CVAT for images"',
                )
        except UserError as error:
            warnings.append(skipped(file.path, str(error)))
            continue
        for image in images:
            name = image.get("name", "")
            boxes, names = [], []
            for shape in _shapes(image):
                try:
                    box = _box(shape)
                    names.append(class_name(shape.get("label")))
                    boxes.append(box)
                except (ValueError, TypeError, OverflowError) as error:
                    warnings.append(f"{'/'.join(file.path)!r}: a {shape.tag} of {name!r}: {error}")
                else:
                    outlines += shape.tag == "polygon" or _turn(shape) != 0
            try:
                annotations.append(
                    Annotation(
                        file.path,
                        pictures.find(file.path, name),
                        box_array(boxes),
                        tuple(names),
                        _size(image),
                    )
                )
            except UserError as error:
                warnings.append(skipped((*file.path, name), str(error)))
    if outlines:
        warnings.append(f"outlines and turned boxes taken as the boxes round them: {outlines}")
    return Found(annotations, tuple(sorted({name for a in annotations for name in a.names})))


def _shapes(image: Element) -> Iterator[Element]:
    return (shape for shape in image if shape.tag in ("box", "polygon"))


def _turn(shape: Element) -> float:
    return float(shape.get("rotation") or 0)


def _box(shape: Element) -> tuple[float, float, float, float]:
    if shape.tag == "polygon":
        points = [tuple(map(float, p.split(","))) for p in shape.get("points", "").split(";")]
        if len(points) < 3 or any(len(point) != 2 for point in points):
            raise UserError("an outline has three points or more", got=shape.get("points"))
        return box_round([x for x, _ in points], [y for _, y in points])
    left, top, right, bottom = (float(shape.get(side, "")) for side in _SIDES)
    if not (turn := math.radians(_turn(shape))):
        return left, top, right, bottom
    # Rotated about the box's centre.
    wide, high = (right - left) / 2, (bottom - top) / 2
    cos, sin = abs(math.cos(turn)), abs(math.sin(turn))
    across, down = wide * cos + high * sin, wide * sin + high * cos
    x, y = (left + right) / 2, (top + bottom) / 2
    return x - across, y - down, x + across, y + down


def _size(image: Element) -> tuple[int, int] | None:
    stated = (image.get("width", ""), image.get("height", ""))
    if not all(side.isdecimal() and int(side) for side in stated):
        return None
    return int(stated[0]), int(stated[1])
