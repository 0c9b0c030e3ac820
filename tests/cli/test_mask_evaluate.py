"""The verbs mask evaluate, export and train, as a user types them."""

import json
from functools import partial
from pathlib import Path

import pytest

from made_up_annotations import Made, write_voc
from made_up_detector import NAMES, WITH, WITHOUT, build, paint
from unmask.cli.main import main
from unmask.errors import UserError
from unmask.mask.training import trainer
from unmask.mask.training.canvases import CanvasSettings
from unmask.mask.training.network import DetectorShape
from unmask.mask.training.trainer import DetectorSettings

BOXES = ((20, 30, 60, 80), (120, 20, 150, 56))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three painted images of two faces each, annotated truly but for one class."""
    monkeypatch.chdir(tmp_path)
    build(tmp_path / "d.onnx")
    made: Made = {}
    painted = {}
    for i, (name, second) in enumerate(
        {"a": "without_mask", "b": "without_mask", "c": "with_mask"}.items()
    ):
        one, two = ((x + 40 * i, y + 20 * i, r + 40 * i, b + 20 * i) for x, y, r, b in BOXES)
        made[name] = (240, 160, [("with_mask", one), (second, two)])
        painted[name] = paint((240, 160), [(one, WITH), (two, WITHOUT)])
    write_voc(tmp_path / "faces", made)
    for name, picture in painted.items():
        picture.save(tmp_path / "faces" / "images" / f"{name}.png")
    return tmp_path


def test_figures_of_a_known_detector(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mask", "evaluate", "faces", "--model", "d.onnx", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["class_names"] == list(NAMES)
    assert (told["overall"]["faces"], told["overall"]["found"]) == (6, 6)
    assert told["overall"]["right"] == 5
    assert told["ap_50"][2] is None
    # Of the class: 230 of 251 parts sure, and right five times in six.
    whole = told["reliability"]["class"]["overall"]
    assert (whole["count"], whole["right"]) == (6, 5)
    assert whole["certainty"] == pytest.approx(230 / 251, abs=1e-3)
    assert told["reliability"]["face"]["overall"]["right"] == 6


def test_the_table_is_in_plain_words(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mask", "evaluate", "faces", "--model", "d.onnx"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    for words in (
        "none annotated",
        "mask worn improperly",
        "confidence that it is a face",
        "on 3 images",
        "83.3 (44-97)",
    ):
        assert words in out
    assert "…" not in out


def test_classes_of_other_names_are_mapped_merged_or_passed_over(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (here / "faces").rglob("*.xml"):
        text = path.read_text().replace("without_mask", "No Mask").replace("with_mask", "N95")
        path.write_text(text)
    (here / "faces" / "annotations" / "a.xml").write_text(
        (here / "faces" / "annotations" / "a.xml").read_text().replace("No Mask", "person")
    )
    given = ["--classes", "with=N95", "without=No Mask"]
    assert main(["mask", "evaluate", "faces", "--model", "d.onnx", "--json", *given]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["overall"]["faces"], told["class_names"]) == (5, list(NAMES))
    assert told["warnings"][0] == "boxes of other classes passed over: person"
    both = ["--classes", "with=N95", "without=No Mask", "without=person", "--json"]
    assert main(["mask", "evaluate", "faces", "--model", "d.onnx", *both]) == 0
    assert json.loads(capsys.readouterr().out)["overall"]["faces"] == 6
    assert main(["mask", "evaluate", "faces", "--model", "d.onnx"]) == 2
    assert "--classes" in capsys.readouterr().err


def test_a_damaged_picture_is_named_and_the_status_says_so(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = here / "faces" / "images" / "b.png"
    file.write_bytes(file.read_bytes()[:-30])
    assert main(["mask", "evaluate", "faces", "--model", "d.onnx"]) == 2
    out, err = capsys.readouterr()
    assert "b.png' skipped: " in err
    assert "on 2 images" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["evaluate", "faces", "--model", "d.onnx", "--threshold", "2"], "from above 0 to 1"),
        (["evaluate", "nowhere", "--model", "d.onnx"], "nowhere"),
        (["evaluate", "empty", "--model", "d.onnx"], "no annotated images in empty"),
        (["evaluate", "faces", "--model", "faces"], "there is no such detector"),
        (["train", "empty"], "no annotated images in empty"),
        (["train", "faces", "--validation", "7"], "one image in 7 is 0.143"),
        (["train", "faces"], "3 images are too few to hold out one in 5"),
        (["train", "faces", "--scale", "0"], "--scale takes a number from 0.1 to 8"),
        (["train", "faces", "--validation", "0.333", "--epochs", "0"], "epochs"),
        (["export", "d.onnx", "e.onnx"], "safetensors"),
        (["export", "nowhere.safetensors", "e.onnx"], "there is no such file"),
    ],
)
def test_a_mistake_is_one_line(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    (here / "empty").mkdir(exist_ok=True)
    assert main(["mask", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert said in err


def test_own_pictures_are_trained_on_as_what_ships_was(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def take(annotated: object, settings: DetectorSettings, **rest: object) -> None:
        seen.append(settings)
        raise UserError("seen")

    monkeypatch.setattr(trainer, "train_detector", take)
    assert main(["mask", "train", "faces", "--validation", "0.333"]) == 2
    assert main(["mask", "train", "faces", "--validation", "0.333", "--scale", "3.2"]) == 2
    assert seen[0] == DetectorSettings()
    least, most = CanvasSettings().scales
    assert seen[1].canvas == CanvasSettings(scales=(2 * least, 2 * most))


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_own_pictures_become_a_detector_that_is_exported_and_used(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = DetectorShape(8, (8, 8, 16, 16), (1, 1, 1, 1), 16)
    monkeypatch.setattr(trainer, "DetectorSettings", partial(DetectorSettings, shape=shape))
    arguments = ["--epochs", "1", "--batch-size", "2", "--validation", "0.333", "--out", "run"]
    assert main(["mask", "train", "faces", *arguments]) == 0
    assert "try it: unmask mask detect IMAGE --model run/detector.onnx" in capsys.readouterr().out
    assert main(["mask", "detect", "faces", "--model", "run/detector.onnx", "--out", "seen"]) == 0


def test_a_training_that_was_stopped_is_not_overwritten_unasked(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "run").mkdir()
    (here / "run" / "checkpoint.safetensors").write_bytes(b"of another day")
    assert main(["mask", "train", "faces", "--out", "run", "--validation", "0.333"]) == 2
    assert "--resume continues it, --overwrite starts again" in capsys.readouterr().err
    assert (here / "run" / "checkpoint.safetensors").read_bytes() == b"of another day"
