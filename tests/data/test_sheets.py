"""CIFAR-10 as lossless sheets: read as described, and refused where a folder isn't whole."""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from unmask.data.cifar10 import CLASSES, load_cifar10
from unmask.data.sheets import read_sheets, write_sheets
from unmask.data.sources import load_source
from unmask.errors import UserError

Parts = dict[str, tuple[NDArray[np.uint8], NDArray[Any]]]


def coarse(seed: int, count: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    # Few different values, so that a sheet is written in little time.
    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (count, 3, 4, 4), np.uint8)
    return small.repeat(8, 2).repeat(8, 3), random.integers(0, 10, count)


@pytest.fixture(scope="session")
def parts() -> Parts:
    return {"train": coarse(0, 2000), "test": coarse(1, 1000)}


@pytest.fixture(scope="session")
def written(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sheets") / "cifar10"
    write_sheets(folder, parts)
    return folder


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "cifar10"))


def labels(folder: Path, **changed: NDArray[Any] | None) -> None:
    with np.load(folder / "labels.npz") as archive:
        arrays = {k: archive[k] for k in archive.files} | changed
    kept = {k: v for k, v in arrays.items() if v is not None}
    np.savez(folder / "labels.npz", **kept)


def test_what_is_written_is_read_bit_for_bit(written: Path, parts: Parts) -> None:
    train, test = load_cifar10(written)
    for images, part in ((train, "train"), (test, "test")):
        np.testing.assert_array_equal(images.pixels, parts[part][0])
        np.testing.assert_array_equal(images.labels, parts[part][1])
    assert train.class_names == CLASSES
    assert train.name == "CIFAR-10 train (lossless sheets, 2,000 of 2,000 bit-exact)"


def test_a_sheet_holds_25_rows_of_40_images_in_order(written: Path, parts: Parts) -> None:
    sheet = np.asarray(Image.open(written / "train_01.webp").convert("RGB"))
    assert sheet.shape == (800, 1280, 3)
    image = sheet[3 * 32 : 4 * 32, 5 * 32 : 6 * 32].transpose(2, 0, 1)
    np.testing.assert_array_equal(image, parts["train"][0][1000 + 3 * 40 + 5])


def test_the_images_that_are_not_exact_are_counted(folder: Path) -> None:
    exact = np.ones(1000, bool)
    exact[:7] = False
    labels(folder, exact_test=exact)
    assert "993 of 1,000 bit-exact" in load_cifar10(folder)[1].name


def test_a_part_is_read_where_the_other_is_absent(folder: Path, parts: Parts) -> None:
    (folder / "test_00.webp").unlink()
    pixels, _, _ = read_sheets(folder, ("train",))["train"]
    np.testing.assert_array_equal(pixels, parts["train"][0])


def webp(size: tuple[int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size).save(buffer, "WEBP", lossless=True)
    return buffer.getvalue()


def without(folder: Path, name: str) -> None:
    (folder / name).unlink()


def replaced(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda f: without(f, "train_01.webp"), "lacks 1 of the 3 sheets.*no train_01.webp"),
        (lambda f: without(f, "labels.npz"), "sheets but no labels: got no labels.npz"),
        (
            lambda f: replaced(f, "test_00.webp", (f / "test_00.webp").read_bytes()[:900]),
            "test_00.webp is no readable WebP sheet: got a truncated or damaged file",
        ),
        (lambda f: replaced(f, "test_00.webp", b""), "test_00.webp is no readable WebP sheet"),
        (
            lambda f: replaced(f, "train_00.webp", webp((1280, 768))),
            "train_00.webp must be 1280 x 800 pixels: got 1280 x 768",
        ),
        (lambda f: replaced(f, "labels.npz", b"<html>"), "labels.npz is no readable archive"),
        (
            lambda f: labels(f, y_train=np.zeros(1999, np.uint8)),
            "must hold 1000 labels for each sheet of train: got 1999",
        ),
        (
            lambda f: labels(f, y_train=np.zeros(1000, np.uint8)),
            "more sheets of train than labels: got train_01.webp and 1000 labels",
        ),
        (lambda f: labels(f, y_test=None), "lacks the labels of a part: got 'y_test'"),
        (lambda f: labels(f, y_test=np.zeros((1000, 1), np.uint8)), r"y_test is uint8\[1000, 1\]"),
        (
            lambda f: labels(f, exact_test=np.ones(5, bool)),
            "of each test image whether it is exact",
        ),
        (
            # As if the sheets of two versions had been copied into one folder.
            lambda f: shutil.copy(f / "test_00.webp", f / "train_00.webp"),
            "the train sheets .* are not all of the version",
        ),
        (lambda f: labels(f, sha256_train=None), "the train sheets .* are not all of the version"),
        (lambda f: labels(f, y_test=np.full(1000, 10, np.uint8)), "labels must be 0 to 9"),
    ],
)
def test_a_folder_that_is_not_whole_gets_one_line(folder: Path, harm: Any, told: str) -> None:
    harm(folder)
    with pytest.raises(UserError, match=told):
        load_cifar10(folder)


def test_what_fits_no_sheet_is_not_written(parts: Parts, tmp_path: Path) -> None:
    pixels, numbers = parts["train"]
    with pytest.raises(UserError, match="give a multiple of 1,000 images"):
        write_sheets(tmp_path, {"train": (pixels[:1500], numbers[:1500]), "test": parts["test"]})
    assert list(tmp_path.iterdir()) == []


def test_sheets_are_found_where_unmask_data_points(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for home in (folder.parent, folder):
        monkeypatch.setenv("UNMASK_DATA", str(home))
        assert len(load_source("cifar10").train) == 2000


@pytest.mark.data
@pytest.mark.slow
def test_the_whole_set_has_its_published_classes_and_means() -> None:
    folder = Path(os.environ.get("UNMASK_DATA", "")) / "cifar10"
    if not (folder / "labels.npz").is_file():
        pytest.skip("UNMASK_DATA names no folder with the sheets of CIFAR-10")
    parts = read_sheets(folder)
    pixels, numbers, words = parts["train"]
    assert np.bincount(numbers).tolist() == [5000] * 10
    assert np.bincount(parts["test"][1]).tolist() == [1000] * 10
    assert words == "lossless sheets, 49,914 of 50,000 bit-exact"
    np.testing.assert_allclose(pixels.mean((0, 2, 3)) / 255, [0.4914, 0.4822, 0.4465], atol=5e-5)
