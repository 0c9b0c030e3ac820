from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unmask.cli.main import main
from unmask.data.mnist import load_mnist


@pytest.fixture(scope="module")
def seven(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("pictures") / "seven.png"
    Image.fromarray(load_mnist()[1].pixels[0, 0]).save(file)
    return str(file)


def test_a_picture_of_ones_own(
    seven: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "grid"
    arguments = ["fool", "grid", "mnist", "--image", seven, "--target", "1", "9"]
    assert main([*arguments, "--out", str(out)]) == 0
    assert "2 of 2 images fool it" in capsys.readouterr().out
    assert (out / "report.html").is_file()
    changed = np.asarray(Image.open(out / "pictures" / "your-images" / "1-seven-as-9.png"))
    assert changed.shape == (28, 28)
    assert (changed != load_mnist()[1].pixels[0, 0]).any()


def test_as_json_and_in_the_course_reports_way(
    seven: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["fool", "grid", "mnist", "--image", seven, "--target", "1", "--label", "7"]
    out = ["--out", str(tmp_path / "grid")]
    assert main([*arguments, "--mode", "course-report", "--json", *out]) == 0
    (grid,) = json.loads(capsys.readouterr().out)
    assert grid["mode"] == "course-report"
    assert grid["pictures"][0]["said"] == grid["pictures"][0]["label"] == "7"
    assert grid["pairs"][0]["reached"]


@pytest.mark.slow
def test_the_course_reports_samples_and_the_frog_that_is_skipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("UNMASK_DATA", raising=False)
    assert main(["fool", "grid", "--out", str(tmp_path / "grid")]) == 0
    told = capsys.readouterr()
    assert "MNIST: 45 of 45 images fool it" in told.out
    assert "the frog is skipped" in told.err
    assert (tmp_path / "grid" / "figures" / "mnist.svg").is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--target", "7"], "the class to pass for is the image's own"),
        (["--target", "frog"], "unknown class"),
        (["--label", "frog"], "unknown class"),
        (["--mode", "slow"], "unknown mode"),
        (["--mode", "fast"], "take --mode best"),
        (["--mode", "document"], "take --mode course-report"),
        (["--norm", "l3"], "linf"),
        (["--norm", "linf", "--eps", "0"], "eps is no size"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(
    arguments: list[str],
    said: str,
    seven: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = ["--out", str(tmp_path / "grid")]
    assert main(["fool", "grid", "mnist", "--image", seven, *arguments, *out]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_file_that_is_no_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.png").write_text("not an image")
    out = ["--out", str(tmp_path / "grid")]
    for name, said in (("notes.png", "is no image"), ("absent.png", "can't read")):
        file = str(tmp_path / name)
        assert main(["fool", "grid", "mnist", "--image", file, *out]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1


def test_a_model_of_ones_own(
    seven: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "grids_own_model.py").write_text(
        "from torch import nn\n"
        "def make():\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 4))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    arguments = ["fool", "grid", "grids_own_model:make", "--image", seven]
    out = ["--out", str(tmp_path / "grid")]
    assert main([*arguments, *out]) == 2
    assert "does not state the size" in capsys.readouterr().err
    assert main([*arguments, "--size", "27", *out]) == 2
    assert "takes no images of 27 x 27" in capsys.readouterr().err
    assert main([*arguments, "--size", "28", *out]) == 0
    assert "3 of 3 images fool it" in capsys.readouterr().out
    assert main(["fool", "grid", "grids_own_model:make", *out]) == 2
    assert "--image" in capsys.readouterr().err
