"""The index of benchmarks lists every one, names nothing else, and the headline table works."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "benchmarks"
INDEX = (FOLDER / "README.md").read_text()


def test_every_benchmark_is_listed_once_and_exists() -> None:
    listed = re.findall(r"^\| `([\w/]+\.py)` \|", INDEX, re.MULTILINE)
    there = [p.relative_to(FOLDER).as_posix() for p in FOLDER.rglob("*.py")]
    assert sorted(listed) == sorted(p for p in there if not p.endswith("__init__.py"))
    commands = re.findall(r"python (?:-m )?(benchmarks[/.][\w/.]+)", INDEX)
    for command in commands:
        path = command if command.endswith(".py") else f"{command.replace('.', '/')}.py"
        assert (ROOT / path).is_file(), command


@pytest.fixture(scope="module")
def run_all() -> ModuleType:
    spec = importlib.util.spec_from_file_location("run_all", FOLDER / "run_all.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["run_all"] = module
    spec.loader.exec_module(module)
    return module


def test_a_table_says_what_was_met_and_what_could_not_be_measured(
    run_all: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(quick: bool) -> None:
        raise OSError("no such set\nand more")

    made = {
        "fast": (
            lambda quick: run_all.Figure(3.0, "s", "5 runs", "2 to 4"),
            run_all.Goal("<=", 5, "s"),
        ),
        "few": (lambda quick: run_all.Figure(70, "%", "9"), run_all.Goal(">=", 80, "%")),
        "free": (lambda quick: run_all.Figure(1, "ms", "2"), None),
        "broken": (fails, None),
    }
    monkeypatch.setattr(run_all, "FIGURES", made)
    rows = [run_all.measured(name, True) for name in made]
    text = run_all.table(rows, True)
    assert "| fast | 3 s | 2 to 4 | 5 runs | <= 5 s | yes |" in text
    assert "| few | 70 % |  | 9 | >= 80 % | no |" in text
    assert "| free | 1 ms |  | 2 |  |  |" in text
    assert "| broken | not measured: OSError: no such set |" in text


def test_what_is_measured_elsewhere_exists(run_all: ModuleType) -> None:
    for places in run_all.ELSEWHERE.values():
        folder = FOLDER
        for place in places.split(", "):
            path = ROOT / place if place.startswith("benchmarks/") else folder / place
            folder = path.parent
            assert path.is_file()
