"""Images by classes as a figure: each changed image, the change, and the confidence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from unmask.fool.grid import Grid
from unmask.report.figures.style import GRID, INK, MUTED, STYLES, legible, styled_figure
from unmask.text import percent

_FAILED = STYLES["elu"].light
_CELL = 0.92
_NEUTRAL, _SPAN = 0.5, 0.5
# In a grey image darker is blue and lighter is red.
_LESS, _MORE = np.array([0.0, 0.31, 0.66]), np.array([0.72, 0.16, 0.0])
_PAPER = np.array([0.97, 0.97, 0.97])


@styled_figure
def grid_figure(grid: Grid) -> Figure:
    """Return a row for each image: the image in each column's class, and the change below each.

    The column of an image's own class shows it unchanged.

    Args:
        grid: the images and their changes.
    """
    shown, times = columns(grid), magnification(grid)
    rows = len(grid.originals)
    width = max(_CELL * len(shown) + 0.9, 5.0)
    figure = Figure(figsize=(width, (2 * _CELL + 0.42) * rows + 0.75))
    figure.subplots_adjust(
        left=0.85 / width,
        right=1 - 0.05 / width,
        bottom=0.42 / figure.get_figheight(),
        top=1 - 0.33 / figure.get_figheight(),
        wspace=0.06,
    )
    outer = figure.add_gridspec(rows, 1, hspace=0.12)
    longest = max(len(legible(grid.class_names[k])) for k in shown)
    title = 10.5 if longest <= 8 else 8.0
    cells = {(r, t): i for i, (r, t) in enumerate(zip(grid.rows, grid.targets, strict=True))}
    for row in range(rows):
        axes = (
            outer[row].subgridspec(2, len(shown), hspace=0.24, wspace=0.06).subplots(squeeze=False)
        )
        for ax in axes.ravel():
            ax.set_axis_off()
        for (upper, lower), target in zip(axes.T, shown, strict=True):
            if row == 0:
                upper.set_title(legible(grid.class_names[target]), pad=6, fontsize=title)
            pair = cells.get((row, target))
            if pair is None and target == grid.labels[row]:
                _picture(upper, grid.originals[row], INK)
                caption = percent(grid.confidence[row])
                if grid.predicted[row] != target:
                    caption = f"as {legible(grid.class_names[grid.predicted[row]])}"
                _caption(upper, caption, failed=grid.predicted[row] != target)
                lower.text(
                    0.5,
                    0.5,
                    "unchanged",
                    ha="center",
                    va="center",
                    color=MUTED,
                    fontsize=7,
                    transform=lower.transAxes,
                )
            elif pair is not None:
                fooled = bool(grid.outcome.reached_saved[pair])
                _picture(upper, grid.changed[pair], GRID)
                caption = percent(grid.outcome.confidence[pair])
                if not fooled:
                    other = legible(grid.class_names[grid.outcome.predicted[pair]])
                    caption = f"{other} {caption}"
                _caption(upper, caption, failed=not fooled)
                _picture(lower, change_as_picture(grid, pair, times), GRID)
        label = axes[0, 0]
        label.text(
            -0.12,
            0.5,
            legible(grid.class_names[grid.labels[row]]),
            ha="right",
            va="center",
            fontweight="bold",
            fontsize=10.5,
            transform=label.transAxes,
        )
        axes[1, 0].text(
            -0.12,
            0.5,
            f"change\n× {times}",
            ha="right",
            va="center",
            color=MUTED,
            fontsize=7.5,
            transform=axes[1, 0].transAxes,
        )
    figure.text(
        0.5,
        0.1 / figure.get_figheight(),
        "Column: the predicted class. Below each image: the confidence in it.",
        ha="center",
        color=MUTED,
        fontsize=8.5,
    )
    return figure


def _picture(ax: Axes, pixels: NDArray[np.float32], edge: str) -> None:
    image = pixels.transpose(1, 2, 0)
    ax.imshow(image if image.shape[2] == 3 else image[..., 0], cmap="gray", vmin=0, vmax=1)
    frame = Rectangle((0, 0), 1, 1, transform=ax.transAxes, facecolor="none", edgecolor=edge)
    ax.add_patch(frame)


def _caption(ax: Axes, text: str, *, failed: bool) -> None:
    ax.text(
        0.5,
        -0.04,
        text,
        ha="center",
        va="top",
        fontsize=7.5,
        transform=ax.transAxes,
        color=_FAILED if failed else INK,
        fontweight="bold" if failed else "normal",
    )


@styled_figure
def faces_figure(
    faces: Sequence[tuple[NDArray[np.uint8], str, bool]], rows: Sequence[str]
) -> Figure:
    """Return faces column by column with captions below; a wrong prediction's caption is red.

    Args:
        faces: for each the pixels, uint8[3, h, w], a caption, and whether the prediction is right.
        rows: the titles of the rows.
    """
    count = -(-len(faces) // len(rows))
    figure = Figure(figsize=(1.5 * count + 1.3, 1.55 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), count, squeeze=False)
    for place, (pixels, caption, right) in enumerate(faces):
        ax = axes[place % len(rows), place // len(rows)]
        ax.set(xticks=[], yticks=[])
        ax.grid(visible=False)
        _picture(ax, (pixels / 255).astype(np.float32), GRID)
        _caption(ax, caption, failed=not right)
    for ax, title in zip(axes[:, 0], rows, strict=True):
        ax.set_ylabel(title, rotation=0, ha="right", va="center", fontsize=8)
    return figure


def columns(grid: Grid) -> list[int]:
    """Return the classes that head the columns: the target classes, and the images' own."""
    return sorted({*grid.targets.tolist(), *grid.labels.tolist()})


def magnification(grid: Grid) -> int:
    """Return the factor that magnifies changes: the median of the images' Linf fills the scale."""
    usual = float(np.median(grid.outcome.linf))
    return max(1, int(1 / max(usual, 1 / 255)))


def change_as_picture(grid: Grid, pair: int, times: int) -> NDArray[np.float32]:
    """Return a pair's change as a colour image, float32[3, h, w] in [0, 1]; see tinted."""
    return tinted(grid.changed[pair] - grid.originals[grid.rows[pair]], times)


def tinted(change: NDArray[np.float32], times: int) -> NDArray[np.float32]:
    """Return a change as a colour image.

    For grey images, red is lighter than before and blue darker; for colour images, each channel's
    change is added to middle grey.

    Args:
        change: float32[c, h, w] in [-1, 1].
        times: the factor that magnifies it.

    Returns:
        float32[3, h, w] in [0, 1].
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
