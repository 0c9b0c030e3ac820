"""The quick form from end to end, with less of Exercise 1 than it trains."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from unmask.cli.main import main
from unmask.coursework import exercise
from unmask.coursework.sections import AGREES, FROM_CARD, NOT_RUN


def cells(section: dict[str, Any]) -> list[dict[str, Any]]:
    rows = [row for table in section["tables"] for _, row in table["rows"]]
    return [cell for row in rows for cell in row if cell is not None]


@pytest.mark.slow
def test_the_quick_form_runs_with_nothing_but_what_ships(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("UNMASK_DATA", raising=False)
    monkeypatch.setattr(exercise, "cache_folder", lambda: tmp_path / "cache")
    quick = exercise.LENGTHS["quick"]
    little = replace(
        quick.study,
        depths=(5, 40),
        activations=("tanh", "lecun"),
        seeds=2,
        epochs=1,
        probe_epoch=1,
        training_pictures=2000,
        validation_pictures=200,
    )
    monkeypatch.setitem(exercise.LENGTHS, "quick", replace(quick, study=little))
    assert main(["reproduce", "--quick", "--out", str(tmp_path / "out"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    sections = {s["name"]: s for s in found["sections"]}
    assert list(sections) == [
        *("Exercise 1 A", "Exercise 1 B", "Exercise 1 C", "Exercise 1 D"),
        *("Exercise 2 A", "Exercise 2 B", "Exercise 2 C", "Exercise 3"),
    ]
    # What is not run is what the study above leaves out.
    assert not any(s["reason"] for s in sections.values())
    missing = {n for n, s in sections.items() for c in cells(s) if c["verdict"] == NOT_RUN}
    assert missing == {"Exercise 1 B", "Exercise 1 C", "Exercise 1 D"}
    assert {c["source"] for c in cells(sections["Exercise 3"])} == {FROM_CARD}
    fooled = sections["Exercise 2 B"]["tables"][0]["rows"]
    assert [cells[0]["ours"] for _, cells in fooled] == ["45 of 45"] * 2
    assert found["counts"][AGREES] >= 10
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("data:image/png;base64,") >= 4
