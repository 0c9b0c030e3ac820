from __future__ import annotations

import json
from pathlib import Path

import pytest

from unmask.cli.main import main

SMALL = ["--columns", "2", "--rows", "2", "--deepest", "4", "--steps", "5", "--width", "8"]


def test_a_map_is_drawn_and_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "map")
    assert main(["flow", "map", *SMALL, "--out", out]) == 0
    assert "4 nets:" in capsys.readouterr().out
    assert main(["flow", "map", *SMALL, "--out", out, "--resume", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["depths"] == [2, 4]
    assert len(found["accuracy"]) == len(found["sigma_w2"]) == 2


def test_another_map_is_not_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "map")
    assert main(["flow", "map", *SMALL, "--out", out]) == 0
    before = (tmp_path / "map" / "history.npz").read_bytes()
    assert main(["flow", "map", "relu", *SMALL, "--out", out, "--resume"]) == 2
    assert "belongs to another sweep" in capsys.readouterr().err
    assert (tmp_path / "map" / "history.npz").read_bytes() == before


def test_a_mistake_is_one_line_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["flow", "map", "tahn"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
