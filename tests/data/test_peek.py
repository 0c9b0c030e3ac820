"""The shape that a tree's images are read at."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from unmask.data.peek import natural_shape
from unmask.errors import UserError


def tree(root: Path, *pictures: tuple[str, tuple[int, int]]) -> Path:
    for k, (mode, size) in enumerate(pictures):
        folder = root / f"class {k % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.new(mode, size).save(folder / f"{k}.png")
    return root


@pytest.mark.parametrize(
    ("pictures", "expected"),
    [
        ([("L", (28, 20)), ("L", (28, 20))], (1, 20, 28)),
        ([("RGB", (32, 32)), ("L", (32, 32))], (3, 32, 32)),
        ([("RGB", (32, 32)), ("RGB", (33, 32))], (3, 64, 64)),
        ([("P", (300, 200)), ("P", (300, 200))], (3, 64, 64)),
        ([], (3, 64, 64)),
    ],
)
def test_one_small_size_is_kept_and_others_become_squares(
    tmp_path: Path, pictures: list[tuple[str, tuple[int, int]]], expected: tuple[int, int, int]
) -> None:
    assert natural_shape(tree(tmp_path, *pictures)) == expected


def test_a_broken_picture_is_passed_over(tmp_path: Path) -> None:
    root = tree(tmp_path, ("L", (10, 12)), ("L", (10, 12)))
    (root / "class 0" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nand no more")
    assert natural_shape(root) == (1, 12, 10)


def test_a_picture_too_large_to_unpack_is_passed_over(tmp_path: Path) -> None:
    root = tree(tmp_path, ("L", (28, 20)), ("L", (28, 20)))
    header = struct.pack(">4sIIBBBBB", b"IHDR", 20_000, 20_000, 8, 0, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13)
    (root / "class 0" / "huge.png").write_bytes(
        start + header + struct.pack(">I", zlib.crc32(header)) + struct.pack(">I4s", 0, b"IDAT")
    )
    assert natural_shape(root) == (1, 20, 28)


def test_a_missing_tree_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none"):
        natural_shape(tmp_path / "none")
