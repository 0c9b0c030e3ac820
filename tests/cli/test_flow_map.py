from __future__ import annotations

import json
from pathlib import Path

import pytest

from unmask.cli.main import main
from unmask.sweep.shards import ShardsInterrupted

SMALL = ["--columns", "2", "--rows", "2", "--deepest", "4", "--steps", "5", "--width", "8"]


def test_a_map_is_drawn_and_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "map")
    assert main(["flow", "map", *SMALL, "--out", out]) == 0
    assert "4 nets:" in capsys.readouterr().out
    assert main(["flow", "map", *SMALL, "--out", out, "--resume", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["depths"] == [2, 4]
    assert len(found["accuracy"]) == len(found["sigma_w2"]) == 2


def test_another_map_is_not_resumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = str(tmp_path / "map")
    # Drawing takes longer than the nets.
    monkeypatch.setattr("unmask.report.map.write_map", lambda found, out: [Path(out)])
    assert main(["flow", "map", *SMALL, "--out", out]) == 0
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert main(["flow", "map", "relu", *SMALL, "--out", out, "--resume"]) == 2
    assert "belongs to another sweep" in capsys.readouterr().err
    assert main(["flow", "map", *SMALL, "--out", out]) == 2
    assert "already holds a sweep; resume it (--resume)" in capsys.readouterr().err
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_ctrl_c_says_what_is_kept_and_how_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*given: object, **others: object) -> None:
        raise ShardsInterrupted(3, 900)

    monkeypatch.setattr("unmask.flow.map.run_map", stopped)
    folder = tmp_path / "my map"
    assert main(["flow", "map", "--out", str(folder)]) == 130
    assert capsys.readouterr().err == (
        f"unmask: stopped; 3 of 900 nets are kept in {folder}, go on with the same command and "
        f"--out '{folder}' --resume\n"
    )


def test_a_mistake_is_one_line_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["flow", "map", "tahn"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
