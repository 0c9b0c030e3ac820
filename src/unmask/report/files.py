"""The files of a report: one writer, and the conversion of figures and tables to bytes."""

from __future__ import annotations

import base64
import csv
import io
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unmask.runtime import claim_folder, write_atomically
from unmask.text import as_cell

Content = str | bytes
# Control characters that JSON needn't escape, and those that change the direction of text.
_CONTROLS = re.compile("[\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def write_files(folder: Path, files: Mapping[str, Content]) -> list[Path]:
    """Write files into a folder, each completely or not at all.

    Args:
        folder: where they go; created if it doesn't exist.
        files: the contents by name; text as UTF-8. A name may have folders of its own.

    Returns:
        The paths, in the same order.

    Raises:
        UserError: when the folder can't be written.
    """
    for name, content in files.items():
        with write_atomically(folder / name) as file:
            file.write(content.encode() if isinstance(content, str) else content)
    return [folder / name for name in files]


def require_writable(folder: Path, data: str = "") -> None:
    """Create the folder if it doesn't exist and claim it for this process.

    Args:
        folder: where files will go.
        data: the images that are read, in whose folder reports would be taken for images.

    Raises:
        UserError: when files can't be written there, it lies in the folder of the images, or
            another run writes into it.
    """
    claim_folder(folder, data)
    (probe,) = write_files(folder, {".writable": b"?"})
    probe.unlink()


def plain(value: Any) -> Any:
    """Return the value as plain JSON values: arrays as lists, non-finite numbers as None."""
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(v) for v in value]
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, (float, np.floating)):
        # Through the text, so that a float32 of 0.1135 is not written as 0.11349999904632568.
        return float(str(value)) if math.isfinite(value) else None
    return value


def to_json(value: Any, *, indent: int | None = None) -> str:
    """Return the value as JSON that every reader accepts: no NaN, no infinity, no lone surrogates.

    Args:
        value: plain values, arrays and tuples.
        indent: spaces for each level, None for a single line.
    """
    text = json.dumps(plain(value), allow_nan=False, ensure_ascii=False, indent=indent)
    # JSON may hold these unescaped, but terminals obey them.
    text = _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    # A lone surrogate, which names of files may hold, is written as JSON's escape.
    return text.encode("utf-8", "backslashreplace").decode()


def to_csv(rows: Iterable[Sequence[Any]]) -> str:
    """Return the rows as CSV.

    Args:
        rows: the values; None and numbers that are not finite become empty cells, and a text that a
            spreadsheet would calculate gets an apostrophe before it (CWE-1236).
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([_cell(plain(value)) for value in row] for row in rows)
    return text.getvalue()


def data_uri(content: Content, media: str = "image/png") -> str:
    """Return a file's content as a data URI.

    Args:
        content: an SVG's text, or bytes.
        media: the media type of bytes.
    """
    if isinstance(content, str):
        content, media = content.encode(), "image/svg+xml"
    return f"data:{media};base64,{base64.b64encode(content).decode()}"


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    return as_cell(value) if isinstance(value, str) else value
