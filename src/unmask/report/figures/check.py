"""The signal that flows through a network, layer by layer, over the theory's prediction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from unmask.flow.check import FlowCheck
from unmask.flow.measure.statistics import FlowStats
from unmask.flow.profile import NoPrediction, Prediction
from unmask.flow.theory.gaussian import Floats
from unmask.report.figures.style import INK, MUTED, PAPER, STYLES, Style, styled_figure

BAND = 2.0
_START, _END = STYLES["tanh"], STYLES["relu"]


@styled_figure
def profile_figure(
    check: FlowCheck, prediction: Prediction | NoPrediction, *, narrow: bool = False
) -> Figure:
    """Return the RMS of dE/dW, and of the layers' outputs, by layer on a logarithmic axis.

    Args:
        check: what was measured; drawn, where there is no prediction, at the first step and at the
            last.
        prediction: drawn as the measured values over the expected ones with a band of BAND standard
            deviations, and as the ratio of the two, since a band can be too narrow to see.
        narrow: whether the panels lie one below the other.
    """
    panels = 3 if isinstance(prediction, Prediction) else 2
    size = (4.8, 3.2 * panels + 0.4) if narrow else (10.0, 3.6)
    figure = Figure(figsize=size, layout="constrained")
    all_axes = figure.subplots(*((panels, 1) if narrow else (1, panels)))
    for axes in all_axes:
        axes.set_yscale("log")
    if isinstance(prediction, Prediction):
        _draw_prediction(all_axes, prediction)
    else:
        _draw_steps(all_axes[0], all_axes[1], check)
    for axes in all_axes:
        axes.set_xlabel("layer, from the input")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, steps=[1, 2, 5, 10]))
        axes.set_xlim(0.4, len(check.history[0].matrix_layers) + 0.6)
        _scale(axes)
    all_axes[0].set_ylabel("root mean square")
    keys, titles = all_axes[0].get_legend_handles_labels()
    figure.legend(keys, titles, loc="outside upper center", ncols=3, handlelength=2.6)
    return figure


def _draw_prediction(panels: Sequence[Axes], found: Prediction) -> None:
    e = found.expected
    gradient = (e.gradient_rms, e.gradient_spread, found.gradient_rms)
    ratio = (np.ones_like(e.gradient_rms), e.gradient_spread, found.gradient_rms / e.gradient_rms)
    forward = (e.activation_rms, e.activation_spread, found.activation_rms)
    titles = ("Backward: dE/dW", "dE/dW, relative to theory", "Forward: the output of f")
    for axes, title, drawn in zip(panels, titles, (gradient, ratio, forward), strict=True):
        axes.set_title(title, loc="left")
        _draw_over(axes, *drawn)


def _draw_over(axes: Axes, expected: Floats, spread: Floats, measured: Floats) -> None:
    known = np.isfinite(spread)
    places, rms = np.arange(1, len(expected) + 1)[known], expected[known]
    factor = 10 ** (BAND * spread[known])
    label = f"± {BAND:g} standard deviations"
    axes.fill_between(
        places, rms / factor, rms * factor, color=MUTED, alpha=0.28, linewidth=0, label=label
    )
    axes.plot(places, rms, color=INK, linewidth=1.3, label="theory")
    values = np.where(measured[known] > 0, measured[known], np.nan)
    axes.plot(places, values, label="measured", **{**_marks(_START), "linestyle": "none"})


def _draw_steps(backward: Axes, forward: Axes, check: FlowCheck) -> None:
    backward.set_title("Backward: dE/dW", loc="left")
    forward.set_title("Forward: z = Wx + b", loc="left")
    shown = [(check.history[0], _START, "at the start")]
    if len(check.history) > 1:
        last = check.history[-1]
        shown.append((last, _END, f"at step {last.step + 1}"))
    for stats, style, label in shown:
        for axes, values in zip((backward, forward), _measured(stats), strict=True):
            places = np.arange(1, len(values) + 1)
            # Zero can't be drawn on a logarithmic axis.
            known = [v if v is not None and v > 0 else np.nan for v in values]
            axes.plot(places, known, label=label, **_marks(style))


def _measured(stats: FlowStats) -> tuple[Sequence[float | None], Sequence[float | None]]:
    layers = stats.matrix_layers
    return (
        [x.weight_gradient.rms if x.weight_gradient else None for x in layers],
        [x.output.rms if x.output else None for x in layers],
    )


def _marks(style: Style) -> dict[str, Any]:
    return {
        "color": style.light,
        "linestyle": style.line,
        "marker": style.marker,
        "markersize": 5.6,
        "markeredgecolor": PAPER,
        "markeredgewidth": 0.6,
    }


def _scale(axes: Axes) -> None:
    """Show at least a factor of five, so that noise doesn't look like a trend, and label it."""
    low, high = axes.get_ylim()
    missing = np.sqrt(max(5 * low / high, 1.0))
    low, high = low / missing, high * missing
    axes.set_ylim(low, high)
    axes.yaxis.set_minor_locator(NullLocator())
    if high < 1000 * low:
        plain = FuncFormatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 30 * low else (1, 3)))
        axes.yaxis.set_major_formatter(plain)
