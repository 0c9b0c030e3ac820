"""MNIST, which ships inside the package."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from unmask.data.images import Images
from unmask.errors import UserError
from unmask.runtime import sha256

_ARCHIVE = Path(__file__).with_name("mnist.npz")
_SHA256 = "06af5dfe73b70e3bc1c36439982b18a8d76803db9b544f6fdf838a37fbb01b64"


def load_mnist() -> tuple[Images, Images]:
    """Return the 60000 training and the 10000 test images of MNIST.

    Y. LeCun, C. Cortes, C. Burges; CC BY-SA 3.0; see MNIST-LICENSE.txt.

    Returns:
        Training and test images, 1 x 28 x 28, with the classes "0" to "9".

    Raises:
        UserError: when the file that ships is missing or doesn't have its SHA-256.
    """
    repair = "install unmask again (pip install --force-reinstall --no-deps unmask)"
    try:
        content = _ARCHIVE.read_bytes()
    except OSError as error:
        raise UserError(f"can't read {_ARCHIVE}", got=error.strerror, do=repair) from error
    found = sha256(content)
    if found != _SHA256:
        raise UserError(
            f"{_ARCHIVE} is damaged",
            got=f"{len(content)} bytes with SHA-256 {found[:12]}... and not {_SHA256[:12]}...",
            do=repair,
        )
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return _images(arrays, "train"), _images(arrays, "test")


def _images(arrays: Any, part: str) -> Images:
    return Images(
        pixels=arrays[f"x_{part}"][:, np.newaxis],
        labels=arrays[f"y_{part}"].astype(np.int64),
        class_names=tuple("0123456789"),
        name=f"MNIST {part}",
    )
