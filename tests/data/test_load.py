"""Labelled images from names, folders, arrays and loaders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

from unmask.data.load import load_data
from unmask.errors import UserError

BYTES = np.random.default_rng(0).integers(0, 256, (6, 3, 5, 7), np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2])


@pytest.mark.parametrize(
    "images",
    [
        BYTES,
        BYTES.transpose(0, 2, 3, 1),
        BYTES.astype(np.float32) / 255,
        torch.from_numpy(BYTES),
        torch.from_numpy(BYTES).float() / 255,
    ],
)
def test_arrays_of_any_layout_are_the_same_images(images: Any) -> None:
    found = load_data((images, torch.from_numpy(LABELS)))
    np.testing.assert_array_equal(found.pixels, BYTES)
    np.testing.assert_array_equal(found.labels, LABELS)
    assert found.class_names == ("0", "1", "2")


def test_grey_rows_get_a_channel() -> None:
    assert load_data((BYTES[:, 0], LABELS)).pixels.shape == (6, 1, 5, 7)


def test_a_loader_is_read_up_to_a_count() -> None:
    dataset = TensorDataset(torch.from_numpy(BYTES).float() / 255, torch.from_numpy(LABELS))
    loader = DataLoader(dataset, batch_size=4)
    np.testing.assert_array_equal(load_data(loader).pixels, BYTES)
    assert len(load_data(loader, count=5, class_names=("a", "b", "c"))) == 5
    rows = [{"pixel_values": BYTES[:2], "labels": LABELS[:2]}]
    np.testing.assert_array_equal(load_data(rows).pixels, BYTES[:2])


def test_a_name_or_folder_gives_its_test_part_first(tmp_path: Path) -> None:
    assert len(load_data("mnist")) == 10_000
    assert len(load_data("mnist", part="train")) == 60_000
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (30, 20)).save(tmp_path / name / "0.png")
    assert load_data(tmp_path).pixels.shape == (2, 3, 20, 30)
    assert load_data(tmp_path, size=8).pixels.shape == (2, 3, 8, 8)
    assert load_data(tmp_path, size=(6, 9), channels=1).pixels.shape == (2, 1, 6, 9)
    with pytest.raises(UserError, match="no test images: got test; choose train"):
        load_data(tmp_path, part="test")


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ((BYTES.astype(np.float32), LABELS), r"lie in \[0, 1\].*mean and std"),
        ((BYTES.astype(np.int64), LABELS), "uint8 or floating point"),
        ((BYTES, LABELS.astype(float)), "one whole number an image"),
        ((BYTES, np.eye(6)), "argmax"),
        ((BYTES, LABELS[:5]), r"int64\[6\]"),
        ((BYTES, LABELS - 1), "labels must be 0 to"),
        ([], "yields no batches"),
        ([BYTES], "a batch must be"),
        ([{"pixels": BYTES}], "got dict with pixels"),
        (7, "holds no labelled images"),
    ],
)
def test_what_holds_no_labelled_images_gets_one_line(source: Any, told: str) -> None:
    with pytest.raises(UserError, match=told):
        load_data(source)
