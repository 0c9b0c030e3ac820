import json
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from made_up_annotations import Made, voc_text, write_picture
from unmask.cli.main import main
from unmask.data import kaggle
from unmask.data.cifar10 import CLASSES
from unmask.errors import UserError

BOX = (2.0, 2.0, 12.0, 12.0)
MADE: Made = {
    "a": (32, 32, [("with_mask", BOX), ("without_mask", BOX)]),
    "b": (32, 32, [("mask_weared_incorrect", (2.0, 2.0, 40.0, 12.0))]),
}
COUNTS = {"with_mask": 1, "without_mask": 1, "mask_weared_incorrect": 1}
LINE = "2 images, 3 faces: 1 with mask, 1 without mask, 1 mask worn improperly"


@pytest.fixture(autouse=True)
def nothing_at_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("UNMASK_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    # Importing what is None fails as if it weren't installed.
    monkeypatch.setitem(sys.modules, "kagglehub", None)


def write_set(root: Path) -> Path:
    (root / "annotations").mkdir(parents=True)
    for seed, (name, (width, height, things)) in enumerate(MADE.items()):
        write_picture(root / "images" / f"{name}.png", width, height, seed)
        (root / "annotations" / f"{name}.xml").write_text(voc_text(name, width, height, things))
    return root


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the made-up set be as large as the one that was published."""
    monkeypatch.setattr(kaggle, "PICTURES", 2)
    monkeypatch.setattr(kaggle, "FACES", COUNTS)


@pytest.mark.usefixtures("whole")
def test_a_whole_set_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = write_set(tmp_path / "set")
    assert main(["data", "faces", "--source", str(place)]) == 0
    out, err = capsys.readouterr()
    assert LINE in out.splitlines()[0]
    assert f"at: {place}" in out
    assert "CC0" in out
    assert err == "warning: 'annotations/b.xml': 1 box cut to the image\n"


def test_a_part_of_the_set_is_counted_and_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = write_set(tmp_path / "set")
    assert main(["data", "faces", "--source", str(place), "--json"]) == 1
    out, err = capsys.readouterr()
    got = json.loads(out)
    assert (got["pictures"], got["faces"], got["whole"]) == (2, COUNTS, False)
    assert "not the complete set, which holds 853 images, 4,072 faces: 3,232 with mask" in err


@pytest.mark.usefixtures("whole")
@pytest.mark.parametrize("name", kaggle.NAMES)
def test_the_set_is_found_at_home(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = write_set(tmp_path / "home" / Path(name).stem)
    if name.endswith(".zip"):
        shutil.make_archive(str(place), "zip", place)
        shutil.rmtree(place)
    monkeypatch.setenv("UNMASK_DATA", str(tmp_path / "home"))
    assert main(["data", "faces"]) == 0


@pytest.mark.usefixtures("whole")
def test_the_set_is_downloaded_by_kagglehub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = write_set(tmp_path / "versions/1")
    asked: list[str] = []

    def dataset_download(handle: str) -> str:
        asked.append(handle)
        return str(place)

    module = types.SimpleNamespace(dataset_download=dataset_download)
    monkeypatch.setitem(sys.modules, "kagglehub", module)
    assert main(["data", "faces"]) == 0
    assert asked == ["andrewmvd/face-mask-detection"]
    assert f"at: {place}" in capsys.readouterr().out


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["data", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_without_kagglehub_one_line_says_how_to_get_the_set(
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = complaint(capsys, "faces")
    for part in ("pip install 'unmask[faces]'", "kaggle.com/datasets/andrewmvd", "--source"):
        assert part in line


def test_what_kaggle_refuses_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def dataset_download(handle: str) -> str:
        raise RuntimeError("403 Client Error.\nYou don't have permission to access it.")

    module = types.SimpleNamespace(dataset_download=dataset_download)
    monkeypatch.setitem(sys.modules, "kagglehub", module)
    line = complaint(capsys, "faces")
    assert "403 Client Error." in line
    assert "kaggle.json" in line


def test_other_pictures_are_a_clear_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "can't read" in complaint(capsys, "faces", "--source", str(tmp_path / "none"))
    assert "no annotated images" in complaint(capsys, "faces", "--source", str(tmp_path))
    assert "did you mean 'faces'" in complaint(capsys, "face")
    assert "ships inside" in complaint(capsys, "mnist", "--source", "x")
    assert "can't read" in complaint(capsys, "cifar10", "--source", str(tmp_path / "none"))


def test_mnist_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "mnist", "--json"]) == 0
    got = json.loads(capsys.readouterr().out)
    assert got["pictures"] == sum(got["labels"].values()) == 70_000
    # Y. LeCun's own counts of the digits 0 and 1, training and test together.
    assert (got["labels"]["0"], got["labels"]["1"]) == (5923 + 980, 6742 + 1135)


def test_a_part_of_cifar10_is_counted_and_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for part in ("train", "test"):
        for name in CLASSES:
            write_picture(tmp_path / part / name / "1.png", 32, 32)
    assert main(["data", "cifar10", "--source", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert "20 images, 20 labels: 2 airplane" in out
    assert "60,000 images" in err


def test_cifar10_is_written_as_sheets_that_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    random = np.random.default_rng(0)
    for batch in (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"):
        rows = np.repeat(random.integers(0, 10, (1000, 1), np.uint8), 3073, 1)
        (tmp_path / f"{batch}.bin").write_bytes(rows.tobytes())
    sheets = tmp_path / "home" / "cifar10"
    # The images are fewer than the published ones.
    assert main(["data", "cifar10", "--source", str(tmp_path), "--sheets", str(sheets)]) == 1
    monkeypatch.setenv("UNMASK_DATA", str(tmp_path / "home"))
    capsys.readouterr()
    assert main(["data", "cifar10", "--json"]) == 1
    assert "lossless sheets" in json.loads(capsys.readouterr().out)["place"]
    assert "sheets hold cifar10 alone" in complaint(capsys, "mnist", "--sheets", "x")


def test_without_a_network_no_account_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(handle: str) -> None:
        raise ConnectionError("Failed to resolve 'www.kaggle.com'")

    module = types.SimpleNamespace(dataset_download=refuse)
    monkeypatch.setitem(sys.modules, "kagglehub", module)
    assert main(["data", "faces"]) == 2
    line = capsys.readouterr().err
    assert "Failed to resolve" in line
    assert "kaggle.json" not in line
    assert "download the zip archive" in line


def test_all_datasets_are_fetched_and_one_that_is_missing_stops_no_other(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from unmask.cli import data as data_module

    def absent(source: Path | None, sheets: Path | None) -> None:
        raise UserError("CIFAR-10 can't be fetched", got="no network")

    monkeypatch.setattr(data_module, "_cifar10", absent)
    assert main(["data", "all", "--json"]) == 2
    out, err = capsys.readouterr()
    assert [found["name"] for found in json.loads(out)] == ["mnist"]
    assert "warning: cifar10: CIFAR-10 can't be fetched: got no network" in err
    assert "warning: faces: to download the face mask set needs kagglehub" in err
    assert "2 of 3 datasets are not here: got all but faces, cifar10" in err
