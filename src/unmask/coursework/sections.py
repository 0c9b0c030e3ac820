"""The course report beside our figures: cells, tables and sections, and their store on disk."""

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
    """A figure of the report beside ours.

    Args:
        document: the report's figure, as it prints it.
        ours: our figure, "" where there is none.
        verdict: one of VERDICTS.
        why: the reason of the verdict.
        source: "" where ours was measured in this run, FROM_CARD where it is taken from the card of
            a model or data set.
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
    """A table of the report.

    Args:
        caption: its title.
        columns: their titles.
        rows: each a name and one cell for each column, None where there is none.
    """

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
    """A figure of ours: two SVGs, or a PNG.

    Args:
        caption: shown below it.
        alt: describes it to those who don't see it.
        wide: SVG for a wide window.
        narrow: SVG for a narrow window.
        png: a PNG in base64.
        small: whether the PNG keeps its size and is not stretched over the page.
    """

    caption: str
    alt: str
    wide: str = ""
    narrow: str = ""
    png: str = ""
    small: bool = False


@dataclass(frozen=True)
class Section:
    """A section of the report and its outcome here.

    Args:
        name: such as "Exercise 1 B".
        title: its heading.
        told: what the report did, in words.
        settings: what was done here.
        tables: the report's figures beside ours.
        pictures: our figures.
        notes: what else was found.
        reason: why it was not run, or not to the end; "" where it was.
        seconds: how long it took, None where another section's time includes it.
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
        """Return the section that as_dict described.

        Args:
            values: plain values.

        Raises:
            KeyError: when an entry is missing.
            TypeError: when an entry is unknown or of another type.
        """
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
    """The whole report beside our figures.

    Args:
        length: the name of what was trained, see Length.
        purpose: what it means, in words.
        sections: in the order of the report.
        seconds: of all sections, including those of earlier calls that were resumed.
        stamp: the provenance: versions, machine and threads.
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
    """Return the sections that earlier calls of this length finished in the folder, {} if none.

    Sections that another version of Unmask made are not used.

    Args:
        folder: where the reproduction is written.
        length: the name of what is trained.
        resume: whether to go on with what lies there.

    Raises:
        UserError: when the folder holds a reproduction and resume is not set, one of another
            length, or one that can't be read.
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
    """Write the finished sections into the folder, whole or not at all.

    Args:
        folder: where the reproduction is written.
        length: the name of what is trained.
        done: the sections by exercise.

    Raises:
        UserError: when the folder can't be written.
    """
    content = {
        "length": length,
        "unmask": metadata.version("unmask"),
        "done": {name: [s.as_dict() for s in sections] for name, sections in done.items()},
    }
    with write_atomically(folder / _FILE) as file:
        file.write(json.dumps(content).encode())
