"""Saved state of runs, read back: bounded before it is in memory, and checked by name."""

from __future__ import annotations

import json
import math
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from unmask.errors import UserError
from unmask.runtime import open_regular, read_regular

MAX_JSON_BYTES = 1 << 29
MAX_JSON_DEPTH = 64
# Deflate compresses 1032 : 1 at best, so an array can't exceed its file by more than that.
_MAX_RATIO = 1033
_MEMBER_HEADER = 1 << 16


def damaged(path: Path, what: object) -> UserError:
    """Return the error for saved state that this run can't have written.

    Args:
        path: the file.
        what: what is wrong with it.
    """
    return UserError(
        f"this run's state is damaged: {path}: {what}",
        do="start anew with another --out, or delete it",
    )


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn every error that malformed saved state causes into the one line of damaged.

    Args:
        path: the file that the block reads and parses.

    Raises:
        UserError: in place of every error that values of another kind, shape or name cause. A
            UserError that names the file already passes as it is.
    """
    try:
        yield
    except UserError as error:
        raise error if str(path) in str(error) else damaged(path, error) from error
    except FileNotFoundError as error:
        raise UserError("there is no such file", got=path) from error
    except KeyError as error:
        raise damaged(path, f"it lacks {error}") from error
    except (
        OSError,
        ArithmeticError,
        AssertionError,
        AttributeError,
        EOFError,
        IndexError,
        MemoryError,
        NotImplementedError,
        RecursionError,
        RuntimeError,
        TypeError,
        ValueError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise damaged(path, str(error) or type(error).__name__) from error


def parse_json(content: bytes | str, path: Path) -> Any:
    """Return the values of a JSON text, at most MAX_JSON_DEPTH lists or objects deep.

    Args:
        content: the text, in UTF-8 when it is bytes; at most MAX_JSON_BYTES.
        path: the file that it was in, for the error.

    Raises:
        UserError: it is too long, too deep or no JSON.
    """
    with reading(path):
        if len(content) > MAX_JSON_BYTES:
            raise ValueError(f"more than {MAX_JSON_BYTES} bytes of JSON")
        values = json.loads(content)
        level = [values]
        for _ in range(MAX_JSON_DEPTH):
            inner = [v for v in level if isinstance(v, (dict, list))]
            level = [v for of in inner for v in (of.values() if isinstance(of, dict) else of)]
            if not level:
                return values
        raise ValueError(f"JSON nested more than {MAX_JSON_DEPTH} deep")


def read_json(path: Path) -> Any:
    """Return the values in a JSON file; see parse_json."""
    with reading(path):
        content = read_regular(path, MAX_JSON_BYTES)
    return parse_json(content, path)


def holds(path: Path, text: str) -> bool:
    """Return whether a file's content is this text. Raises UserError when it can't be read."""
    with reading(path):
        return read_regular(path, MAX_JSON_BYTES) == text.encode()


def check_keys(
    values: Any,
    wanted: Collection[str],
    path: Path,
    where: str = "its header",
    *,
    missing: bool = False,
) -> None:
    """Raise UserError unless values is a dict with the wanted keys and no others.

    Args:
        values: what was read.
        wanted: the names that must be there.
        path: the file, for the error.
        where: the part of the file that holds the values, for the error.
        missing: whether some may be missing.
    """
    if not isinstance(values, dict):
        raise damaged(path, f"{where} is {_kind(values)}, not names and values")
    if not missing and (lacking := [name for name in wanted if name not in values]):
        raise damaged(path, f"{where} lacks {lacking[0]!r}")
    if strange := [name for name in values if name not in wanted]:
        raise damaged(path, f"{where} holds {str(strange[0])[:60]!r}, which isn't known")


def check_array(
    arrays: dict[str, NDArray[Any]],
    name: str,
    path: Path,
    *,
    dtype: DTypeLike,
    shape: tuple[int | None, ...],
) -> NDArray[Any]:
    """Return the array of a name, checked.

    Args:
        arrays: what was read.
        name: of the array.
        path: the file, for the error.
        dtype: the type that it must have.
        shape: the sides that it must have, None for any length.

    Raises:
        UserError: it is missing, of another type or of another shape.
    """
    if name not in arrays:
        raise damaged(path, f"it lacks the array {name!r}")
    array = arrays[name]
    fits = len(array.shape) == len(shape) and all(
        wanted in (None, side) for side, wanted in zip(array.shape, shape, strict=True)
    )
    if array.dtype != np.dtype(dtype) or not fits:
        sides = ", ".join("any" if side is None else str(side) for side in shape)
        wanted_kind = f"{np.dtype(dtype)}[{sides}]"
        raise damaged(path, f"{name!r} is {array.dtype}{list(array.shape)}, not {wanted_kind}")
    return array


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of an NPZ file, after checking that its size can hold them.

    Args:
        path: the file.

    Returns:
        The arrays by name.

    Raises:
        UserError: the file is missing, damaged, holds Python objects, or states an array that is
            larger than what it holds of it.
    """
    arrays = {}
    with reading(path), open_regular(path) as file, zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            if member.file_size > _MAX_RATIO * member.compress_size + _MEMBER_HEADER:
                raise ValueError(f"{name!r} claims {member.file_size} bytes in too few")
            if name in arrays:
                raise ValueError(f"{name!r} stands in it twice")
            with archive.open(member) as stream:
                shape, dtype = _array_header(stream)
                size = math.prod(shape) * dtype.itemsize
                if dtype.hasobject or size > member.file_size or min(shape, default=0) < 0:
                    raise ValueError(f"{name!r} claims {dtype}{list(shape)}, which it doesn't hold")
            with archive.open(member) as stream:
                arrays[name] = np.lib.format.read_array(stream, allow_pickle=False)
    return arrays


def _array_header(stream: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    readers: dict[tuple[int, int], Callable[[Any], Any]] = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"an array of format {version}")
    shape, _, dtype = readers[version](stream)
    return shape, dtype


def _kind(value: object) -> str:
    kinds = {dict: "names and values", list: "a list", str: "a text", type(None): "null"}
    return kinds.get(type(value), "a number")
