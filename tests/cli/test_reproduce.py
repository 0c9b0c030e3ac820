from __future__ import annotations

import json
from pathlib import Path

import pytest

from unmask.cli.main import main
from unmask.coursework import run as run_module
from unmask.coursework.exercise import Exercise, Task
from unmask.coursework.exercises.ranges import BOUNDS
from unmask.coursework.run import ReproductionInterrupted
from unmask.coursework.sections import Reproduction


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UNMASK_DATA", raising=False)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Task]:
    """What the exercises are given; the first alone is run."""
    given: list[Task] = []

    def run(task: Task) -> tuple[object, ...]:
        given.append(task)
        return BOUNDS.run(task)

    only = (Exercise("bounds", BOUNDS.title, run, BOUNDS.missing),)  # type: ignore[arg-type]
    whole = run_module.reproduce

    def reproduce(*args: object, **kwargs: object) -> Reproduction:
        return whole(*args, **kwargs, exercises=only)  # type: ignore[arg-type]

    monkeypatch.setattr(run_module, "reproduce", reproduce)
    return given


def test_a_reproduction_ends_in_a_table_and_a_page(
    asked: list[Task], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "again"
    assert main(["reproduce", "--quick", "--out", str(out)]) == 0
    printed, log = capsys.readouterr()
    assert "Exercise 1 A 6 6" in " ".join(printed.split())
    assert printed.rstrip().endswith(f"Report: {out / 'report.html'}")
    assert "Exercise 1 A: ranges of the gradient" in log
    assert (out / "report.html").stat().st_size > 10_000
    assert asked[0].folder == out / "bounds"
    # A second time needs --resume, and then runs nothing again.
    assert main(["reproduce", "--quick", "--out", str(out)]) == 2
    assert "--resume" in capsys.readouterr().err
    assert main(["reproduce", "--quick", "--out", str(out), "--resume", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"]["agrees"] == 6
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("flags", "name"),
    [(["--quick"], "quick"), ([], "default"), (["--as-document"], "as-document")],
)
def test_lengths_and_pictures_are_passed_on(
    asked: list[Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cifar").mkdir()
    assert main(["reproduce", *flags, "--cifar10", "cifar", "--faces", "cifar"]) == 0
    assert asked[0].length.name == name
    assert (asked[0].cifar10, asked[0].faces) == (Path("cifar"), Path("cifar"))
    assert (tmp_path / "runs" / f"reproduce-{name}" / "report.html").exists()


def test_ctrl_c_leaves_a_report_of_what_is_done(
    asked: list[Task],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole = run_module.reproduce

    def stopped(*args: object, **kwargs: object) -> Reproduction:
        raise ReproductionInterrupted(whole(*args, **kwargs))  # type: ignore[arg-type]

    monkeypatch.setattr(run_module, "reproduce", stopped)
    assert main(["reproduce", "--quick", "--out", str(tmp_path)]) == 130
    printed, log = capsys.readouterr()
    assert str(tmp_path / "report.html") in printed.replace("\n", "")
    assert f"what is done is kept in {tmp_path}, --resume continues from it" in log
    assert (tmp_path / "report.html").exists()


def test_mistakes_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "--quick", "--as-document"]) == 2
    assert "one length at a time" in capsys.readouterr().err
    assert main(["reproduce", "--quick", "--faces", str(tmp_path / "none")]) == 2
    assert "--faces names nothing that is there" in capsys.readouterr().err
