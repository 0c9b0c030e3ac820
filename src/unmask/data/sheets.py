"""CIFAR-10 as lossless WebP sheets of 1,000 images: small enough to keep in a repository."""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unmask.errors import UserError
from unmask.runtime import cpu_threads, require_regular, sha256, write_atomically

LABELS = "labels.npz"
PARTS = ("train", "test")
_ROWS, _COLUMNS, _SIDE = 25, 40, 32
_EACH = _ROWS * _COLUMNS
_SIZE = (_COLUMNS * _SIDE, _ROWS * _SIDE)
_MOST_SHEETS, _MOST_BYTES = 100, 1 << 25
# Of the set assembled from public copies, whose labels.npz states no checksums: 49,914 of the
# training and 9,975 of the test images are bit-exact.
_KNOWN = {
    "train": "c461bd4536fb85ed1eb486daab6efe1841bd78a4c1eb300d5c7b5ac7f9c941b4",
    "test": "ca999a174ec711bbad89d5cc53d425e155595742a396a5ba95d0a218eac0704a",
}
_DO = "copy the folder again, all files from one place"

Part = tuple[NDArray[np.uint8], NDArray[np.int64], str]


def has_sheets(folder: Path) -> bool:
    """Return whether a folder holds sheets or the labels of sheets."""
    return any((folder / name).is_file() for name in (LABELS, "train_00.webp", "test_00.webp"))


def read_sheets(
    folder: Path,
    parts: Sequence[str] = PARTS,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Part]:
    """Read CIFAR-10 from sheets of 25 rows of 40 images each, and from labels.npz.

    The sheets are train_00.webp ... and test_00.webp .... labels.npz holds y_train and y_test,
    uint8[n]; exact_train and exact_test, bool[n], which images are bit for bit the published ones,
    by default all; and sha256_train and sha256_test, in hex, of all pixels as uint8[n, 32, 32, 3],
    by default those of the set in the development data. The checksums detect a folder that mixes
    two versions.

    Args:
        folder: the folder with the sheets.
        parts: "train", "test" or both; the files of the other may be absent.
        progress: called with the number of images read so far and of all.

    Returns:
        For each of the parts the pixels, uint8[n, 3, 32, 32], the labels, int64[n], and how exact
        the images are, in words.

    Raises:
        UserError: when a sheet is missing, truncated or of another size, the labels don't fit, or
            the pixels have another checksum.
    """
    arrays = _labels(folder)
    counts = {part: _sheets(folder, arrays[f"y_{part}"], part) for part in parts}
    paths = [folder / f"{part}_{k:02}.webp" for part in parts for k in range(counts[part])]
    if missing := [path.name for path in paths if not path.is_file()]:
        raise UserError(
            f"{folder} lacks {len(missing)} of the {len(paths)} sheets that {LABELS} labels",
            got=f"no {missing[0]}",
            do=_DO,
        )
    pixels = np.empty((len(paths), _EACH, _SIDE, _SIDE, 3), np.uint8)
    with ThreadPoolExecutor(cpu_threads()) as pool:
        for k, sheet in enumerate(pool.map(_read, paths)):
            pixels[k] = _cut(sheet)
            if progress:
                progress((k + 1) * _EACH, len(paths) * _EACH)
    found, first = {}, 0
    for part, count in counts.items():
        rows = pixels[first : first + count].reshape(-1, _SIDE, _SIDE, 3)
        found[part] = _part(folder, part, rows, arrays)
        first += count
    return found


def write_sheets(folder: Path, parts: dict[str, tuple[NDArray[np.uint8], NDArray[Any]]]) -> None:
    """Write images as read_sheets reads them.

    Args:
        folder: where the files go; created if it doesn't exist.
        parts: for "train" and "test" the pixels, uint8[n, 3, 32, 32], n a multiple of 1,000 up to
            100,000, and the labels, 0 to 255.

    Raises:
        UserError: when the images have another shape or number, or the folder can't be written.
    """
    from PIL import Image

    arrays: dict[str, NDArray[Any]] = {}
    for part in PARTS:
        pixels, labels = parts[part]
        fits = pixels.dtype == np.uint8 and pixels.shape[1:] == (3, _SIDE, _SIDE)
        if not fits or len(pixels) != len(labels) or not _sheet_count(len(pixels)):
            raise UserError(
                f"sheets hold {_EACH} images of uint8[3, {_SIDE}, {_SIDE}] each",
                got=f"{pixels.dtype}{list(pixels.shape)} and {len(labels)} labels for {part}",
                do="give a multiple of 1,000 images",
            )
        rows = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))
        for k in range(len(rows) // _EACH):
            buffer = io.BytesIO()
            sheet = Image.fromarray(_joined(rows[k * _EACH : (k + 1) * _EACH]))
            sheet.save(buffer, "WEBP", lossless=True, quality=100, method=4)
            _write(folder / f"{part}_{k:02}.webp", buffer.getvalue())
        arrays[f"y_{part}"] = labels.astype(np.uint8)
        arrays[f"sha256_{part}"] = np.array(_digest(rows))
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    _write(folder / LABELS, buffer.getvalue())


def _labels(folder: Path) -> dict[str, NDArray[Any]]:
    path = folder / LABELS
    try:
        require_regular(path)
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError("too large a file")
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        for part in PARTS:
            labels = arrays[f"y_{part}"]
            if labels.ndim != 1 or labels.dtype != np.uint8:
                raise ValueError(f"y_{part} is {labels.dtype}{list(labels.shape)}, not uint8[n]")
    except FileNotFoundError:
        raise UserError(f"{folder} has sheets but no labels", got=f"no {LABELS}", do=_DO) from None
    except KeyError as error:
        raise UserError(f"{path} lacks the labels of a part", got=str(error), do=_DO) from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is no readable archive", got=str(error), do=_DO) from error
    return arrays


def _sheets(folder: Path, labels: NDArray[Any], part: str) -> int:
    count = _sheet_count(len(labels))
    if not count:
        raise UserError(
            f"{folder / LABELS} must hold {_EACH} labels for each sheet of {part}",
            got=len(labels),
            do=_DO,
        )
    extra = folder / f"{part}_{count:02}.webp"
    if extra.exists():
        raise UserError(
            f"{folder} has more sheets of {part} than labels",
            got=f"{extra.name} and {len(labels)} labels",
            do=_DO,
        )
    return count


def _sheet_count(images: int) -> int:
    count, rest = divmod(images, _EACH)
    return 0 if rest or count > _MOST_SHEETS else count


def _read(path: Path) -> NDArray[np.uint8]:
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            require_regular(path)
            if path.stat().st_size > _MOST_BYTES:
                raise ValueError("too large a file")
            with Image.open(path, formats=("WEBP",)) as sheet:
                if sheet.size != _SIZE:
                    raise UserError(
                        f"{path} must be {_SIZE[0]} x {_SIZE[1]} pixels",
                        got=f"{sheet.size[0]} x {sheet.size[1]}",
                        do=_DO,
                    )
                return np.asarray(sheet.convert("RGB"))
        except UserError:
            raise
        except Exception as error:  # Decoders raise nearly any exception for damage.
            reason = getattr(error, "strerror", None) or "a truncated or damaged file"
            raise UserError(f"{path} is no readable WebP sheet", got=reason, do=_DO) from error


def _cut(sheet: NDArray[np.uint8]) -> NDArray[np.uint8]:
    rows = sheet.reshape(_ROWS, _SIDE, _COLUMNS, _SIDE, 3)
    return rows.transpose(0, 2, 1, 3, 4).reshape(_EACH, _SIDE, _SIDE, 3)


def _joined(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    rows = images.reshape(_ROWS, _COLUMNS, _SIDE, _SIDE, 3)
    return np.ascontiguousarray(rows.transpose(0, 2, 1, 3, 4).reshape(*_SIZE[::-1], 3))


def _part(
    folder: Path, part: str, pixels: NDArray[np.uint8], arrays: dict[str, NDArray[Any]]
) -> Part:
    wanted = str(arrays.get(f"sha256_{part}", _KNOWN[part]))
    found = _digest(pixels)
    if found != wanted:
        raise UserError(
            f"the {part} sheets of {folder} are not all of the version that {LABELS} belongs to",
            got=f"pixels with SHA-256 {found[:12]}... and not {wanted[:12]}...",
            do=_DO,
        )
    exact = arrays.get(f"exact_{part}", np.ones(len(pixels), bool))
    if exact.shape != (len(pixels),) or exact.dtype != np.bool_:
        raise UserError(
            f"{folder / LABELS} must say of each {part} image whether it is exact",
            got=f"exact_{part}, {exact.dtype}{list(exact.shape)}",
            do=_DO,
        )
    words = f"lossless sheets, {exact.sum():,} of {len(exact):,} bit-exact"
    channels_first = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
    return channels_first, arrays[f"y_{part}"].astype(np.int64), words


def _digest(pixels: NDArray[np.uint8]) -> str:
    return sha256(pixels.reshape(-1).data)


def _write(path: Path, content: bytes) -> None:
    with write_atomically(path) as file:
        file.write(content)
