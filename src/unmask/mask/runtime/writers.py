"""Detections as files for other programs: JSON, JSON lines, CSV and COCO."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from unmask.errors import unknown
from unmask.mask.runtime.detections import NOT_JUDGED_NAME, Detections
from unmask.runtime import write_atomically
from unmask.text import as_cell


@dataclass(frozen=True, eq=False)
class Record:
    """The faces of an image or of a frame of a video.

    Args:
        file: the name of the image or video.
        found: the faces.
        frame: the number of the frame from 0, None for an image.
        seconds: the time of the frame, None for an image.
        numbers: int64[n], of the faces' tracks, None without tracking.
    """

    file: str
    found: Detections
    frame: int | None = None
    seconds: float | None = None
    numbers: NDArray[np.int64] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; each face names the classes in its probabilities."""
        entries = self.found.as_dict()
        if self.numbers is not None:
            for face, number in zip(entries["faces"], self.numbers.tolist(), strict=True):
                face["track"] = number
        where = {"file": self.file, "frame": self.frame, "seconds": self.seconds}
        return {**{key: value for key, value in where.items() if value is not None}, **entries}


Add = Callable[[Record], None]


def _json(file: IO[bytes], class_names: tuple[str, ...]) -> Iterator[Add]:
    count = 0

    def add(record: Record) -> None:
        nonlocal count
        file.write(b",\n" if count else b"[\n")
        file.write(json.dumps(record.as_dict()).encode())
        count += 1

    yield add
    file.write(b"\n]\n" if count else b"[]\n")


def _json_lines(file: IO[bytes], class_names: tuple[str, ...]) -> Iterator[Add]:
    yield lambda record: _discard(file.write(json.dumps(record.as_dict()).encode() + b"\n"))


def _csv(file: IO[bytes], class_names: tuple[str, ...]) -> Iterator[Add]:
    text = io.TextIOWrapper(
        file, "utf-8", errors="backslashreplace", newline="", write_through=True
    )
    writer = csv.writer(text)
    box = ("left", "top", "right", "bottom")
    where = ("file", "frame", "seconds", "width", "height", "track")
    writer.writerow((*where, *box, "label", "score", *map(as_cell, class_names)))

    def add(record: Record) -> None:
        found = record.found
        n = len(found)
        tracks = [""] * n if record.numbers is None else record.numbers.tolist()
        at = (as_cell(record.file), record.frame, record.seconds, found.width, found.height)
        for i, name in enumerate(found.names()):
            numbers = (*found.boxes[i], found.scores[i], *found.probabilities[i])
            shown = [f"{number:.6g}" for number in numbers]
            writer.writerow((*at, tracks[i], *shown[:4], as_cell(name), *shown[4:]))

    yield add
    text.detach()


def _coco(file: IO[bytes], class_names: tuple[str, ...]) -> Iterator[Add]:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []

    def add(record: Record) -> None:
        number, found = len(images) + 1, record.found
        name = record.file if record.frame is None else f"{record.file}#{record.frame}"
        images.append(
            {"id": number, "file_name": name, "width": found.width, "height": found.height}
        )
        for entry in found.to_coco(number):
            annotations.append({"id": len(annotations) + 1, "iscrowd": 0, **entry})

    yield add
    names = (NOT_JUDGED_NAME, *class_names)
    categories = [{"id": i, "name": name} for i, name in enumerate(names)]
    whole = {"images": images, "annotations": annotations, "categories": categories}
    file.write(json.dumps(whole).encode())


# By format: the name of the file, and the function that writes it.
FORMATS: dict[str, tuple[str, Callable[[IO[bytes], tuple[str, ...]], Iterator[Add]]]] = {
    "json": ("detections.json", _json),
    "jsonl": ("detections.jsonl", _json_lines),
    "csv": ("detections.csv", _csv),
    "coco": ("coco.json", _coco),
}


@contextlib.contextmanager
def write_records(folder: Path, kind: str, class_names: tuple[str, ...]) -> Iterator[Add]:
    """Open a file in the folder and give the function that adds records to it.

    The file exists only if the block ends well. All formats but COCO are written record by record,
    so that memory does not grow.

    Args:
        folder: made where it is missing.
        kind: a name in FORMATS.
        class_names: of the detector.

    Raises:
        UserError: for an unknown format or a folder that can't be written.
    """
    if kind not in FORMATS:
        raise unknown("format", kind, FORMATS)
    name, write = FORMATS[kind]
    with (
        write_atomically(folder / name) as file,
        contextlib.contextmanager(write)(file, class_names) as add,
    ):
        yield add


def _discard(_: object) -> None:
    return None
