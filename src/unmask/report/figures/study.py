"""The figures of the study, each a function from results to a figure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator
from numpy.typing import NDArray

from unmask.coursework.study.comparison import LEFT, RIGHT, learning_curves, median_curve
from unmask.coursework.study.outcomes import cells
from unmask.coursework.study.profiles import Profile
from unmask.coursework.study.run import Study
from unmask.models.activations import activation as activation_named
from unmask.report.figures.style import INK, MUTED, PAPER, STYLES, Style, styled_figure
from unmask.text import power_of_ten

_WIDE, _NARROW = 10.0, 4.4
_CHANCE = (0, (2, 2))
_PERFECT = 0.002
_UPRIGHT_NAMES = 5
_LOSS_UNITS = {"cross_entropy": "nats", "half_squared": "half the sum of squares"}
_PREFIXES = {"training": "train", "validation": "validation"}
_PARTS: tuple[tuple[str, Any, float], ...] = (
    ("training", (0, (4, 2)), 1.2),
    ("validation", "-", 1.8),
)


def study_figures(study: Study, *, columns: int = 3) -> dict[str, Figure]:
    """Return every figure of the study by its file name, in the order of the page."""
    pair = [p for p in study.profiles_after if p.activation in (LEFT, RIGHT)]
    figures = {
        "accuracy": accuracy_figure(study, columns=columns),
        "gradients-trained": gradient_figure(study.profiles_after, columns=columns),
        "gradients-start": gradient_figure(study.profiles_start, columns=columns),
    }
    if study.comparison:
        figures["tanh-lecun-curves"] = curves_figure(study, columns=columns)
        figures["tanh-lecun-gradients"] = gradient_figure(pair, columns=columns)
    return figures


@styled_figure
def accuracy_figure(study: Study, *, columns: int = 3) -> Figure:
    """Return the test accuracy of every seed beside the report's, one panel for each depth."""
    accuracy = study.history.test["test_accuracy"]
    rows = cells(study.history)
    names = study.plan.activations
    figure, panels = _panels(study.plan.depths, columns, height=2.9)
    for depth, ax in panels:
        ax.axhline(study.chance, color=MUTED, linewidth=1, linestyle=_CHANCE, zorder=1)
        for x, name in enumerate(names):
            seeds = accuracy[rows[depth, name]]
            # Seeds of one cell lie side by side, so that equal ones can be distinguished.
            offsets = np.linspace(-0.24, 0.24, len(seeds) + 2)[1:-1]
            ax.plot(x + offsets, seeds, zorder=3, **_dots(STYLES[name]))
        told = {o.activation: o.document for o in study.outcomes if o.depth == depth}
        for name, run in told.items():
            if run is not None:
                x = names.index(name)
                ax.plot([x - 0.38, x + 0.38], 2 * [run.test_accuracy], color=INK, linewidth=1.4)
        ax.set(xlim=(-0.6, len(names) - 0.4), ylim=(0, 1.03))
        ax.set_xticks(range(len(names)), [activation_named(n).title for n in names])
        if len(names) > _UPRIGHT_NAMES:
            ax.tick_params(axis="x", labelrotation=90)
        ax.grid(axis="x", visible=False)
    _label(panels, columns, y="test accuracy")
    keys = [
        Line2D([], [], **{**_dots(STYLES["tanh"]), "color": MUTED}),
        Line2D([], [], color=INK, linewidth=1.4),
        Line2D([], [], color=MUTED, linewidth=1, linestyle=_CHANCE),
    ]
    titles = ["one of our seeds", "the report's run", "always naming the commonest class"]
    _legend(figure, keys, titles, columns, stacked=True)
    return figure


@styled_figure
def gradient_figure(profiles: Sequence[Profile], *, columns: int = 3) -> Figure:
    """Return the largest gradient of every layer, one panel for each depth.

    There is one curve for each activation: thick for the median over seeds, thin for every seed. A
    gradient that is exactly zero can't be drawn on a logarithmic axis; it is drawn on a separate
    line at the bottom.

    Args:
        profiles: of any depths and activations.
        columns: panels side by side.
    """
    names = list(dict.fromkeys(p.activation for p in profiles))
    figure, panels = _panels(list(dict.fromkeys(p.depth for p in profiles)), columns, height=3.1)
    scale = _LogScale.of([p.measured for p in profiles])
    for depth, ax in panels:
        layers = np.arange(1, depth + 2)
        for profile in (p for p in profiles if p.depth == depth and len(p.measured)):
            style = STYLES[profile.activation]
            for seed in profile.measured if len(profile.measured) > 1 else ():
                ax.plot(layers, scale.shown(seed), color=style.light, linewidth=0.6, alpha=0.5)
            ax.plot(
                layers,
                scale.shown(profile.median),
                color=style.light,
                linestyle=style.line,
                linewidth=1.8,
                markevery=_every(depth + 1, names.index(profile.activation), len(names)),
                **_marks(style),
            )
        ax.set_xlim(1 - 0.03 * depth, 1 + 1.03 * depth)
        ax.set_xticks(_ticks(depth + 1))
        scale.apply(ax)
    _label(panels, columns, x="layer (1 at the input, last: softmax)", y="largest |dE/dw|")
    _legend(figure, *_activation_keys(names), columns)
    return figure


@styled_figure
def curves_figure(study: Study, *, columns: int = 3) -> Figure:
    """Return the learning curves of tanh and LeCun's activation, accuracy and loss by depth.

    Lines are medians over seeds; bands reach from the lowest seed to the highest.

    Args:
        study: with at least one depth that has both activations.
        columns: panels side by side.
    """
    depths = [c.depth for c in study.comparison]
    figure, panels = _panels(depths, columns, height=2.6, rows_each=2)
    halves = len(panels) // 2
    loss_label = f"loss ({_LOSS_UNITS[study.plan.loss]})"
    for quantity, label, group in (
        ("accuracy", "accuracy", panels[:halves]),
        ("loss", loss_label, panels[halves:]),
    ):
        for depth, ax in group:
            for name in (LEFT, RIGHT):
                _draw_curves(ax, learning_curves(study.history, depth, name), quantity, name)
            ax.set_xticks(_ticks(study.plan.epochs))
            _SCALES[quantity](ax)
        _label(group, columns, x="epoch", y=label)
    keys, titles = _activation_keys((LEFT, RIGHT), line="-")
    for part, line, width in _PARTS:
        keys.append(Line2D([], [], color=INK, linestyle=line, linewidth=width))
        titles.append(part)
    _legend(figure, keys, titles, columns)
    return figure


@dataclass(frozen=True)
class _LogScale:
    """A logarithmic axis from smallest to largest, with a line for values that are exactly zero."""

    smallest: float
    largest: float
    has_zero: bool

    @staticmethod
    def of(arrays: Sequence[NDArray[np.float64]]) -> _LogScale:
        values = np.concatenate([a.ravel() for a in arrays])
        positive = values[values > 0]
        smallest, largest = (positive.min(), positive.max()) if len(positive) else (0.1, 1.0)
        return _LogScale(float(smallest), float(largest), bool((values == 0).any()))

    @property
    def exponents(self) -> range:
        """Return the decades to label, about seven of them, highest first."""
        low, high = math.floor(math.log10(self.smallest)), math.ceil(math.log10(self.largest))
        return range(high, low - 1, -max(1, math.ceil((high - low) / 7)))

    @property
    def floor(self) -> float:
        """Return where zero is drawn."""
        return float(10.0 ** (math.log10(self.smallest) + 1.1 * self.exponents.step))

    def shown(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where(values == 0, self.floor, values)

    def apply(self, ax: Axes) -> None:
        ax.set_yscale("log")
        exponents = self.exponents
        if not self.has_zero and self.largest < 1000 * self.smallest:
            ax.set_ylim(self.smallest / 1.3, self.largest * 1.3)
            _one_two_five(ax)
            return
        ticks = [10.0**e for e in exponents]
        labels = [power_of_ten(e) for e in exponents]
        if self.has_zero:
            ticks = [
                *(t for t in ticks if t > self.floor * 10 ** (-exponents.step / 2)),
                self.floor,
            ]
            labels = [*labels[: len(ticks) - 1], "exactly 0"]
            ax.axhline(self.floor, color=MUTED, linewidth=0.8, linestyle=(0, (1, 2)), zorder=1)
        ax.set_yticks(ticks, labels)
        ax.set_yticks([], minor=True)
        bottom = min(ticks[-1], self.smallest) * 10 ** (0.2 * exponents.step)
        ax.set_ylim(bottom, ticks[0] * 10 ** (-0.2 * exponents.step))


def _panels(
    depths: Sequence[int], columns: int, *, height: float, rows_each: int = 1
) -> tuple[Figure, list[tuple[int, Axes]]]:
    """Return a figure and its panels, one for each depth, height inches high, in columns.

    The whole set of panels is repeated rows_each times, one set below the other, each with its own
    vertical axis.
    """
    columns = min(columns, len(depths))
    rows = math.ceil(len(depths) / columns)
    width = _NARROW if columns == 1 else _WIDE * (columns + 0.3) / 3.3
    figure = Figure(figsize=(width, rows_each * rows * height + 0.4), layout="constrained")
    panels: list[tuple[int, Axes]] = []
    grid = figure.add_gridspec(rows_each * rows, columns)
    for turn in range(rows_each):
        first: Axes | None = None
        for i, depth in enumerate(depths):
            place = grid[turn * rows + i // columns, i % columns]
            ax = figure.add_subplot(place, sharey=first)
            first = first or ax
            ax.tick_params(labelleft=i % columns == 0)
            ax.set_title(f"{depth} hidden layer{'s' * (depth > 1)}")
            panels.append((depth, ax))
    return figure, panels


def _label(panels: Sequence[tuple[int, Axes]], columns: int, *, x: str = "", y: str) -> None:
    columns = min(columns, len(panels))
    for i, (_, ax) in enumerate(panels):
        ax.set_ylabel(y if i % columns == 0 else "", rotation_mode="anchor")
        ax.set_xlabel(x)


def _draw_curves(
    ax: Axes, curves: dict[str, NDArray[np.float32]], quantity: str, name: str
) -> None:
    style = STYLES[name]
    for part, line, width in _PARTS:
        values = curves[f"{_PREFIXES[part]}_{quantity}"]
        epochs = np.arange(1, values.shape[1] + 1)
        # fmin and fmax ignore NaN, and give no warning where there is nothing else.
        low, high = np.fmin.reduce(values, axis=0), np.fmax.reduce(values, axis=0)
        ax.fill_between(epochs, low, high, color=style.light, alpha=0.14, linewidth=0)
        ax.plot(
            epochs,
            median_curve(values),
            color=style.light,
            linestyle=line,
            linewidth=width,
            markevery=_every(len(epochs), (LEFT, RIGHT).index(name), 2),
            **_marks(style),
        )


def _stretch_accuracy(ax: Axes) -> None:
    """Give 0.9 to 0.99 as much room as 0 to 0.9, with a finite place for a perfect score."""
    ax.set_yscale(
        "function",
        functions=(
            lambda a: -np.log10(np.maximum(1 + _PERFECT - a, _PERFECT / 10)),
            lambda t: 1 + _PERFECT - 10.0 ** -np.asarray(t),
        ),
    )
    ax.yaxis.set_major_locator(FixedLocator([0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 1]))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda a, _: f"{a:g}"))
    ax.yaxis.set_minor_locator(NullLocator())


def _log_loss(ax: Axes) -> None:
    ax.set_yscale("log")
    _one_two_five(ax)


def _one_two_five(ax: Axes) -> None:
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_minor_locator(NullLocator())


_SCALES: dict[str, Callable[[Axes], None]] = {"accuracy": _stretch_accuracy, "loss": _log_loss}


def _legend(
    figure: Figure, keys: list[Line2D], titles: list[str], columns: int, *, stacked: bool = False
) -> None:
    across = min(len(keys), 6) if columns > 1 else 1 if stacked else 2
    figure.legend(keys, titles, loc="outside upper center", ncols=across, handlelength=3.4)


def _activation_keys(
    names: Iterable[str], line: Literal["-"] | None = None
) -> tuple[list[Line2D], list[str]]:
    keys, titles = [], []
    for name in names:
        style = STYLES[name]
        key = Line2D([], [], color=style.light, linestyle=line or style.line, linewidth=1.8)
        key.set(**_marks(style))
        keys.append(key)
        titles.append(activation_named(name).title)
    return keys, titles


def _marks(style: Style) -> dict[str, Any]:
    return {
        "marker": style.marker,
        "markersize": 5.2,
        "markeredgecolor": PAPER,
        "markeredgewidth": 0.6,
    }


def _dots(style: Style) -> dict[str, Any]:
    return {**_marks(style), "markersize": 6.2, "color": style.light, "linestyle": "none"}


def _every(count: int, turn: int, turns: int) -> tuple[int, int]:
    """Return the first marker and the step between markers, which alternate along the curves.

    Curves that coincide can still be distinguished, since each marks other points.
    """
    step = max(1, round(count / 7))
    return round(step * turn / turns) % step, step


def _ticks(last: int) -> list[int]:
    """Return 1, last, and round numbers between them that leave enough room."""
    step = next((s for s in (1, 2, 5, 10, 20, 50, 100) if last / s <= 6), math.ceil(last / 6))
    between = (n for n in range(step, last, step) if n - 1 >= step / 2 and last - n > step / 2)
    return sorted({1, *between, last})
