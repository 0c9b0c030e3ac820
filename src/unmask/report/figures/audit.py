"""The figures of an audit: accuracy by size of change, pairs of classes, adversarial examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from unmask.data.images import Images
from unmask.fool.audit.result import Audit
from unmask.report.figures.style import GRID, MUTED, PAPER, STYLES, legible, styled_figure
from unmask.report.notation import NORMS

_LOOKS = (STYLES["tanh"], STYLES["relu"], STYLES["sigmoid"])
_MOST_NUMBERS = 12
MATRICES = {
    "success": "reached",
    "l2": "L2 of the change",
    "linf": "L∞ of the change",
    "similarity": "SSIM",
}


@styled_figure
def curve_figure(audits: Sequence[Audit], *, narrow: bool = False) -> Figure:
    """Return robust accuracy by the size of the change."""
    figure = Figure(figsize=(4.6, 4.0) if narrow else (8.2, 4.2), layout="constrained")
    ax = figure.subplots()
    end = max(found.reach for found in audits)
    for found, look in zip(audits, _LOOKS, strict=False):
        sizes, parts = found.curve(end)
        ax.plot(
            sizes,
            parts,
            color=look.light,
            linestyle=look.line,
            linewidth=2,
            label=found.model,
        )
        for eps in found.plan.eps:
            share = found.robust(eps)
            low, high = share.interval
            ax.errorbar(
                eps,
                share.value,
                yerr=[[max(share.value - low, 0)], [max(high - share.value, 0)]],
                color=look.light,
                marker=look.marker,
                markersize=7,
                markeredgecolor=PAPER,
                capsize=3,
                linestyle="none",
            )
    norm = audits[0].plan.norm
    for eps in audits[0].plan.eps:
        ax.axvline(eps, color=MUTED, linewidth=0.8, linestyle=(0, (2, 2)))
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    unit = "number of values" if norm == "l0" else "pixels in 0 to 1"
    ax.set(ylim=(-0.02, 1.02), xlabel=f"{NORMS[norm]} of the change, {unit}")
    ax.set_xlim(left=0)
    ax.set_ylabel("still classified right" if narrow else "images still classified right")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=1 if narrow else 3, borderaxespad=0.2)
    return figure


@styled_figure
def pairs_figure(found: Audit) -> Figure:
    """Return the matrices by true class (row) and predicted class (column)."""
    shown = found.shown_classes()
    names = [legible(found.class_names[c]) for c in shown]
    k = len(names)
    side = min(max(2.8, 0.37 * k + 0.9), 7.0)
    figure = Figure(figsize=(2 * side + 0.4, 2 * side + 0.4), layout="constrained")
    short = max(len(name) for name in names) <= 3
    turned: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    for ax, (name, title) in zip(figure.subplots(2, 2).ravel(), MATRICES.items(), strict=True):
        table = found.matrix(name)[np.ix_(shown, shown)]
        _heat(ax, table, small_is_easy=name in ("l2", "linf"))
        ax.set_title(title)
        ax.set_xticks(range(k), names, **({} if short else turned))
        ax.set_yticks(range(k), names)
        ax.set(xlabel="predicted class", ylabel="true class")
        ax.grid(visible=False)
    return figure


@styled_figure
def examples_figure(found: Audit, images: Images) -> Figure:
    """Return the smallest change of each class: the image, the change, and the changed image."""
    count = len(found.examples)
    columns = max(count, 1)
    figure = Figure(figsize=(min(0.92 * columns + 0.7, 11.0), 3.5), layout="constrained")
    axes = figure.subplots(3, columns, squeeze=False)
    place = {int(row): i for i, row in enumerate(found.worst.rows)}
    for column in range(count):
        row = int(found.example_rows[column])
        i = place[row]
        before, after = images.pixels[row], found.examples[column]
        change = (after.astype(np.int16) - before) / 255
        _show(axes[0, column], before)
        _change(axes[1, column], change)
        _show(axes[2, column], after)
        _caption(axes[0, column], legible(found.class_names[found.worst.labels[i]]))
        size = found.worst.size[i]
        _caption(axes[1, column], f"{size:.3f}" if size < 1 else f"{size:.2f}")
        sure = f"{found.worst.confidence[i]:.0%}"
        _caption(axes[2, column], f"{legible(found.class_names[found.worst.predicted[i]])}, {sure}")
    for ax, name in zip(axes[:, 0], ("true", NORMS[found.plan.norm], "predicted"), strict=True):
        ax.set_ylabel(name, rotation=0, ha="right", va="center")
    return figure


def _heat(ax: Axes, table: NDArray[np.float64], *, small_is_easy: bool) -> None:
    shown = np.ma.masked_invalid(table)
    empty = not np.isfinite(table).any()
    low, high = (0.0, 1.0) if empty else (float(np.nanmin(table)), float(np.nanmax(table)))
    spread = max(high - low, 1e-9)
    # Dark is where the model is easily fooled by small changes, and never too dark to read numbers.
    ax.imshow(
        shown,
        cmap="Oranges_r" if small_is_easy else "Oranges",
        vmin=low - 0.7 * spread if small_is_easy else low,
        vmax=high if small_is_easy else high + 0.7 * spread,
    )
    k = len(table)
    if k > _MOST_NUMBERS:
        return
    for row in range(k):
        for column in range(k):
            value = table[row, column]
            if np.isfinite(value):
                ax.text(column, row, _figure(value), ha="center", va="center", fontsize=7)


def _figure(value: float) -> str:
    if value >= 9.95:
        return f"{value:.0f}"
    text = f"{value:.2f}" if value < 1 else f"{value:.1f}"
    return text.removeprefix("0") if value < 1 else text


def _show(ax: Axes, pixels: NDArray[np.uint8]) -> None:
    image = pixels.transpose(1, 2, 0)
    ax.imshow(image if len(pixels) == 3 else image[..., 0], cmap="gray", vmin=0, vmax=255)
    _frame(ax)


def _change(ax: Axes, change: NDArray[np.float64]) -> None:
    largest = float(np.abs(change).max()) or 1.0
    image = change.transpose(1, 2, 0) / largest
    if len(change) == 3:
        ax.imshow(0.5 + image / 2)
    else:
        ax.imshow(image[..., 0], cmap="PuOr", vmin=-1, vmax=1)
    _frame(ax)


def _frame(ax: Axes) -> None:
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.grid(visible=False)
    ax.add_patch(Rectangle((0, 0), 1, 1, transform=ax.transAxes, facecolor="none", edgecolor=GRID))


def _caption(ax: Axes, text: str) -> None:
    ax.set_title(text, fontsize=8, fontweight="normal", pad=2.5)
