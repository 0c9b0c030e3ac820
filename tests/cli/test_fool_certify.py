"""The verb fool certify: its table, its gate, its files, and what it refuses."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from unmask.cli.main import main

MODULE = """
import torch
from torch import nn


def make_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 8), nn.ReLU(), nn.Linear(8, 10))
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "small_digits.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("small_digits", None)


def certified(out: Path, *extra: str, eps: str = "0.002") -> int:
    return main(
        [
            *("fool", "certify", "small_digits:make_model", "mnist", "--eps", eps),
            *("--images", "40", "--minutes", "0.03", "--out", str(out), *extra),
        ]
    )


def test_a_table_a_page_and_every_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert certified(tmp_path) == 0
    told = capsys.readouterr().out
    assert "proved robust" in told
    assert "is at least" in told
    page = (tmp_path / "report.html").read_text()
    assert "What can be proved of small_digits:make_model?" in page
    assert "<svg" in page
    stored = json.loads((tmp_path / "data" / "certification.json").read_text())
    assert sum(stored["counts"].values()) == stored["images"] == 40
    assert len((tmp_path / "data" / "images.csv").read_text().splitlines()) == 41
    assert (tmp_path / "figures" / "bracket.png").read_bytes().startswith(b"\x89PNG")
    # What is decided isn't worked on again.
    assert certified(tmp_path, "--resume", "--json", "--fail-if", "proved>=0") == 1
    again = json.loads(capsys.readouterr().out)
    assert again["gate"] == {"fail_if": "proved>=0", "failed": True}
    assert again["counts"]["proved"] >= stored["counts"]["proved"]


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (("--norm", "l3"), "l3"),
        (("--fail-if", "prooved<1"), "unknown figure"),
        (("--resume",), "nothing to go on with"),
        (("--std", "0"), "--std takes"),
        (("--mean", "0.1", "0.2"), "mean needs one number, or one a channel"),
    ],
)
def test_mistakes_cost_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], extra: tuple[str, ...], words: str
) -> None:
    assert certified(tmp_path, *extra) == 2
    line = capsys.readouterr().err
    assert words in line
    assert line.count("\n") == 1


@pytest.mark.slow
def test_eps_in_steps_of_a_byte_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert certified(tmp_path, eps="8") == 2
    assert "8/255" in capsys.readouterr().err
    assert certified(tmp_path, eps="8/255") == 0
