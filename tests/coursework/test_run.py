"""Exercises that are made up: one fails, one lacks its images, one is stopped."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from unmask.coursework import sections as kept_module
from unmask.coursework.cells import all_of, not_run
from unmask.coursework.exercise import LENGTHS, Exercise, Task, length
from unmask.coursework.run import ReproductionInterrupted, reproduce
from unmask.coursework.sections import AGREES, NOT_RUN, Picture, Section, Table
from unmask.errors import UserError
from unmask.report.reproduction import Figures

QUICK = LENGTHS["quick"]


def section(name: str, reason: str = "") -> Section:
    cell = not_run("all", reason) if reason else all_of("all", 2, 2, "Counted.")
    table = Table("What it says", ("said", "more"), (("digits", (cell, None)),))
    picture = Picture("A caption.", "An image", "<svg>wide</svg>", "<svg>narrow</svg>")
    return Section(name, "A title", "What it did.", "How.", (table,), (picture,), ("A note.",))


class Made:
    """An exercise that counts how often it was run, and does what it is told."""

    def __init__(self, name: str, act: Callable[[], None] = lambda: None) -> None:
        self.name, self.act, self.runs = name, act, 0

    def run(self, task: Task) -> tuple[Section, ...]:
        self.runs += 1
        task.progress("working", 0.5)
        self.act()
        return section(f"{self.name} A"), section(f"{self.name} B")

    def missing(self, reason: str) -> tuple[Section, ...]:
        return section(f"{self.name} A", reason), section(f"{self.name} B", reason)

    @property
    def exercise(self) -> Exercise:
        return Exercise(self.name, f"Exercise {self.name}", self.run, self.missing)


def raising(error: BaseException) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


def test_what_fails_or_lacks_its_pictures_does_not_stop_the_rest(tmp_path: Path) -> None:
    made = [
        Made("fails", raising(ZeroDivisionError("by zero"))),
        Made("lacks", raising(UserError("the images are not here", do="fetch them"))),
        Made("works"),
    ]
    told: list[tuple[str, str, float | None]] = []
    found = reproduce(
        QUICK,
        tmp_path,
        draw=Figures(),
        exercises=[m.exercise for m in made],
        progress=lambda *now: told.append(now),
    )
    assert [s.name for s in found.sections] == [f"{m.name} {k}" for m in made for k in "AB"]
    reasons = [s.reason for s in found.sections[::2]]
    assert reasons[0].startswith("it failed with ZeroDivisionError: by zero (test_run.py, line ")
    assert reasons[1:] == ["the images are not here; fetch them", ""]
    assert found.counts[AGREES] == 2
    assert found.counts[NOT_RUN] == 4
    assert [s.seconds is None for s in found.sections] == [False, True] * 3
    assert told[0] == ("Exercise fails", "working", 0.5)


def test_what_is_done_is_not_run_again(tmp_path: Path) -> None:
    made = [Made("works"), Made("lacks", raising(UserError("not here")))]
    exercises = [m.exercise for m in made]
    first = reproduce(QUICK, tmp_path, draw=Figures(), exercises=exercises)
    made[1].act = lambda: None
    again = reproduce(QUICK, tmp_path, draw=Figures(), exercises=exercises, resume=True)
    assert [m.runs for m in made] == [1, 2]
    assert again.sections[:2] == first.sections[:2]
    assert again.counts[AGREES] == 4


def test_ctrl_c_keeps_what_is_done(tmp_path: Path) -> None:
    made = [Made("works"), Made("stopped", raising(KeyboardInterrupt())), Made("later")]
    exercises = [m.exercise for m in made]
    with pytest.raises(ReproductionInterrupted) as stopped:
        reproduce(QUICK, tmp_path, draw=Figures(), exercises=exercises)
    found = stopped.value.reproduction
    assert [m.runs for m in made] == [1, 1, 0]
    assert [bool(s.reason) for s in found.sections[::2]] == [False, True, True]
    assert "--resume goes on" in found.sections[-1].reason
    made[1].act = lambda: None
    whole = reproduce(QUICK, tmp_path, draw=Figures(), exercises=exercises, resume=True)
    assert [m.runs for m in made] == [1, 2, 1]
    assert not any(s.reason for s in whole.sections)


def test_a_folder_is_gone_on_with_only_when_told_and_in_its_length(tmp_path: Path) -> None:
    works = Made("works")
    reproduce(QUICK, tmp_path, draw=Figures(), exercises=[works.exercise])
    with pytest.raises(UserError, match="holds a reproduction already; go on with it by --resume"):
        reproduce(QUICK, tmp_path, draw=Figures(), exercises=[works.exercise])
    with pytest.raises(UserError, match="of another length: got quick"):
        reproduce(
            LENGTHS["default"], tmp_path, draw=Figures(), exercises=[works.exercise], resume=True
        )
    (tmp_path / "sections.json").write_text('{"length": "quick"}')
    with pytest.raises(UserError, match=r"sections\.json: it lacks 'unmask'"):
        reproduce(QUICK, tmp_path, draw=Figures(), exercises=[works.exercise], resume=True)


def test_what_another_version_did_is_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    works = Made("works")
    reproduce(QUICK, tmp_path, draw=Figures(), exercises=[works.exercise])
    monkeypatch.setattr(kept_module.metadata, "version", lambda name: "999")
    reproduce(QUICK, tmp_path, draw=Figures(), exercises=[works.exercise], resume=True)
    assert works.runs == 2


def test_sections_come_back_from_json_as_they_were() -> None:
    made = replace(section("1 A"), seconds=1.5)
    assert Section.from_dict(json.loads(json.dumps(made.as_dict()))) == made


def test_tables_hold_a_cell_a_column() -> None:
    with pytest.raises(ValueError, match="needs 2 cells"):
        Table("t", ("a", "b"), (("row", (None,)),))
    with pytest.raises(ValueError, match="no verdict"):
        replace(not_run("1", "why"), verdict="perhaps")


def test_lengths_are_known_by_name() -> None:
    assert length("as-document").faces == "document"
    with pytest.raises(UserError, match="unknown length"):
        length("fast")
