"""COCO: one JSON file for many images, boxes as corner and size in pixels."""

from __future__ import annotations

import json
from collections import defaultdict
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

SUFFIX = ".json"
# What malformed entries raise.
_AMISS = (TypeError, KeyError, ValueError, AttributeError, OverflowError)


def read_coco(files: list[PictureFile], pictures: PictureIndex, warnings: list[str]) -> Found:
    """Return the annotations of COCO's JSON files (Lin et al., 2014).

    Classes come in the order of their ids; a category that is only a supercategory of others, as in
    Roboflow's exports, is no class. An annotation without a box gets the box round its outline. Key
    points are ignored, and boxes round crowds are skipped and counted in warnings. Images,
    categories and annotations that can't be used are named there and the others taken. JSON lists
    are left to read_label_studio.

    Args:
        files: all files of the tree; those that end in .json are read.
        pictures: its images.
        warnings: gets one line for each thing left out.
    """
    annotations: list[Annotation] = []
    names: dict[str, str] = {}
    for file in files:
        if not file.path[-1].lower().endswith(SUFFIX):
            continue
        try:
            content = parse_json(file)
            if isinstance(content, list) and content:
                continue
            parts = ("images", "annotations", "categories")
            if not isinstance(content, dict) or not all(
                isinstance(content.get(part), list) for part in parts
            ):
                raise UserError(f"no COCO annotations, which have {', '.join(parts)}")
        except UserError as error:
            warnings.append(skipped(file.path, str(error)))
            continue
        categories = _categories(file, content, warnings)
        annotations += _annotations(file, content, categories, pictures, warnings)
        for number, name in categories.items():
            names.setdefault(name, number)
    return Found(annotations, tuple(sorted(names, key=lambda name: (_number(names[name]), name))))


def parse_json(file: PictureFile) -> Any:
    """Return the content of a JSON file.

    Args:
        file: as list_pictures found it.

    Raises:
        UserError: when the file can't be read or is no JSON.
    """
    try:
        return json.loads(file.read())
    except (ValueError, RecursionError) as error:
        raise UserError("no JSON", got=str(error)) from error


def _amiss(file: PictureFile, what: str, wrong: list[str]) -> list[str]:
    """Return the warning about entries that can't be used, if there are any."""
    name = "/".join(file.path)
    return [f"{name!r}: {what} passed over: {len(wrong)}, the first {wrong[0]}"] if wrong else []


def _categories(file: PictureFile, content: dict[str, Any], warnings: list[str]) -> dict[str, str]:
    """Return the names of the categories by their ids as text; ids are numbers or text."""
    found: dict[str, str] = {}
    above: set[str] = set()
    wrong = []
    for entry in content["categories"]:
        try:
            found[str(entry["id"])] = class_name(entry["name"])
            above.add(str(entry.get("supercategory")))
        except _AMISS as error:
            wrong.append(_entry(error, entry))
    warnings += _amiss(file, "categories without an id and a name", wrong)
    used = {str(a.get("category_id")) for a in content["annotations"] if isinstance(a, dict)}
    return {key: name for key, name in found.items() if key in used or name not in above}


def _number(key: str) -> tuple[int, str]:
    """Return the sort key of a category's id: as a number where it is one."""
    return (int(key), "") if key.isdecimal() else (1 << 30, key)


def _box(entry: dict[str, Any]) -> tuple[float, float, float, float]:
    if entry.get("bbox") is None and isinstance(entry.get("segmentation"), list):
        points = [float(v) for outline in entry["segmentation"] for v in outline]
        return box_round(points[::2], points[1::2])
    x, y, width, height = (float(v) for v in entry["bbox"])
    return x, y, x + width, y + height


def _annotations(
    file: PictureFile,
    content: dict[str, Any],
    categories: dict[str, str],
    pictures: PictureIndex,
    warnings: list[str],
) -> list[Annotation]:
    by_image: dict[str, list[tuple[tuple[float, float, float, float], str]]] = defaultdict(list)
    crowds, wrong = 0, list[str]()
    for entry in content["annotations"]:
        try:
            if entry.get("iscrowd"):
                crowds += 1
            else:
                box, name = _box(entry), categories[str(entry["category_id"])]
                by_image[str(entry["image_id"])].append((box, name))
        except _AMISS as error:
            wrong.append(_entry(error, entry))
    warnings += _amiss(file, "annotations without image_id, category_id or bbox", wrong)
    if crowds:
        warnings.append(f"{'/'.join(file.path)!r}: boxes round crowds passed over: {crowds}")
    found, wrong = [], []
    for image in content["images"]:
        try:
            name, number = str(image["file_name"]), str(image["id"])
            size = (int(image.get("width") or 0), int(image.get("height") or 0))
        except _AMISS:
            wrong.append(repr(image)[:100])
            continue
        boxes = by_image.pop(number, [])
        try:
            picture = pictures.find(file.path, name)
        except UserError as error:
            warnings.append(skipped((*file.path, name), str(error)))
            continue
        found.append(
            Annotation(
                file.path,
                picture,
                box_array([box for box, _ in boxes]),
                tuple(name for _, name in boxes),
                size if all(size) else None,
            )
        )
    if wrong:
        line = f"{len(wrong)} images without id and file_name, the first {wrong[0]}"
        warnings.append(skipped(file.path, line))
    if by_image:
        warnings.append(
            f"{'/'.join(file.path)!r}: annotations of images that it doesn't list: {len(by_image)}"
        )
    return found


def _entry(error: Exception, entry: object) -> str:
    return f"{error!r} in {entry!r}"[:100]
