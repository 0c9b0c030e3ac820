from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from made_up import pictures
from unmask.cli.main import main
from unmask.coursework.study import run as study_module
from unmask.coursework.study.plan import StudyPlan
from unmask.coursework.study.run import HISTORY_FILE, Study
from unmask.errors import UserError
from unmask.report import study as study_files
from unmask.sweep.engine import SweepInterrupted
from unmask.sweep.history import FINISHED, SweepHistory

TINY = shlex.split(
    "flow study --depths 1 3 --activations tanh lecun --seeds 2 --width 5 --batch-size 16 "
    "--epochs 1 --training-images 200 --validation-images 50 --learning-rate 0.1 --threads 1"
)


@pytest.fixture(autouse=True)
def _made_up_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_module, "load_mnist", lambda: (pictures(250), pictures(100, seed=5)))


@pytest.fixture
def _nothing_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    def write(study: Study, folder: Path) -> list[Path]:
        (folder / "report.html").write_text("drawn")
        return [folder / "report.html"]

    monkeypatch.setattr(study_files, "write_study", write)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[StudyPlan, dict[str, Any]]]:
    """What the command asks to be trained; nothing is."""
    calls: list[tuple[StudyPlan, dict[str, Any]]] = []

    def run(plan: StudyPlan, **others: Any) -> None:
        calls.append((plan, others))
        raise UserError("enough")

    monkeypatch.setattr("unmask.coursework.study.run.run_study", run)
    return calls


def words(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().out.split())


def test_a_study_ends_in_a_table_and_a_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "study"
    assert main([*TINY, "--out", str(out)]) == 0
    printed = words(capsys)
    assert "1 tanh 0." in printed
    assert "3 LeCun 0." in printed
    assert "of 2" in printed
    assert "Not the report's settings: width, learning rate, batch size, epochs" in printed
    assert str(out / "report.html") in printed
    assert (out / "report.html").stat().st_size > 100_000
    assert (out / HISTORY_FILE).exists()


@pytest.mark.usefixtures("_nothing_drawn")
def test_json_is_all_that_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TINY, "--out", str(tmp_path / "study"), "--json"]) == 0
    printed, errors = capsys.readouterr()
    found = json.loads(printed)
    assert [(o["depth"], o["activation"]) for o in found["outcomes"]] == [
        (1, "tanh"),
        (1, "lecun"),
        (3, "tanh"),
        (3, "lecun"),
    ]
    assert all(Path(file).stat().st_size for file in found["files"])
    assert errors == ""


@pytest.mark.parametrize(
    "plan",
    [
        StudyPlan(),
        StudyPlan(depths=(7,), activations=("gelu", "erf"), seeds=11, epochs=9, probe_epoch=8),
        StudyPlan(
            init="mean_field",
            sigma_w2=1.76,
            sigma_b2=0.05,
            loss="half_squared",
            optimizer="adam",
            learning_rate=3e-05,
            batch_size=64,
            width=100,
            training_pictures=1000,
            validation_pictures=10,
        ),
    ],
)
def test_the_command_of_a_plan_asks_for_that_plan(
    plan: StudyPlan,
    asked: list[tuple[StudyPlan, dict[str, Any]]],
    tmp_path: Path,
) -> None:
    arguments = plan.command().split()[1:]
    assert main([*arguments, "--out", str(tmp_path), "--threads", "2", "--resume"]) == 2
    ((got, others),) = asked
    assert got == plan
    assert (others["folder"], others["threads"], others["resume"]) == (tmp_path, 2, True)


def test_a_short_study_probes_at_its_end(
    asked: list[tuple[StudyPlan, dict[str, Any]]], tmp_path: Path
) -> None:
    main(["flow", "study", "--epochs", "2", "--out", str(tmp_path)])
    assert asked[0][0].probe_epoch == 2


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--width", "0"], "--width takes a whole number from 1 to 1024: got '0'"),
        (["--depths", "-1"], "--depths takes a whole number from 1 to 1000: got '-1'"),
        (["--depths"], "at least one of the depths, each once: got none"),
        (["--activations", "tahn"], "unknown activation: got 'tahn'; did you mean 'tanh'?"),
        (
            ["--learning-rate", "nan"],
            "--learning-rate takes a number from above 0 to 1e+06: got 'nan'",
        ),
        (["--seeds", "0"], "--seeds takes a whole number from 1 to 10000: got '0'"),
        (["--threads", "0"], "--threads takes a whole number from 1 to 1024: got '0'"),
        (["--batch-size", "201"], "got a batch of 201 for 200 images"),
        (["--training-images", "201"], "got 201 to train on and 50 to validate on"),
        (["--probe-epoch", "2"], "got probe epoch 2 of 1"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(
    arguments: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {TINY[i]: i for i in range(len(TINY)) if TINY[i].startswith("--")}
    rest = list(TINY)
    if arguments[0] in given:
        start = given[arguments[0]]
        end = min((i for i in given.values() if i > start), default=len(rest))
        del rest[start:end]
    assert main([*rest, *arguments, "--out", str(tmp_path / "out")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert line in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out" / "report.html").exists()


def test_an_unwritable_folder_is_told_before_training(
    tmp_path: Path,
    asked: list[tuple[StudyPlan, dict[str, Any]]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").write_text("mine")
    assert main([*TINY, "--out", str(tmp_path / "file")]) == 2
    assert asked == []
    assert "can't write" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.usefixtures("_nothing_drawn")
def test_another_study_is_neither_overwritten_nor_resumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*TINY, "--out", str(tmp_path)]) == 0
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    capsys.readouterr()
    assert main([*TINY, "--out", str(tmp_path)]) == 2
    assert "already holds a sweep; resume it (--resume)" in capsys.readouterr().err
    other = ["6" if word == "5" else word for word in TINY]
    assert main([*other, "--out", str(tmp_path), "--resume"]) == 2
    assert "belongs to another sweep" in capsys.readouterr().err
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    assert main([*TINY, "--out", str(tmp_path), "--resume"]) == 0


def test_ctrl_c_says_what_is_kept_and_how_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(plan: StudyPlan, **others: Any) -> None:
        history = SweepHistory.empty(tuple(plan.specs()), (0, plan.probe_epoch), {})
        history.status[:3] = FINISHED
        raise SweepInterrupted(history)

    monkeypatch.setattr("unmask.coursework.study.run.run_study", stopped)
    folder = tmp_path / "my study"
    assert main(["flow", "study", "--seeds", "2", "--out", str(folder)]) == 130
    assert capsys.readouterr().err == (
        f"unmask: stopped; 3 of 24 nets are kept in {folder}, continue with: "
        f"unmask flow study --seeds 2 --out '{folder}' --resume\n"
    )


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (UserError("can't write x", got="No space left on device", do="free some space"), 2, None),
        (KeyboardInterrupt(), 130, "stopped before all was written"),
    ],
)
def test_what_was_trained_is_kept_when_writing_fails(
    error: BaseException,
    status: int,
    line: str | None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*args: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(study_files, "write_study", fail)
        assert main([*TINY, "--out", str(tmp_path)]) == status
    told = capsys.readouterr().err
    assert (line or str(error)) in told
    assert f"every trained net is kept in {tmp_path / HISTORY_FILE}" in told
    assert told.count("\n") == 1
    assert (SweepHistory.load(tmp_path / HISTORY_FILE).status == FINISHED).all()
