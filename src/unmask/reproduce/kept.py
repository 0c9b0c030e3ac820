"""The sections of a reproduction that are done, kept in its folder for --resume."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

from unmask.errors import UserError
from unmask.report.compared import Section
from unmask.runtime import write_atomically

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
    try:
        content = json.loads(file.read_bytes())
        found, version = content["length"], content["unmask"]
        done = {
            name: tuple(Section.from_dict(values) for values in sections)
            for name, sections in content["done"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file} can't be read", got=error, do="delete it") from error
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
