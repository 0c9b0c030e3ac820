"""The verbs check, shift and data audit: exit statuses, files, JSON."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unmask.cli.main import main

MODEL = """
import torch
from torch import nn

class Colours(nn.Module):
    def __init__(self):
        super().__init__()
        self.mix = nn.Conv2d(3, 2, 1)
        with torch.no_grad():
            self.mix.weight.copy_(20 * torch.tensor([[1.0, 0, -1], [-1, 0, 1]])[:, :, None, None])
            self.mix.bias.zero_()

    def forward(self, pixels):
        return self.mix(pixels).mean((2, 3))

def make_model():
    return Colours()

def swapped():
    return nn.Sequential(Flip(), Colours())

class Flip(nn.Module):
    def forward(self, pixels):
        print("not JSON")
        return pixels.flip(1)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rng = np.random.default_rng(0)
    for part, count in (("train", 30), ("test", 60)):
        for label, channel in (("a-red", 0), ("b-blue", 2)):
            (tmp_path / "images" / part / label).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(40, 120, (16, 16, 3))
                pixels[..., channel] += 100
                image = Image.fromarray(pixels.astype(np.uint8))
                image.save(tmp_path / "images" / part / label / f"{i}.png")
    (tmp_path / "two_colours.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_check_passes_a_healthy_model_and_fails_a_swapped_one(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ["--minutes", "0.5", "--questions", "preflight", "accuracy"]
    assert main(["check", "two_colours:make_model", "images", *few, "--out", "one"]) == 0
    assert "passed" in capsys.readouterr().out
    assert sorted(p.name for p in (folder / "one").iterdir()) == [
        "check.json",
        "check.junit.xml",
        "check.sarif",
        "report.html",
    ]
    swapped = ["check", "two_colours:swapped", "images", *few, "--out", "two"]
    capsys.readouterr()
    assert main([*swapped, "--json"]) == 1
    told = capsys.readouterr()
    found = json.loads(told.out)
    assert found["failed"]
    assert "not JSON" in told.err
    assert "preprocessing" in {v["kind"] for v in found["verdicts"]}
    assert main([*swapped, "--annotations", "--fail-on", "never"]) == 0
    line = capsys.readouterr().out
    assert line.startswith("::error file=two_colours.py,line=")
    assert main([*swapped, "--baseline", "two/check.json"]) == 0
    assert main([*swapped, "--baseline", "one/check.json"]) == 1
    assert "[new] error: preprocessing" in capsys.readouterr().out
    # A baseline that is missing is told before anything is measured.
    unmeasured = [*swapped[:-1], "unmeasured"]
    assert main([*unmeasured, "--baseline", "absent.json"]) == 2
    assert not (folder / "unmeasured").exists()
    assert main([*swapped[:3], "--out", "images/runs"]) == 2
    assert "lies in that of the images" in capsys.readouterr().err


def test_shift_writes_its_report_and_gates(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["shift", "two_colours:make_model", "images", "--quick", "--corruptions", "saturate"]
    command += ["--severities", "1", "2", "--out", "shifted"]
    assert main([*command, "--fail-if", "accuracy_at_severity_2<0.99"]) in (0, 1)
    assert (folder / "shifted" / "report.html").exists()
    capsys.readouterr()
    assert main([*command, "--resume", "--json", "--fail-if", "clean_accuracy<0.5"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["figures"]["clean_accuracy"] == 1
    capsys.readouterr()
    assert main([*command, "--fail-if", "clean_accuracy>0.5"]) == 1
    # --quick searches no smallest severity, so no column is empty.
    assert "% at" not in capsys.readouterr().out
    # A name that no figure has is told before anything is measured.
    unmeasured = [*command[:-1], "unmeasured"]
    assert main([*unmeasured, "--fail-if", "clean_acuracy>0.5"]) == 2
    assert not (folder / "unmeasured").exists()
    # All are right, so no confidence tells right from wrong; the report is there all the same.
    assert main([*unmeasured, "--fail-if", "auroc<0.5"]) == 2
    assert (folder / "unmeasured" / "report.html").exists()
    assert main([*command, "--fail-if", "clean_accuracy<80"]) == 2
    assert "write clean_accuracy<0.8" in capsys.readouterr().err
    assert main(["shift", "two_colours:swapped", "images", *command[3:], "--json"]) == 0
    json.loads(capsys.readouterr().out)
    assert main(["shift", "two_colours:make_model", "images", "--corruptions", "frog"]) == 2


def test_data_audit_names_a_leak(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Here the colour is the class, which is a shortcut by design.
    assert main(["data", "audit", "images", "--out", "audited", "--fail-on", "never"]) == 0
    assert (folder / "audited" / "report.html").exists()
    for i in range(4):
        content = (folder / "images" / "train" / "a-red" / f"{i}.png").read_bytes()
        (folder / "images" / "test" / "a-red" / f"copy{i}.png").write_bytes(content)
    capsys.readouterr()
    assert main(["data", "audit", "images", "--json", "--out", "audited"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["figures"]["leaks"] == 4
    assert main(["data", "audit", "nothing", "--out", "audited"]) == 2
