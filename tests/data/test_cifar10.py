"""CIFAR-10 from archives in its formats, made small, and what is no CIFAR-10."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unmask.data.cifar10 import CLASSES, load_cifar10
from unmask.errors import UserError

BATCHES = [*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin"]


def records(batch: int, count: int = 4) -> bytes:
    random = np.random.default_rng(batch)
    rows = random.integers(0, 256, (count, 3073), np.uint8)
    rows[:, 0] %= 10
    return rows.tobytes()


def archive(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def binary(path: Path, **replaced: bytes) -> Path:
    content = {f"cifar-10-batches-bin/{b}": records(k) for k, b in enumerate(BATCHES)}
    content |= {f"cifar-10-batches-bin/{k}.bin": v for k, v in replaced.items()}
    return archive(path, content)


def test_the_binary_archive_is_read_as_its_authors_describe_it(tmp_path: Path) -> None:
    train, test = load_cifar10(binary(tmp_path / "cifar-10-binary.tar.gz"))
    assert len(train) == 20
    assert len(test) == 4
    # A record is a label, then 1024 red, green and blue values row by row.
    third = np.frombuffer(records(1), np.uint8).reshape(4, 3073)[2]
    assert train.labels[6] == third[0]
    assert train.pixels[6, 1, 5, 7] == third[1 + 1024 + 5 * 32 + 7]
    assert train.class_names == CLASSES
    assert "not the canonical archive" in train.name


def test_the_unpacked_archive_is_read_too(tmp_path: Path) -> None:
    for k, name in enumerate(BATCHES):
        (tmp_path / name).write_bytes(records(k))
    packed = load_cifar10(binary(tmp_path / "x.tar.gz"))
    unpacked = load_cifar10(tmp_path)
    assert [p.sha256 for p in packed] == [u.sha256 for u in unpacked]


def test_pickles_are_never_opened(tmp_path: Path) -> None:
    harm = b"cos\nsystem\n(S'touch harmed'\ntR."
    path = archive(tmp_path / "x.tar.gz", {"cifar-10-batches-py/data_batch_1": harm})
    with pytest.raises(UserError, match=r"pickles.*cifar-10-binary\.tar\.gz"):
        load_cifar10(path)


@pytest.mark.parametrize("content", [b"", b"x" * 3072, b"\0" * (10_001 * 3073)])
def test_a_batch_of_another_size_is_named(tmp_path: Path, content: bytes) -> None:
    path = binary(tmp_path / "x.tar.gz", data_batch_3=content)
    with pytest.raises(UserError, match=r"data_batch_3\.bin"):
        load_cifar10(path)


def test_a_label_outside_the_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="labels"):
        load_cifar10(binary(tmp_path / "x.tar.gz", test_batch=b"\x0a" + b"\0" * 3072))


def test_a_truncated_archive_gets_one_line(tmp_path: Path) -> None:
    path = binary(tmp_path / "x.tar.gz")
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(UserError, match="no readable tar archive"):
        load_cifar10(path)


def jpeg_zip(path: Path, classes: tuple[str, ...], parts: tuple[str, ...]) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for part in parts:
            for k, name in enumerate(classes):
                buffer = io.BytesIO()
                Image.new("RGB", (32, 32), (20 * k, 0, 0)).save(buffer, "PNG")
                file.writestr(f"{part}/{name}/0.png", buffer.getvalue())
    return path


def test_a_zip_of_pictures_is_read_and_named(tmp_path: Path) -> None:
    train, test = load_cifar10(jpeg_zip(tmp_path / "some.zip", CLASSES, ("train", "test")))
    assert train.labels.tolist() == test.labels.tolist() == list(range(10))
    assert train.pixels[:, 0, 0, 0].tolist() == [20 * k for k in range(10)]
    assert train.name == "CIFAR-10 train (some.zip)"
    assert test.name == "CIFAR-10 test (some.zip)"


@pytest.mark.parametrize(
    ("classes", "parts"), [(("cat", "dog"), ("train", "test")), (CLASSES, ("train",))]
)
def test_other_pictures_are_not_taken_for_cifar10(
    tmp_path: Path, classes: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    with pytest.raises(UserError, match="not CIFAR-10"):
        load_cifar10(jpeg_zip(tmp_path / "x.zip", classes, parts))
