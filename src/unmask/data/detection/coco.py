"""COCO: one JSON file for many images, boxes as corner and size in pixels."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

from unmask.data.detection.annotation import Annotation, Found, PictureIndex, box_array, class_name
from unmask.data.listing import PictureFile, skipped
from unmask.errors import UserError

SUFFIX = ".json"


def read_coco(files: list[PictureFile], pictures: PictureIndex, warnings: list[str]) -> Found:
    """Return the annotations of the JSON files (Lin et al., 2014).

    Classes come in the order of their numbers. Outlines and key points are passed over, and so are
    boxes round crowds, which are counted in warnings, like the files and images left out.
    """
    annotations: list[Annotation] = []
    names: dict[str, Any] = {}
    for file in files:
        if not file.path[-1].lower().endswith(SUFFIX):
            continue
        try:
            content = _content(file)
            categories = _categories(content)
            found = _annotations(file, content, categories, pictures, warnings)
        except UserError as error:
            warnings.append(skipped(file.path, str(error)))
            continue
        annotations += found
        for number, name in categories.items():
            names.setdefault(name, number)
    return Found(annotations, tuple(sorted(names, key=lambda name: (_number(names[name]), name))))


def _content(file: PictureFile) -> dict[str, Any]:
    try:
        content = json.loads(file.read())
    except (ValueError, RecursionError) as error:
        raise UserError("no JSON", got=str(error)) from error
    parts = ("images", "annotations", "categories")
    if not isinstance(content, dict) or not all(isinstance(content.get(p), list) for p in parts):
        raise UserError(f"no COCO annotations, which have {', '.join(parts)}")
    return content


def _categories(content: dict[str, Any]) -> dict[Any, str]:
    try:
        found = {c["id"]: class_name(c["name"]) for c in content["categories"]}
    except (TypeError, KeyError, ValueError, OverflowError) as error:
        raise UserError("its categories need an id and a name", got=repr(error)) from error
    return found


def _number(key: Any) -> tuple[int, str]:
    """Return what category numbers are sorted by: as numbers where they are such."""
    text = str(key)
    return (int(text), "") if text.isdecimal() else (1 << 30, text)


def _annotations(
    file: PictureFile,
    content: dict[str, Any],
    categories: dict[int, str],
    pictures: PictureIndex,
    warnings: list[str],
) -> list[Annotation]:
    by_image: dict[Any, list[tuple[tuple[float, float, float, float], str]]] = defaultdict(list)
    crowds, amiss = 0, list[str]()
    for entry in content["annotations"]:
        try:
            x, y, width, height = (float(v) for v in entry["bbox"])
            name, image = categories[entry["category_id"]], entry["image_id"]
            crowds += bool(entry.get("iscrowd"))
            if not entry.get("iscrowd"):
                by_image[image].append(((x, y, x + width, y + height), name))
        except (TypeError, KeyError, ValueError, AttributeError, OverflowError) as error:
            amiss.append(f"{error!r} in {entry!r}"[:100])
    if amiss:
        warnings.append(
            f"{'/'.join(file.path)!r}: annotations without image_id, category_id or bbox passed "
            f"over: {len(amiss)}, the first {amiss[0]}"
        )
    if crowds:
        warnings.append(f"{'/'.join(file.path)!r}: boxes round crowds passed over: {crowds}")
    found = []
    for image in content["images"]:
        try:
            name, number = image["file_name"], image["id"]
            boxes = by_image.pop(number, [])
            size = (int(image.get("width") or 0), int(image.get("height") or 0))
            picture = pictures.find(file.path, str(name))
        except UserError as error:
            warnings.append(skipped((*file.path, str(name)), str(error)))
            continue
        except (TypeError, KeyError, ValueError, AttributeError, OverflowError) as error:
            raise UserError("an image needs id and file_name", got=repr(image)[:100]) from error
        found.append(
            Annotation(
                file.path,
                picture,
                box_array([box for box, _ in boxes]),
                tuple(name for _, name in boxes),
                size if all(size) else None,
            )
        )
    if by_image:
        warnings.append(
            f"{'/'.join(file.path)!r}: annotations of images that it doesn't list: {len(by_image)}"
        )
    return found
