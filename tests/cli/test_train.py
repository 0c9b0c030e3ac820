"""The verbs train, evaluate, show and export on a folder of images, with no code written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unmask.cli.evaluate import evaluate_model
from unmask.cli.main import main
from unmask.cli.show import show
from unmask.cli.train import train
from unmask.errors import UserError
from unmask.models.classifier import Classifier
from unmask.train.recipes import recipe


def stripes(root: Path, per_class: int = 12, *, grey: bool = False) -> Path:
    """Images of many sizes, grey and colour, that lie across or along."""
    random = np.random.default_rng(0)
    for k in range(per_class):
        for name in ("across", "along"):
            height, width = (int(v) for v in random.integers(20, 40, 2))
            rows = (np.arange(height) // 4 % 2 * 200)[:, None] + random.integers(
                0, 50, (height, width)
            )
            pixels = (rows if name == "across" else rows.T).astype(np.uint8)
            folder = root / name
            folder.mkdir(parents=True, exist_ok=True)
            picture = Image.fromarray(pixels)
            (picture.convert("RGB") if k % 2 and not grey else picture).save(folder / f"{k}.png")
    return root


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("stripes")
    pictures = stripes(root / "pictures")
    out = root / "out"
    assert train(str(pictures), out=out, size=24, epochs=8, batch_size=8, device="cpu") == 0
    return pictures, out


def test_a_folder_of_pictures_becomes_a_model(trained: tuple[Path, Path]) -> None:
    _, out = trained
    model = Classifier.load(out / "model")
    assert model.class_names == ("across", "along")
    assert model.card.input_shape == (3, 24, 24)
    assert len((out / "history.jsonl").read_text().splitlines()) == 8


@pytest.mark.parametrize("where", ["", "across", "runs"])
@pytest.mark.parametrize(
    "verb", [["train"], ["fool", "harden", "--eps", "0.05"], ["fool", "harden", "--certified"]]
)
def test_no_model_is_written_among_the_images(
    verb: list[str], where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = stripes(tmp_path / "pictures", 4)
    files = sorted(pictures.rglob("*"))
    made = [*verb, str(pictures), "--size", "16", "--out", str(pictures / where)]
    assert main(made) == 2
    assert "lies in that of the images" in capsys.readouterr().err
    assert sorted(pictures.rglob("*")) == files


@pytest.mark.parametrize("verb", [["train"], ["fool", "harden", "--eps", "0.05"]])
def test_images_that_are_all_grey_get_one_channel(verb: list[str], tmp_path: Path) -> None:
    pictures = stripes(tmp_path / "pictures", 4, grey=True)
    made = [str(pictures), "--size", "16", "--epochs", "1", "--device", "cpu"]
    assert main([*verb, *made, "--out", str(tmp_path / "out")]) == 0
    assert Classifier.load(tmp_path / "out" / "model").card.input_shape == (1, 16, 16)


def test_grey_images_are_read_in_colour_for_a_model_that_takes_colour(
    trained: tuple[Path, Path], tmp_path: Path
) -> None:
    pictures = stripes(tmp_path / "pictures", 4, grey=True)
    model = str(trained[1] / "model.safetensors")
    for given in ("--start", "--teacher"):
        out = tmp_path / given
        made = ["train", str(pictures), "--size", "24", "--epochs", "1", "--device", "cpu"]
        assert main([*made, given, model, "--out", str(out)]) == 0
        assert Classifier.load(out / "model").card.input_shape == (3, 24, 24)


def test_a_model_is_trained_further_and_taught(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures, out = trained
    model = str(out / "model.safetensors")
    made = ["train", str(pictures), "--size", "24", "--epochs", "1", "--device", "cpu"]
    taught = ["--start", model, "--teacher", model, "--teacher", model, "--learning-rate", "0.0001"]
    assert main([*made, *taught, "--out", str(tmp_path), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)["card"]["facts"]
    assert facts["start"] == Classifier.load(model).card.weights_sha256
    assert len(facts["teacher"]["networks"]) == 2
    assert facts["recipe"]["rate"] == 1e-4
    fast = recipe("pictures", "fast", 24).config
    assert fast.head_rate is not None
    assert facts["recipe"]["head_rate"] == pytest.approx(fast.head_rate * 1e-4 / fast.rate)
    assert main([*made, "--start", "mnist", "--out", str(tmp_path / "b")]) == 2
    assert "differ in their classes" in capsys.readouterr().err
    assert main([*made, "--teacher", "mnist", "--out", str(tmp_path / "b")]) == 2
    assert "model to learn from and the images differ" in capsys.readouterr().err
    assert main([*made, "--teacher", str(out / "none"), "--out", str(tmp_path / "b")]) == 2
    assert not (tmp_path / "b" / "model.safetensors").exists()


def test_a_run_says_what_it_found_and_keeps_the_model_before_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = stripes(tmp_path / "images", 6)
    (images / "empty").mkdir()
    out = tmp_path / "run"
    made = ["train", str(images), "--size", "24", "--epochs", "2", "--out", str(out)]
    made += ["--device", "cpu", "--optimizer", "adamw", "--weight-decay", "0.02"]
    assert main(made) == 0
    err = capsys.readouterr().err
    assert "12 training images of 3 x 24 x 24 in 2 classes: across, along" in err
    assert "'empty' holds no image" in err
    assert "epoch 1 of 2: training loss" in err
    assert "epoch 2 of 2: training loss" in err
    first = Classifier.load(out / "model").card
    assert first.facts["recipe"]["optimizer"] == "adamw"
    assert first.facts["recipe"]["weight_decay"] == 0.02
    assert main([*made, "--seed", "1"]) == 0
    assert "is of an earlier run; it is kept as model-previous" in capsys.readouterr().err
    kept = Classifier.load(out / "model-previous").card
    assert kept.weights_sha256 == first.weights_sha256
    # More epochs are another schedule: the advice must not lose the model.
    more = ["4" if word == "2" else word for word in made]
    assert main([*more, "--seed", "1", "--resume"]) == 2
    assert f"give --start {out / 'model'} and another --out" in capsys.readouterr().err
    assert main([*made, "--rate", "0.1"]) == 2
    assert "--learning-rate" in capsys.readouterr().err


def test_a_broken_picture_is_named_and_skipped(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = stripes(tmp_path / "pictures", 5)
    (pictures / "along" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 and no more")
    train(str(pictures), out=tmp_path / "out", size=24, epochs=1, device="cpu", json=True)
    printed = capsys.readouterr()
    assert "along/broken.jpg" in printed.err.replace("\n", "")
    facts = json.loads(printed.out)["card"]["facts"]
    assert facts["data"]["pictures"] + facts["data"]["validation_pictures"] == 10


def test_evaluate_prints_the_figures_and_as_json_all_of_them(
    trained: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    pictures, out = trained
    capsys.readouterr()
    model = str(out / "model.safetensors")
    assert evaluate_model(model, str(pictures), device="cpu", json=True) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["pictures"] == 24
    assert np.trace(found["confusion"]) / 24 == found["accuracy"]
    assert found["averaged_accuracy"] is not None, "its recipe averages views"
    evaluate_model(model, str(pictures), device="cpu", views="none", json=True)
    assert json.loads(capsys.readouterr().out)["averaged_accuracy"] is None
    assert evaluate_model(model, str(pictures), device="cpu", out=out / "report") == 0
    assert (out / "report" / "report.html").stat().st_size > 10_000
    text = capsys.readouterr().out
    assert f"accuracy {found['accuracy']:.4f}" in text
    assert "test-time augmentation" in text
    assert "across" in text
    with pytest.raises(UserError, match="no such images: got test; choose train"):
        evaluate_model(model, str(pictures), part="test")
    with pytest.raises(UserError, match="unknown views: got 'ten'"):
        evaluate_model(model, str(pictures), views="ten")


def test_evaluate_refuses_pictures_of_classes_that_the_model_does_not_know(
    trained: tuple[Path, Path], tmp_path: Path
) -> None:
    _, out = trained
    other = stripes(tmp_path / "pictures", 2)
    (other / "along").rename(other / "askew")
    with pytest.raises(UserError, match="classes that the model doesn't know: got askew"):
        evaluate_model(str(out / "model"), str(other))


def test_show_adds_up(trained: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    _, out = trained
    capsys.readouterr()
    show(str(out / "model"), json=True)
    found = json.loads(capsys.readouterr().out)
    total = sum(p.numel() for p in Classifier.load(out / "model").parameters())
    assert sum(layer["parameters"] for layer in found["layers"]) == total
    show(str(out / "model"), figure=out / "network.png")
    assert f"{total:,}" in capsys.readouterr().out
    assert (out / "network.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UserError, match=r"an \.svg or a \.png"):
        show(str(out / "model"), figure=out / "network.gif")


def test_a_card_with_strange_facts_still_shows_the_structure(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Classifier.load(trained[1] / "model")
    for facts in ({"figures": 3, "data": []}, {"figures": {"test_accuracy": "high"}}):
        model.card = replace(model.card, facts=facts)
        model.save(tmp_path / "odd")
        assert show(str(tmp_path / "odd")) == 0
        assert "Conv2d" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        ({"recipe_name": "quick"}, "unknown recipe"),
        ({"epochs": 0}, "epochs"),
        ({"learning_rate": float("nan")}, "learning rate"),
        ({"validation": 1.5}, "held out"),
        ({"device": "gpu"}, "unknown device"),
        ({"size": 0}, "size"),
        ({"size": 6}, "too small"),
    ],
)
def test_mistakes_get_one_line(
    trained: tuple[Path, Path], tmp_path: Path, options: dict[str, object], wrong: str
) -> None:
    pictures, _ = trained
    with pytest.raises(UserError, match=wrong) as caught:
        train(str(pictures), **{"out": tmp_path, "size": 24, **options})  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == [], "nothing is written"


def test_folders_that_can_not_be_trained_on_get_one_line(tmp_path: Path) -> None:
    one_class = stripes(tmp_path / "one", 3)
    for file in (one_class / "along").iterdir():
        file.unlink()
    lonely = stripes(tmp_path / "lonely", 3)
    for k in (1, 2):
        (lonely / "along" / f"{k}.png").unlink()
    for folder, wrong in ((one_class, "class"), (lonely, "'along' of lonely train has too few")):
        with pytest.raises(UserError, match=wrong):
            train(str(folder), out=tmp_path / "out", size=24, device="cpu")
    assert not (tmp_path / "out").exists()
