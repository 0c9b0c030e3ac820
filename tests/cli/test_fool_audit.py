"""unmask fool audit and harden, from the command line to the files, with the user's mistakes."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from unmask.cli.main import main
from unmask.fool.audit import run as run_module
from unmask.fool.source import load_victim
from unmask.models.checkpoint import write_tensors
from unmask.models.classifier import Classifier
from unmask.models.export import export_onnx

MODULE = """
from torch import nn

def make_model():
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(3 * 8 * 8, 2))

def two_answers():
    class Two(nn.Module):
        def forward(self, pixels):
            return pixels.flatten(1)[:, :2], pixels.flatten(1)[:, :2]
    return Two()

def nine():
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 9))
"""
QUICK = ["--images", "12", "--pairs", "1", "--queries", "10", "--steps", "20"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of the user's own, its weights, and images, dark and bright."""
    root = tmp_path_factory.mktemp("own")
    (root / "audited_models.py").write_text(MODULE)
    weights = torch.zeros(2, 192)
    weights[1] = 0.1
    tensors = {"2.weight": weights, "2.bias": torch.tensor([0.0, -9.6])}
    write_tensors(root / "weights.safetensors", tensors)
    rng = np.random.default_rng(0)
    for name, level in (("bright", 150), ("dark", 90)):
        (root / "pictures" / name).mkdir(parents=True)
        for k in range(12):
            pixels = np.clip(level + rng.integers(-20, 20, (8, 8, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / "pictures" / name / f"{k}.png")
    return root


def run(place: Path, *arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        status = main(["fool", *arguments])
    told = capsys.readouterr()
    return status, told.out, told.err


def own(place: Path, *more: str) -> list[str]:
    model = ["audit", "audited_models:make_model", "pictures"]
    return [*model, "--weights", "weights.safetensors", "--size", "8", *QUICK, *more]


@pytest.fixture
def unwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no report drawn, which takes longer than the attacks."""
    monkeypatch.setattr("unmask.report.audit.write_audit", lambda *_: Path("report.html"))


@pytest.mark.usefixtures("unwritten")
def test_ones_own_model_is_audited(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(place, *own(place, "--eps", "0.2", "--json"), capsys=capsys)
    assert status == 0
    (found,) = json.loads(out)["audits"]
    # Class 1, "dark" in the order of names, is said of bright images: every label is missed.
    assert found["clean_accuracy"]["value"] == 0.0
    assert [w["kind"] for w in found["warnings"]] == ["clean_accuracy"]
    assert found["preflight"]["spread"] == 0.0
    assert found["clean_accuracy"]["of"] == found["pictures"] == 12


def test_the_smallest_change_of_a_linear_model_is_the_closed_form(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = torch.zeros(2, 192)
    weights[0] = 0.1
    tensors = {"2.weight": weights, "2.bias": torch.tensor([-9.6, 0.0])}
    write_tensors(place / "right.safetensors", tensors)
    arguments = own(place, "--out", "right", "--eps", "0.2", "--resume")
    arguments[4] = "right.safetensors"
    status, out, _ = run(place, *arguments, capsys=capsys)
    assert status == 0
    assert "100.0 %" in out
    rows = (place / "right/data/pictures-1.csv").read_text().splitlines()
    assert len(rows) == 13
    for row in rows[1:]:
        cells = row.split(",")
        # All weights are equal, so the smallest Linf change is |mean - 1/2|.
        assert float(cells[3]) == pytest.approx(float(cells[7]))
        assert 0.05 < float(cells[3]) < 0.2
    page = (place / "right/report.html").read_text()
    assert "no warning" in page
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)
    assert "<script" not in page
    again = run(place, *arguments, capsys=capsys)
    assert again[0] == 0


def test_ctrl_c_says_how_to_go_on(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_module, "attack_shard", stopped)
    status, _, err = run(place, *own(place, "--eps", "0.2", "--out", "stopped"), capsys=capsys)
    assert status == 130
    assert "--resume" in err
    monkeypatch.undo()
    arguments = own(place, "--eps", "0.2", "--out", "stopped", "--resume")
    assert run(place, *arguments, capsys=capsys)[0] == 0


@pytest.mark.usefixtures("unwritten")
def test_a_gate_sets_the_status(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gate = ["--eps", "0.2", "--out", "gate", "--fail-if"]
    assert run(place, *own(place, *gate, "clean_accuracy<0.5"), capsys=capsys)[0] == 1
    status, out, _ = run(place, *own(place, *gate, "clean_accuracy>0.5"), capsys=capsys)
    assert status == 0
    assert "passed: clean_accuracy is 0" in out


@pytest.mark.usefixtures("unwritten")
def test_a_gate_stays_shut_when_a_part_could_not_be_attacked(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run_module.run_audit

    def with_a_part_missing(*arguments: Any, **named: Any) -> Any:
        return replace(whole(*arguments, **named), failures=("images 0 to 5: lost",))

    monkeypatch.setattr(run_module, "run_audit", with_a_part_missing)
    gate = ["--eps", "0.2", "--out", "lost", "--fail-if", "clean_accuracy<0"]
    status, out, _ = run(place, *own(place, *gate), capsys=capsys)
    assert status == 1
    assert "failed: clean_accuracy is 0" in out
    assert "1 part could not be attacked" in out


@pytest.mark.usefixtures("unwritten")
def test_an_onnx_file_is_a_black_box(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = Classifier.create(
        "stepped_cnn",
        {"steps": [[4, 4, 2]], "hidden": 8},
        class_names=("bright", "dark"),
        input_shape=(3, 8, 8),
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        seed=0,
    )
    export_onnx(model, place / "model.onnx")
    arguments = ["audit", "model.onnx", "pictures", "--size", "8", *QUICK, "--json"]
    status, out, _ = run(place, *arguments, capsys=capsys)
    assert status == 0
    (found,) = json.loads(out)["audits"]
    assert [a["name"] for a in found["attacks"]] == ["square"]
    assert found["pairs"] is None
    assert found["attacks"][0]["backwards"] == 0
    pixels = torch.rand(3, 3, 8, 8)
    subject = load_victim(str(place / "model.onnx"))
    expected = model.eval()(pixels)
    torch.testing.assert_close(subject.logits(pixels), expected, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (["--eps", "0"], "eps is no size of a change: got 0"),
        (["--eps=-8/255"], "eps is no size of a change"),
        (["--eps", "big"], "eps is no number: got 'big'"),
        (["--eps", "1/0"], "eps is no size of a change: got 1/0"),
        (["--norm", "l3"], "linf"),
        (["--attacks", "pgd", "sqare"], "did you mean 'square'"),
        (["--seed=-1"], "seed"),
        (["--fail-if", "median_l2"], "a condition has the form"),
        (["--fail-if", "median_l2<1"], "unknown figure"),
    ],
)
def test_mistakes_get_one_line_and_status_2(
    place: Path, changes: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = run(place, *own(place, "--out", "bad", *changes), capsys=capsys)
    assert status == 2
    assert line in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["audit", "audited_models:two_answers", "pictures"],
            "isn't clear which of the model",
        ),
        (["audit", "audited_models:nine", "pictures"], "tells 9 classes apart"),
        (["audit", "mnits", "pictures"], "did you mean 'mnist"),
        (["audit", "mnist", "nowhere"], "there are no such images"),
        (["audit", "model.pt2", "pictures"], "can hold pickles"),
        (["audit", "none.onnx", "pictures"], "there is no such file"),
        (["audit", "text.onnx", "pictures"], "is no ONNX model"),
        (["audit", "mnist", "pictures", "--weights", "weights.safetensors"], "by its import path"),
        (["audit", "audited_models:make_model", "text.zip"], "text.zip"),
        (["harden", "pictures", "--threat", "linf"], "--norm linf --eps 0.3"),
        (["harden", "pictures", "--eps", "0"], "eps is no size"),
        (["harden", "pictures", "--steps", "0"], "--steps takes a whole number from 1"),
    ],
)
def test_models_and_pictures_that_will_not_do(
    place: Path, arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "text.onnx").write_text("not a model")
    (place / "text.zip").write_text("not images")
    status, _, err = run(place, *arguments, "--size", "8", capsys=capsys)
    assert status == 2
    assert line in err
    assert err.count("\n") == 1


def test_harden_with_a_threshold(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["harden", "pictures", "--eps", "0.05", "--epochs", "1", "--size", "8"]
    assert run(place, *arguments, "--threshold", "0.5", "--out", "hard", capsys=capsys)[0] == 0
    assert Classifier.load(place / "hard/model").card.settings["threshold"] == 0.5
    status, _, err = run(place, *arguments, "--threshold", "1", capsys=capsys)
    assert status == 2
    assert "--threshold" in err
    assert err.count("\n") == 1


def test_harden_writes_a_model_that_audit_takes(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["harden", "pictures", "--eps", "0.05", "--epochs", "3", "--size", "8"]
    status, out, _ = run(place, *arguments, "--out", "hard", capsys=capsys)
    assert status == 0
    assert "of the guard is right under linf 0.05" in out
    model = Classifier.load(place / "hard/model")
    assert model.card.facts["adversary"]["steps"] == 4
    assert isinstance(model.network, nn.Sequential)
    audited = ["audit", "hard/model.safetensors", "pictures", *QUICK, "--out", "hard/audit"]
    assert run(place, *audited, capsys=capsys)[0] == 0
