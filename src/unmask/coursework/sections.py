"""The course report beside our figures: cells, tables, sections, and those done kept on disk."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from unmask.errors import UserError
from unmask.runtime import write_atomically
from unmask.saved_state import check_keys, read_json, reading

AGREES, SOME_SEEDS, DIFFERS = "agrees", "some seeds", "differs"
CORRECTED, UNDECIDED, NOT_RUN = "corrected", "undecided", "not run"
FROM_CARD = "from the card"
VERDICTS = (AGREES, SOME_SEEDS, DIFFERS, CORRECTED, UNDECIDED, NOT_RUN)


@dataclass(frozen=True)
class Cell:
    """A figure of the report, as it prints it, and ours; verdict, one of VERDICTS, and why.

    source: where ours comes from, "" where it was measured in this run, FROM_CARD where what ships
    says it of itself.
    """

    document: str
    ours: str
    verdict: str
    why: str
    source: str = ""

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise ValueError(f"{self.verdict!r} is no verdict")


@dataclass(frozen=True)
class Table:
    """A table of the report. rows: a name and a cell a column each, None where there is none."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell | None, ...]], ...]

    def __post_init__(self) -> None:
        if any(len(cells) != len(self.columns) for _, cells in self.rows):
            raise ValueError(f"every row of {self.caption!r} needs {len(self.columns)} cells")

    def named(self) -> Iterator[tuple[str, Cell]]:
        """Yield every cell with its row and column in words."""
        for row, cells in self.rows:
            for column, cell in zip(self.columns, cells, strict=True):
                if cell is not None:
                    yield f"{row}: {column}", cell


@dataclass(frozen=True)
class Picture:
    """A figure of ours. wide and narrow: SVG for two widths of window, or png: base64 of a PNG.

    small: a PNG that is not stretched over the page.
    """

    caption: str
    alt: str
    wide: str = ""
    narrow: str = ""
    png: str = ""
    small: bool = False


@dataclass(frozen=True)
class Section:
    """A part of the report and what became of it.

    name: "Exercise 1 B". told: what the report did, in words. settings: what was done here.
    notes: what else was found. reason: why it was not run or not to the end, "" where it was.
    seconds: how long it took, None where another section's time holds it.
    """

    name: str
    title: str
    told: str
    settings: str = ""
    tables: tuple[Table, ...] = ()
    pictures: tuple[Picture, ...] = ()
    notes: tuple[str, ...] = ()
    reason: str = ""
    seconds: float | None = None

    def named(self) -> Iterator[tuple[str, Cell]]:
        """Yield every cell of its tables with its place in words."""
        for table in self.tables:
            yield from table.named()

    def as_dict(self) -> dict[str, Any]:
        """Return plain values; from_dict takes them back."""
        return asdict(self)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> Section:
        """Return the section that as_dict told; raise KeyError or TypeError for anything else."""
        tables = tuple(
            Table(
                t["caption"],
                tuple(t["columns"]),
                tuple(
                    (name, tuple(None if c is None else Cell(**c) for c in cells))
                    for name, cells in t["rows"]
                ),
            )
            for t in values["tables"]
        )
        pictures = tuple(Picture(**p) for p in values["pictures"])
        notes = tuple(values["notes"])
        return Section(**{**values, "tables": tables, "pictures": pictures, "notes": notes})


@dataclass(frozen=True)
class Reproduction:
    """The whole report beside our figures. length: its name; purpose: what it means, in words.

    seconds: of all sections, those of earlier calls that were gone on from included.
    """

    length: str
    purpose: str
    sections: tuple[Section, ...]
    seconds: float
    stamp: dict[str, Any]

    @property
    def counts(self) -> dict[str, int]:
        """How many figures there are of every verdict, in the order of VERDICTS."""
        found = Counter(cell.verdict for s in self.sections for _, cell in s.named())
        return {verdict: found[verdict] for verdict in VERDICTS}

    def as_dict(self) -> dict[str, Any]:
        """Return everything but the images as plain values."""
        sections = [
            {k: v for k, v in s.as_dict().items() if k != "pictures"} for s in self.sections
        ]
        return {
            "length": self.length,
            "counts": self.counts,
            "seconds": self.seconds,
            "sections": sections,
            "stamp": self.stamp,
        }


_FILE = "sections.json"

Done = dict[str, tuple[Section, ...]]
"""Sections by the name of their exercise."""


def kept(folder: Path, length: str, *, resume: bool) -> Done:
    """Return what an earlier call of this length has done in the folder, nothing for a fresh one.

    What another version of Unmask did is done again. Raises UserError when the folder holds a
    reproduction and resume is not set, one of another length, or one that can't be read.
    """
    file = folder / _FILE
    if not file.exists():
        return {}
    if not resume:
        raise UserError(
            f"{folder} holds a reproduction already",
            do="go on with it by --resume, or choose another folder with --out",
        )
    content = read_json(file)
    check_keys(content, ("length", "unmask", "done"), file, "it")
    with reading(file):
        found, version = content["length"], content["unmask"]
        done = {
            name: tuple(Section.from_dict(values) for values in sections)
            for name, sections in content["done"].items()
        }
    if found != length:
        raise UserError(
            f"{folder} holds a reproduction of another length",
            got=found,
            do="choose another folder with --out",
        )
    return done if version == metadata.version("unmask") else {}


def keep(folder: Path, length: str, done: Done) -> None:
    """Write what is done into the folder, whole or not at all; raise UserError where it can't."""
    content = {
        "length": length,
        "unmask": metadata.version("unmask"),
        "done": {name: [s.as_dict() for s in sections] for name, sections in done.items()},
    }
    with write_atomically(folder / _FILE) as file:
        file.write(json.dumps(content).encode())
