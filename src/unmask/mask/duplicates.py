"""Pictures that are nearly the same: the second would be known from the first."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from unmask.data.annotated import AnnotatedPictures
from unmask.data.picture import open_picture
from unmask.errors import UserError

LEAST_CORRELATION = 0.99
_SIDE = 16
_ROWS = 1024


def duplicate_groups(annotated: AnnotatedPictures) -> NDArray[np.int64]:
    """Return int64[n], a number for each picture, the same for those that are nearly the same.

    Each picture is looked at as 16 x 16 grey values. One that can't be read is like no other.
    """
    looks = np.zeros((len(annotated), _SIDE * _SIDE))
    for i, path in enumerate(annotated.paths):
        try:
            picture = open_picture(path.read_bytes(), mode="L", enough=4 * _SIDE)
        except (UserError, OSError):
            continue
        looks[i] = np.asarray(picture.resize((_SIDE, _SIDE), reducing_gap=3.0)).ravel()
    return groups(looks, LEAST_CORRELATION)


def groups(rows: NDArray[np.floating[Any]], least: float) -> NDArray[np.int64]:
    """Return int64[n]: the index of the first row that each of the rows is linked to.

    rows: [n, d]. Two are linked when they correlate by least or more, or by way of others that do.
    A row of equal values correlates with none.
    """
    centred = rows - rows.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    unit = np.divide(centred, lengths, out=np.zeros_like(centred), where=lengths > 0)
    group = np.arange(len(rows))
    for start in range(0, len(rows), _ROWS):
        alike = unit[start : start + _ROWS] @ unit.T >= least
        for row, other in np.argwhere(alike):
            low, high = sorted((group[start + row], group[other]))
            group[group == high] = low
    return group
