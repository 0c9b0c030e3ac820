"""CIFAR-10 from its canonical binary archive, lossless sheets, or a folder or zip of its images."""

from __future__ import annotations

import hashlib
import os
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from unmask.data.cards import CARDS
from unmask.data.folder import load_folder
from unmask.data.images import Images
from unmask.data.sheets import has_sheets, read_sheets
from unmask.errors import UserError
from unmask.runtime import open_regular, require_regular

# In the order of the labels.
CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
_CARD = CARDS["cifar10-binary"].files[0]
ARCHIVE = _CARD.name
_TRAIN = tuple(f"data_batch_{k}.bin" for k in range(1, 6))
_TEST = ("test_batch.bin",)
_RECORD = 1 + 3 * 32 * 32
_BATCH = 10_000
_MAX_MEMBERS = 100


def load_cifar10(
    source: str | os.PathLike[str], *, progress: Callable[[int, int], None] | None = None
) -> tuple[Images, Images]:
    """Return the training and the test images of CIFAR-10: 3 x 32 x 32, ten classes.

    A. Krizhevsky, 2009, "Learning multiple layers of features from tiny images". The canonical
    python archive holds pickles, which can run any code when opened, and is refused.

    Args:
        source: the canonical binary archive, packed or unpacked; a folder of lossless sheets, see
            read_sheets; or a folder or zip with train/CLASS and test/CLASS. The name of the images
            states which it was.
        progress: called with the number of images of a folder or zip read so far, and of all.

    Returns:
        The training images and the test images.

    Raises:
        UserError: when the source is missing, damaged or something else.
    """
    path = Path(source)
    if path.is_dir() and (path / _TRAIN[0]).is_file():
        batches = {name: _read(path / name) for name in (*_TRAIN, *_TEST)}
        return _canonical(path, batches, path.name)
    if path.is_dir() and has_sheets(path):
        return _from_sheets(path, progress)
    if path.is_file() and path.suffix in (".gz", ".tgz", ".tar"):
        with open_regular(path) as file:
            untouched = hashlib.file_digest(file, "sha256").hexdigest() == _CARD.sha256
        name = "canonical archive" if untouched else f"{path.name}, not the canonical archive"
        return _canonical(path, _members(path), name)
    return _pictures(path, progress)


def cifar10_at_home() -> Path | None:
    """Return where CIFAR-10 lies in the folder that UNMASK_DATA names, or None.

    Returns:
        The canonical binary archive in the folder itself or in its folder cifar10-binary; else the
        folder cifar10 within it, or the folder itself, if it holds lossless sheets; else None.
    """
    home = os.environ.get("UNMASK_DATA")
    if not home:
        return None
    for path in (Path(home) / ARCHIVE, Path(home) / "cifar10-binary" / ARCHIVE):
        if path.is_file():
            return path
    return next((f for f in (Path(home) / "cifar10", Path(home)) if has_sheets(f)), None)


def _from_sheets(path: Path, progress: Callable[[int, int], None] | None) -> tuple[Images, Images]:
    parts = read_sheets(path, progress=progress)
    train, test = (
        Images(pixels, labels, CLASSES, f"CIFAR-10 {part} ({exactness})")
        for part, (pixels, labels, exactness) in parts.items()
    )
    return train, test


def _pictures(path: Path, progress: Callable[[int, int], None] | None) -> tuple[Images, Images]:
    folder = load_folder(path, size=(32, 32), channels=3, progress=progress)
    if folder.train.class_names != CLASSES or folder.test is None:
        raise UserError(
            f"{path} is not CIFAR-10: it needs train/ and test/ with its ten classes",
            got=", ".join(folder.train.class_names[:12]),
            do="train on other images by giving the folder's name in place of cifar10",
        )
    if folder.warnings:
        raise UserError(
            f"{path} is not whole", got=folder.warnings[0], do=f"copy it again, or use {ARCHIVE}"
        )
    return tuple(  # type: ignore[return-value]
        Images(part.pixels, part.labels, part.class_names, f"CIFAR-10 {name} ({path.name})")
        for name, part in (("train", folder.train), ("test", folder.test))
    )


def _members(path: Path) -> dict[str, bytes]:
    """Read the batches out of a tar archive in one pass, leaving everything else packed."""
    found: dict[str, bytes] = {}
    try:
        require_regular(path)
        with tarfile.open(path) as archive:
            for count, member in enumerate(archive):
                name = PurePosixPath(member.name).name
                if count > _MAX_MEMBERS:
                    break
                if name in ("data_batch_1", "batches.meta"):
                    raise UserError(
                        f"{path} holds pickles, which could run any code when opened",
                        got=member.name,
                        do=f"use {ARCHIVE}, which holds the same images",
                    )
                if name in (*_TRAIN, *_TEST) and member.isfile():
                    stream = archive.extractfile(member)
                    assert stream is not None
                    found[name] = stream.read(_BATCH * _RECORD + 1)
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise UserError(
            f"{path} is no readable tar archive", got=str(error), do=f"download {ARCHIVE} again"
        ) from error
    return found


def _read(path: Path) -> bytes:
    try:
        with open_regular(path) as file:
            return file.read(_BATCH * _RECORD + 1)
    except OSError as error:
        raise UserError(f"can't read {path}", got=error.strerror) from error


def _canonical(path: Path, batches: dict[str, bytes], name: str) -> tuple[Images, Images]:
    def images(part: str, names: tuple[str, ...]) -> Images:
        records = np.concatenate([_records(path, batches, n) for n in names])
        return Images(
            pixels=records[:, 1:].reshape(-1, 3, 32, 32),
            labels=records[:, 0].astype(np.int64),
            class_names=CLASSES,
            name=f"CIFAR-10 {part} ({name})",
        )

    return images("train", _TRAIN), images("test", _TEST)


def _records(path: Path, batches: dict[str, bytes], name: str) -> NDArray[np.uint8]:
    content = batches.get(name, b"")
    if not content or len(content) % _RECORD or len(content) > _BATCH * _RECORD:
        raise UserError(
            f"{path} is not the binary archive of CIFAR-10: {name} must hold {_BATCH} records",
            got=f"{len(content)} bytes",
            do=f"download {ARCHIVE} again",
        )
    return np.frombuffer(content, np.uint8).reshape(-1, _RECORD)
