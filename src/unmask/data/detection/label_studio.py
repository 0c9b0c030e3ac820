"""Label Studio: a JSON list with one task for each image, boxes in per cent of its sides."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from unmask.data.detection.annotation import (
    Annotation,
    Found,
    PictureIndex,
    box_array,
    box_round,
    class_name,
)
from unmask.data.detection.coco import SUFFIX, parse_json
from unmask.data.listing import PictureFile, skipped
from unmask.errors import UserError

Box = tuple[float, float, float, float]

# The prefix that it gives the name of an uploaded file.
_PREFIX = re.compile(r"^[0-9a-f]{8}-")
_AMISS = (TypeError, KeyError, ValueError, AttributeError, OverflowError)


def read_label_studio(
    files: list[PictureFile], pictures: PictureIndex, warnings: list[str]
) -> Found:
    """Return the annotations of Label Studio's exports, "JSON" and "JSON-MIN".

    If several people annotated a task, the first annotation that wasn't cancelled counts. Rotated
    boxes and outlines become the boxes round them, with one warning for all; other shapes are
    ignored. JSON of other kinds is left to read_coco.

    Args:
        files: all files of the tree; those that end in .json are read.
        pictures: its images.
        warnings: gets one line for each thing left out.
    """
    annotations: list[Annotation] = []
    outlines = 0
    for file in files:
        if not file.path[-1].lower().endswith(SUFFIX):
            continue
        try:
            tasks = parse_json(file)
        except UserError as error:
            warnings.append(skipped(file.path, str(error)))
            continue
        if not (isinstance(tasks, list) and tasks):
            continue
        for number, task in enumerate(tasks):
            boxes, names = [], []
            try:
                name = _image(task)
                regions = list(_regions(task))
                for value in regions:
                    try:
                        box, outline = _box(value)
                        names.append(class_name(_label(value)))
                        boxes.append(box)
                        outlines += outline
                    except _AMISS as error:
                        warnings.append(
                            f"{'/'.join(file.path)!r}: a region of {name!r} passed over: {error}"
                        )
                annotations.append(
                    Annotation(
                        file.path,
                        _found(pictures, file, name),
                        box_array(boxes),
                        tuple(names),
                        relative=True,
                    )
                )
            except UserError as error:
                warnings.append(skipped((*file.path, f"task {number + 1}"), str(error)))
            except _AMISS:
                line = "no task of Label Studio's, which has an image and annotations"
                warnings.append(skipped((*file.path, f"task {number + 1}"), line))
    if outlines:
        warnings.append(f"outlines and turned boxes taken as the boxes round them: {outlines}")
    return Found(annotations, tuple(sorted({name for a in annotations for name in a.names})))


def _image(task: dict[str, Any]) -> str:
    """Return the file name in the address of a task's image."""
    values = [v for v in task.get("data", task).values() if isinstance(v, str)]
    addresses = [task["image"]] if isinstance(task.get("image"), str) else values
    parts = urlsplit(addresses[0] if len(addresses) == 1 else task["data"]["image"])
    # The path of a local file follows /data/local-files/?d=.
    local = parse_qs(parts.query).get("d")
    return local[0] if local else unquote(parts.path)


def _found(pictures: PictureIndex, file: PictureFile, name: str) -> tuple[str, ...]:
    try:
        return pictures.find(file.path, name)
    except UserError:
        own = PurePosixPath(name).name
        if not _PREFIX.match(own):
            raise
        return pictures.find(file.path, _PREFIX.sub("", own))


def _regions(task: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the values of a task's boxes and outlines."""
    if "annotations" in task or "completions" in task:
        made = task.get("annotations", task.get("completions")) or []
        kept = [a for a in made if not a.get("was_cancelled")]
        results = kept[0]["result"] if kept else []
        regions = [
            {**r["value"], **{k: v for k, v in r.items() if k.startswith("original_")}}
            for r in results
            if isinstance(r.get("value"), dict)
        ]
    else:
        regions = [
            region
            for value in task.values()
            if isinstance(value, list)
            for region in value
            if isinstance(region, dict)
        ]
        if not regions and "id" not in task and "annotator" not in task:
            raise KeyError("annotations")
    yield from (r for r in regions if "rectanglelabels" in r or "polygonlabels" in r)


def _label(value: dict[str, Any]) -> object:
    labels = value.get("rectanglelabels") or value.get("polygonlabels")
    return labels[0] if isinstance(labels, list) and labels else None


def _box(value: dict[str, Any]) -> tuple[Box, bool]:
    """Return a region's box in fractions of the sides, and whether it was another shape."""
    if "points" in value:
        points = [(float(x) / 100, float(y) / 100) for x, y in value["points"]]
        if len(points) < 3:
            raise ValueError("an outline has three points or more")
        return box_round([x for x, _ in points], [y for _, y in points]), True
    x, y, wide, high = (float(value[key]) / 100 for key in ("x", "y", "width", "height"))
    if not (turn := math.radians(float(value.get("rotation") or 0))):
        return (x, y, x + wide, y + high), False
    # Rotated about the upper left corner, in pixels: fractions of the sides may not be square.
    across, down = float(value["original_width"]), float(value["original_height"])
    cos, sin = math.cos(turn), math.sin(turn)
    w, h = wide * across, high * down
    corners = [
        (0.0, 0.0),
        (w * cos, w * sin),
        (w * cos - h * sin, w * sin + h * cos),
        (-h * sin, h * cos),
    ]
    return box_round([x + a / across for a, _ in corners], [y + b / down for _, b in corners]), True
