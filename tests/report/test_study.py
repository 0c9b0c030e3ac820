from __future__ import annotations

import csv
import errno
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest

from made_up import CHANCE, diverge, history, plan
from unmask.coursework.study.run import Study
from unmask.errors import UserError
from unmask.report.files import require_writable
from unmask.report.study import study_as_dict, summary_as_dict, write_study
from unmask.sweep.history import CURVES, LAYER_STATISTICS


@pytest.fixture(scope="module")
def made() -> Study:
    """A study of two depths in which one net of six diverged."""
    of = plan(depths=(2, 5), activations=("tanh",))
    trained = history(of)
    diverge(trained, 4)
    return Study.of(of, trained, CHANCE)


@pytest.fixture(scope="module")
def folder(made: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out")
    write_study(made, out)
    return out


def rows(folder: Path, name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((folder / "data" / f"{name}.csv").read_text())))


def number(text: str) -> float:
    return float(text) if text else np.nan


def test_every_file_is_there_and_nothing_else(folder: Path) -> None:
    figures = ("accuracy", "gradients-trained", "gradients-start")
    assert {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} == {
        "report.html",
        *(f"figures/{name}.{kind}" for name in figures for kind in ("svg", "png")),
        *(f"data/{name}.csv" for name in ("outcomes", "nets", "curves", "layers")),
        "data/study.json",
    }


def test_csv_holds_every_number_of_the_history(folder: Path, made: Study) -> None:
    specs = made.history.specs
    curves = rows(folder, "curves")
    assert len(curves) == sum(s.epochs for s in specs)
    assert [(r["depth"], r["seed"], r["epoch"]) for r in curves[:2]] == [
        ("2", "0", "1"),
        ("2", "0", "2"),
    ]
    for name in CURVES:
        read = np.array([number(r[name]) for r in curves], np.float32)
        assert np.array_equal(read, made.history.curves[name].ravel(), equal_nan=True)
    layers = rows(folder, "layers")
    assert len(layers) == sum(2 * (s.depth + 1) for s in specs)
    for name in LAYER_STATISTICS:
        expected = np.concatenate(
            [made.history.layers[name][i, :, : s.depth + 1].ravel() for i, s in enumerate(specs)]
        )
        read = np.array([number(r[name]) for r in layers])
        assert np.array_equal(read, expected, equal_nan=True)
    nets = rows(folder, "nets")
    assert [r["status"] for r in nets] == ["finished"] * 4 + ["diverged", "finished"]
    assert (nets[4]["diverged_step"], nets[4]["test_loss"]) == ("7", "")
    assert nets[1]["test_accuracy"] == "0.961"


def test_csv_holds_the_table_beside_the_documents(folder: Path, made: Study) -> None:
    two, five = rows(folder, "outcomes")
    assert (two["depth"], two["document_test_loss"], two["agreement"]) == (
        "2",
        "",
        "not in the report",
    )
    assert (five["trained"], five["diverged"]) == ("2", "1")
    assert five["document_test_accuracy"] == "0.9698"
    assert five["sentence"] == made.outcomes[1].sentence


def test_json_is_strict_and_stamped(folder: Path, made: Study) -> None:
    def refuse(word: str) -> None:
        raise AssertionError(word)

    found = json.loads((folder / "data/study.json").read_text(), parse_constant=refuse)
    assert found["stamp"]["command"] == made.plan.command()
    assert found["stamp"]["data"] == "ab" * 32
    assert found["stamp"]["plan"]["depths"] == [2, 5]
    assert found["nets"][1]["test_accuracy"] == 0.961
    assert found["nets"][4]["test_accuracy"] is None
    assert found["nets"][0]["layers"]["3"]["gradient_max"] == [0.02, 0.02, 0.02]
    assert found == study_as_dict(made)
    assert {k: v for k, v in found.items() if k != "nets"} == summary_as_dict(made)


def test_a_folder_that_can_not_be_written_is_refused(tmp_path: Path) -> None:
    require_writable(tmp_path / "new" / "folder")
    assert list((tmp_path / "new" / "folder").iterdir()) == []
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="can't write"):
        require_writable(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.usefixtures("undrawn")
def test_a_full_disk_leaves_what_was_there_whole(
    made: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_study(made, tmp_path)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    synced = os.fsync

    def full(file: int) -> None:
        if len(calls) == 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        calls.append(file)
        synced(file)

    calls: list[int] = []
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left on device; free some space"):
        write_study(made, tmp_path)
    assert len(calls) == 4
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
