"""The walks of docs/architecture.md: what they name exists, and no data comes back to a room."""

from __future__ import annotations

import importlib
import re
from itertools import groupby
from pathlib import Path

import pytest

TEXT = (Path(__file__).parents[1] / "docs" / "architecture.md").read_text()
WALKS = {part.partition("\n")[0]: part for part in TEXT.split("\n## ")[1:]}
ROOMS = ("cli", "data", "models", "sweep", "flow", "fool", "mask", "coursework", "report")


def names(walk: str) -> list[str]:
    return re.findall(rf"`((?:{'|'.join(ROOMS)})(?:\.\w+)+)`", walk)


def found(name: str) -> object:
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            at = importlib.import_module(".".join(["unmask", *parts[:length]]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[length:]:
            at = getattr(at, attribute)
        return at
    raise AttributeError(name)


@pytest.mark.parametrize("walk", WALKS)
def test_every_name_of_a_walk_exists(walk: str) -> None:
    assert len(names(WALKS[walk])) >= 5
    for name in names(WALKS[walk]):
        assert found(name) is not None


@pytest.mark.parametrize("walk", WALKS)
def test_a_walk_enters_no_room_twice(walk: str) -> None:
    rooms = [room for room, _ in groupby(name.partition(".")[0] for name in names(WALKS[walk]))]
    assert len(rooms) == len(set(rooms))
    assert rooms[0] == "cli"


def test_there_are_four_walks() -> None:
    assert len(WALKS) == 4
