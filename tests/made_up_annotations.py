"""Small images with boxes that are known, written as each kind of annotations that is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

Box = tuple[float, float, float, float]
# Of each image: width, height, and the class and box of what it holds.
Made = dict[str, tuple[int, int, list[tuple[str, Box]]]]

CLASSES = ("bare", "masked")
MADE: Made = {
    "a": (64, 48, [("masked", (4, 6, 20, 30)), ("bare", (40, 8, 56, 24))]),
    "b": (40, 80, [("bare", (0, 0, 40, 80))]),
    "c": (32, 32, []),
}


def write_picture(path: Path, width: int, height: int, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def voc_text(name: str, width: int, height: int, things: list[tuple[str, Box]]) -> str:
    objects = "".join(
        f"<object><name>{kind}</name><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin>"
        f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for kind, (x1, y1, x2, y2) in things
    )
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation><filename>{name}.jpg</filename>{size}{objects}</annotation>"


def write_voc(root: Path, made: Made) -> Path:
    folder = root / "annotations"
    folder.mkdir(parents=True, exist_ok=True)
    for name, (width, height, things) in made.items():
        (folder / f"{name}.xml").write_text(voc_text(name, width, height, things))
    return _with_pictures(root, made)


def write_yolo(root: Path, made: Made) -> Path:
    folder = root / "labels"
    folder.mkdir(parents=True, exist_ok=True)
    for name, (width, height, things) in made.items():
        lines = [
            f"{CLASSES.index(kind)} {(x1 + x2) / 2 / width!r} {(y1 + y2) / 2 / height!r} "
            f"{(x2 - x1) / width!r} {(y2 - y1) / height!r}"
            for kind, (x1, y1, x2, y2) in things
        ]
        (folder / f"{name}.txt").write_text("\n".join(lines))
    (root / "data.yaml").write_text(f"nc: 2\nnames: ['{CLASSES[0]}', '{CLASSES[1]}']  # both\n")
    return _with_pictures(root, made)


def write_coco(root: Path, made: Made) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for number, (name, (width, height, things)) in enumerate(made.items(), 1):
        images.append({"id": number, "file_name": f"{name}.png", "width": width, "height": height})
        annotations += [
            {
                "id": 100 * number + k,
                "image_id": number,
                "category_id": 7 + CLASSES.index(kind),
                "bbox": [x1, y1, x2 - x1, y2 - y1],
            }
            for k, (kind, (x1, y1, x2, y2)) in enumerate(things)
        ]
    categories = [{"id": 7 + k, "name": name} for k, name in enumerate(CLASSES)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "instances.json").write_text(json.dumps(content))
    return _with_pictures(root, made)


WRITERS: dict[str, Callable[[Path, Made], Path]] = {
    "voc": write_voc,
    "yolo": write_yolo,
    "coco": write_coco,
}


def _with_pictures(root: Path, made: Made) -> Path:
    for seed, (name, (width, height, _)) in enumerate(made.items()):
        write_picture(root / "images" / f"{name}.png", width, height, seed)
    return root
