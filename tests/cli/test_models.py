"""The verbs that take a model take it by any of its names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unmask.cli.main import main
from unmask.models.classifier import Classifier

NETS = """
import torch
from torch import nn

def make_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 10, 2), nn.Softmax(1))
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    random = np.random.default_rng(0)
    for name in ("dark", "light"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for k in range(4):
            pixels = random.integers(0, 100, (8, 10, 3), np.uint8) + 100 * (name == "light")
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "photos" / name / f"{k}.png")
    (tmp_path / "cli_test_nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_models_lists_what_ships_and_how_others_are_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["models", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["mnist"]["test_accuracy"] == pytest.approx(0.9953)
    assert {"timm:NAME", "hf:NAME", "torchvision:NAME", "FILE.onnx"} <= rows.keys()
    assert main(["models"]) == 0


def test_a_network_of_your_own_is_shown_exported_and_evaluated(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "cli_test_nets:make_model"
    assert main(["show", name, "--size", "8", "10", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["card"]["input_shape"] == [3, 8, 10]
    assert shown["layers"][1]["parameters"] == 3 * 8 * 10 * 2 + 2
    # One number is both sides, as for every other verb.
    for size, line in ((["9"], "3 x 9 x 9"), (["8", "10", "3"], "write --size 224, or --size 224")):
        assert main(["show", name, "--size", *size]) == 2
        assert line in capsys.readouterr().err
    assert main(["evaluate", name, "photos", "--json"]) == 0
    out, err = capsys.readouterr()
    figures = json.loads(out)
    assert figures["pictures"] == 8
    assert name in err
    assert main(["export", name, "own.onnx", "--size", "8", "10"]) == 0
    capsys.readouterr()
    assert main(["evaluate", "own.onnx", "photos", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["confusion"] == figures["confusion"]
    assert again["loss"] == pytest.approx(figures["loss"], abs=1e-4)
    assert main(["show", "own.onnx"]) == 2
    assert "layers of an ONNX file" in capsys.readouterr().err


def test_a_model_that_does_not_say_what_it_takes_asks_for_the_size(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["show", "cli_test_nets:make_model"]) == 2
    assert "give --size" in capsys.readouterr().err


def test_a_run_is_evaluated_by_its_folder_and_its_training_images_are_told(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = Classifier.create(
        "block_cnn",
        {"widths": [4]},
        class_names=("dark", "light"),
        input_shape=(3, 8, 10),
        mean=[0.5] * 3,
        std=[0.25] * 3,
        seed=0,
    )
    made.card.facts["data"] = {"name": "photos train", "sha256": "of four fifths"}
    made.card.facts["figures"] = {"validation_accuracy": 0.75}
    made.save(home / "runs" / "t1" / "model")
    assert main(["evaluate", "runs/t1", "photos", "--json"]) == 0
    err = capsys.readouterr().err
    assert "was trained on these images" in err
    assert "held out it was 0.7500" in err
    shutil.move(home / "photos", home / "others")
    assert main(["evaluate", "runs/t1", "others", "--json"]) == 0
    assert "trained on" not in capsys.readouterr().err
