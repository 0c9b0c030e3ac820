"""How changed pictures are shown: the columns, the change as a picture, certainty in words."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from unmask.fool.grid import Grid

_NEUTRAL, _SPAN = 0.5, 0.5
# On a grey picture: less is blue, more is red.
_LESS, _MORE = np.array([0.0, 0.31, 0.66]), np.array([0.72, 0.16, 0.0])
_PAPER = np.array([0.97, 0.97, 0.97])


def columns(grid: Grid) -> list[int]:
    """Return the classes that head the columns: those to pass for, and the pictures' own."""
    return sorted({*grid.targets.tolist(), *grid.labels.tolist()})


def magnification(grid: Grid) -> int:
    """Return by how much changes are magnified: half the pictures' largest ones fill the scale."""
    usual = float(np.median(grid.outcome.linf))
    return max(1, int(1 / max(usual, 1 / 255)))


def change_as_picture(grid: Grid, pair: int, times: int) -> NDArray[np.float32]:
    """Return a pair's change as a colour picture, float32[3, h, w] in [0, 1]: see tinted."""
    return tinted(grid.changed[pair] - grid.originals[grid.rows[pair]], times)


def tinted(change: NDArray[np.float32], times: int) -> NDArray[np.float32]:
    """Return a change, float32[c, h, w], as a colour picture, float32[3, h, w] in [0, 1].

    Of grey pictures, red is lighter than before and blue darker; of colour pictures each channel's
    change is laid on middle grey.
    """
    change = change * times
    if len(change) == 3:
        shown = _NEUTRAL + _SPAN * change
    else:
        part = np.clip(np.abs(change), 0, 1)
        end = np.where(change > 0, _MORE[:, None, None], _LESS[:, None, None])
        shown = _PAPER[:, None, None] * (1 - part) + end * part
    picture: NDArray[np.float32] = np.clip(shown, 0, 1).astype(np.float32)
    return picture
