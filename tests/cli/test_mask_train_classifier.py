"""The verb mask train-classifier on drawn faces."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from made_up_annotations import voc_text
from unmask.cli.main import main
from unmask.cli.mask_train_classifier import train_classifier
from unmask.errors import UserError
from unmask.models.classifier import Classifier

COLOURS = {
    "with_mask": (40, 200, 60),
    "without_mask": (210, 50, 40),
    "mask_weared_incorrect": (40, 60, 220),
}


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve images with a coloured square of each class."""
    root = tmp_path_factory.mktemp("faces")
    random = np.random.default_rng(0)
    for folder in ("images", "annotations"):
        (root / folder).mkdir()
    for i in range(12):
        pixels = random.integers(0, 255, (40, 120, 3), np.uint8)
        things = []
        for k, (name, colour) in enumerate(COLOURS.items()):
            x, y = 4 + 38 * k, int(random.integers(1, 15))
            pixels[y : y + 24, x : x + 24] = colour
            things.append((name, (x, y, x + 24, y + 24)))
        Image.fromarray(pixels).save(root / "images" / f"{i}.jpg")
        text = voc_text(f"{i}", 120, 40, things)  # type: ignore[arg-type]
        (root / "annotations" / f"{i}.xml").write_text(text)
    return root


def test_faces_become_a_classifier_with_its_figures(
    faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = {"validation": 0.25, "epochs": 2, "batch_size": 8, "seed": 1, "device": "cpu"}
    assert train_classifier(faces, out=tmp_path / "a", json=True, **plain) == 0  # type: ignore[arg-type]
    told = json.loads(capsys.readouterr().out)
    model = Classifier.load(told["model"])
    assert model.class_names == ("with_mask", "without_mask")
    assert model.card.facts["validation"]["by_size"] == told["by_size"]
    assert told["held_out_pictures"] == 3
    assert told["by_size"][-1]["faces"] == [3, 3, 3]
    assert np.trace(told["confusion"]) == sum(told["by_size"][-1]["right"])
    assert 0 <= told["macro_f1"] <= 1
    # The same command prints the same figures as a table.
    assert train_classifier(faces, out=tmp_path / "b", **plain) == 0  # type: ignore[arg-type]
    text = capsys.readouterr().out
    assert f"accuracy {told['accuracy']:.4f}" in text
    assert f"macro-F1 {told['macro_f1']:.4f}" in text
    # Always saying without: 6 of 9 are right, and its F1 is 2 * 6 / (9 + 6).
    assert "accuracy 0.6667, macro-F1 0.4000" in text
    assert "20 to 40 px" in text
    assert "mask worn improperly, " in text


def test_three_classes_are_told_apart_on_request(
    faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_classifier(
        faces,
        classes=3,
        out=tmp_path,
        validation=0.25,
        epochs=1,
        batch_size=8,
        device="cpu",
        json=True,
    )
    assert json.loads(capsys.readouterr().out)["class_names"] == list(COLOURS)


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        ({"recipe_name": "quick"}, "unknown recipe"),
        ({"classes": 4}, "2 or 3 classes"),
        ({"epochs": 0}, "epochs"),
        ({"validation": 1.0}, "folds"),
        ({"device": "gpu"}, "unknown device"),
    ],
)
def test_mistakes_get_one_line(
    faces: Path, tmp_path: Path, options: dict[str, object], wrong: str
) -> None:
    plain = {"out": tmp_path / "out", "epochs": 1, "device": "cpu", **options}
    with pytest.raises(UserError, match=wrong) as caught:
        train_classifier(faces, **plain)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_faces_of_other_classes_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    faces = tmp_path / "faces"
    for folder in ("images", "annotations"):
        (faces / folder).mkdir(parents=True)
    Image.new("RGB", (64, 48)).save(faces / "images" / "a.jpg")
    text = voc_text("a", 64, 48, [("helmet", (4, 6, 20, 30))])
    (faces / "annotations" / "a.xml").write_text(text)
    assert main(["mask", "train-classifier", str(faces), "--out", str(tmp_path / "out")]) == 2
    assert "helmet" in capsys.readouterr().err


def test_a_training_that_was_stopped_is_not_overwritten_and_fractions_are_told(
    faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "checkpoint.safetensors").write_bytes(b"of another day")
    command = ["mask", "train-classifier", str(faces), "--out", str(tmp_path)]
    assert main(command) == 2
    assert "--resume continues it, --overwrite begins anew" in capsys.readouterr().err
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == b"of another day"
    assert main([*command, "--validation", "10"]) == 2
    assert "one image in ten is 0.1" in capsys.readouterr().err
