"""The figures of one classifier: its structure, its confusions, its calibration, its mistakes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, PercentFormatter

from unmask.data.images import Images
from unmask.models.summary import LayerSummary
from unmask.report.figures.style import GRID, MUTED, PAPER, STYLES, legible, styled_figure
from unmask.stats import wilson
from unmask.train.evaluation import Evaluation

# Fewer images have ticks between the powers of ten.
_FEW = 100
_MOST_NUMBERS = 20
_FIRST, _SECOND = STYLES["tanh"], STYLES["relu"]


def evaluation_figures(found: Evaluation, images: Images, *, worst: int) -> dict[str, Figure]:
    """Return the figures by name; the one of the worst mistakes is missing where there is none."""
    figures = {"confusion": confusion_figure(found), "calibration": calibration_figure(found)}
    if len(found.worst(worst)):
        figures["mistakes"] = mistakes_figure(found, images, count=worst)
    return figures


@styled_figure
def network_figure(layers: Sequence[LayerSummary], input_shape: tuple[int, ...]) -> Figure:
    """Return the network from left to right, and each layer's fraction of the parameters and costs.

    Layers that neither change the shape nor hold parameters (such as activations) are left out.

    Args:
        layers: in order.
        input_shape: channels, height and width of an image.
    """
    shapes = [input_shape, *(layer.output for layer in layers)]
    shown = [
        layer
        for before, layer in zip(shapes, layers, strict=False)
        if layer.parameters or layer.output != before
    ]
    places = np.arange(len(shown) + 1)
    figure = Figure(figsize=(max(6.0, 0.75 * len(places) + 1.5), 5.2), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(1.25, 1))
    names = ["input", *(layer.kind for layer in shown)]
    outputs = [input_shape, *(layer.output for layer in shown)]
    tallest = max(math.sqrt(math.prod(s[1:])) for s in outputs)
    for x, shape in zip(places, outputs, strict=True):
        side = math.sqrt(math.prod(shape[1:])) if len(shape) == 3 else 1.0
        width = 0.12 + 0.62 * min(1.0, math.log2(1 + shape[0]) / 11)
        height = max(side / tallest, 0.03)
        style = {"facecolor": _FIRST.light, "edgecolor": PAPER, "alpha": 0.85}
        top.add_patch(Rectangle((x - width / 2, -height / 2), width, height, **style))  # type: ignore[arg-type]
        text = " × ".join(str(v) for v in shape)
        top.text(x, height / 2 + 0.04, text, ha="center", va="bottom", fontsize=8, rotation=35)
    top.set(ylim=(-0.55, 0.95), xlim=(-0.8, len(shown) + 0.8))
    top.set_title("shape after each layer (height: side of the map, width: channels)")
    top.set_axis_off()
    for offset, counts, label, look in (
        (-0.2, [layer.parameters for layer in shown], "parameters", _FIRST),
        (0.2, [layer.multiply_adds for layer in shown], "multiply-adds", _SECOND),
    ):
        total = max(sum(counts), 1)
        bottom.bar(
            places[1:] + offset,
            [c / total for c in counts],
            width=0.38,
            label=f"{label}, {sum(counts):,} in all",
            color=look.light,
            hatch=None if look is _FIRST else "///",
            edgecolor=PAPER,
        )
    bottom.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    bottom.set_ylabel("part of the whole")
    bottom.set_xticks(places, names, rotation=45, ha="right", rotation_mode="anchor")
    bottom.grid(axis="x", visible=False)
    bottom.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0)
    return figure


@styled_figure
def confusion_figure(found: Evaluation) -> Figure:
    """Return the confusion matrix: images by true class (row) and predicted class (column).

    Mistakes are shaded by the root of their number, so that a few among many are visible; correct
    predictions are outlined.

    Args:
        found: the evaluation.
    """
    names = [legible(name) for name in found.class_names]
    k = len(names)
    wrong = found.confusion.astype(float)
    np.fill_diagonal(wrong, 0)
    side = min(max(3.2, 0.46 * k + 1.6), 10.0)
    figure = Figure(figsize=(side, side), layout="constrained")
    ax = figure.subplots()
    ax.imshow(np.sqrt(wrong), cmap="Oranges", vmin=0, vmax=max(1.0, np.sqrt(wrong.max()) * 1.4))
    for row in range(k):
        box = (row - 0.5, row - 0.5)
        ax.add_patch(Rectangle(box, 1, 1, facecolor="none", edgecolor=MUTED, linewidth=0.9))
        for column in range(k):
            count = int(found.confusion[row, column])
            if k <= _MOST_NUMBERS and count:
                weight = "bold" if row == column else "normal"
                ax.text(
                    column,
                    row,
                    str(count),
                    ha="center",
                    va="center",
                    fontsize=8,
                    fontweight=weight,
                )
    turned: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    short = max(len(name) for name in names) <= 3
    ax.set_xticks(range(k), names, **({} if short else turned))
    ax.set_yticks(range(k), names)
    ax.set(xlabel="predicted class", ylabel="true class")
    ax.grid(visible=False)
    return figure


@styled_figure
def calibration_figure(found: Evaluation) -> Figure:
    """Return accuracy against confidence, and how many images have it.

    Vertical lines are 95 % confidence intervals (Wilson, 1927).

    Args:
        found: the evaluation.
    """
    figure = Figure(figsize=(4.6, 5.0), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    sure, right, count = (np.array(v) for v in zip(*found.calibration, strict=True))
    low, high = zip(
        *(wilson(round(r * n), int(n)) for r, n in zip(right, count, strict=True)), strict=True
    )
    top.vlines(sure, low, high, color=_FIRST.light, linewidth=1, alpha=0.6)
    top.plot(
        [0, 1],
        [0, 1],
        color=MUTED,
        linewidth=1,
        linestyle=(0, (2, 2)),
        label="if it were calibrated",
    )
    top.plot(
        sure,
        right,
        color=_FIRST.light,
        marker="o",
        linewidth=1.6,
        markeredgecolor=PAPER,
        label=f"measured (calibration error {found.calibration_error:.3f})",
    )
    top.set(ylim=(-0.02, 1.02), ylabel="accuracy")
    top.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0)
    bottom.bar(sure, count, width=0.045, color=_FIRST.light, edgecolor=PAPER)
    bottom.set_yscale("log")
    bottom.yaxis.set_major_locator(
        LogLocator(subs=(1, 2, 5) if count.max() < _FEW else (1,), numticks=9)
    )
    bottom.yaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}" if x >= 1 else ""))
    # Few images leave room between the powers of ten, which would be labelled by formulas.
    bottom.yaxis.set_minor_formatter(NullFormatter())
    # A bar of a single image is visible too.
    bottom.set_ylim(bottom=0.5)
    bottom.set(xlim=(0, 1.02), xlabel="confidence", ylabel="images")
    return figure


@styled_figure
def mistakes_figure(found: Evaluation, images: Images, *, count: int) -> Figure:
    """Return the mistakes with the highest confidence, worst first."""
    worst = found.worst(count)
    columns = 5
    rows = max(1, math.ceil(len(worst) / columns))
    figure = Figure(figsize=(8.0, 1.9 * rows + 0.1), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes:
        ax.set_axis_off()
    for ax, i in zip(axes, worst, strict=False):
        _picture(ax, images.pixels[i])
        true, predicted = (
            legible(found.class_names[c]) for c in (found.labels[i], found.predictions[i])
        )
        ax.set_title(
            f"{true}, predicted {predicted}\nconfidence {found.confidence[i]:.1%}",
            fontsize=8,
            fontweight="normal",
        )
    return figure


def _picture(ax: Axes, pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> None:
    image = pixels.transpose(1, 2, 0)
    ax.imshow(image if len(pixels) == 3 else image[..., 0], cmap="gray", vmin=0, vmax=255)
    ax.add_patch(Rectangle((0, 0), 1, 1, transform=ax.transAxes, facecolor="none", edgecolor=GRID))
