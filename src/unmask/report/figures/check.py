"""A network's gradients, layer by layer, over those that theory expects."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from unmask.flow.check import FlowCheck
from unmask.flow.statistics import FlowStats, Magnitude
from unmask.flow.theory import Profile
from unmask.report.figures.style import MUTED, STYLES, styled_figure

_FIRST, _LAST = STYLES["tanh"], STYLES["relu"]


@styled_figure
def check_figure(check: FlowCheck, expected: Profile | None) -> Figure:
    """Draw the RMS of dE/dW by layer at the first and the last step, on a logarithmic axis.

    expected adds the theory's profile at the start with its band of two standard deviations.
    """
    figure = Figure(figsize=(7.4, 3.6), layout="constrained")
    axes = figure.subplots()
    first, last = check.history[0], check.history[-1]
    places = np.arange(1, len(first.matrix_layers) + 1)
    if expected is not None:
        low, high = expected.gradient_band()
        axes.fill_between(places, low, high, color=MUTED, alpha=0.25, linewidth=0)
        axes.plot(places, expected.gradient_rms, color=MUTED, linewidth=1.2, label="theory")
    drawn = [(first, _FIRST, "at the start")]
    if last is not first:
        drawn.append((last, _LAST, f"after {last.step} steps"))
    for stats, style, label in drawn:
        axes.plot(
            places,
            _rms(stats, len(places)),
            color=style.light,
            linestyle=style.line,
            marker=style.marker,
            markersize=4,
            label=label,
        )
    axes.set_xlim(0.5, len(places) + 0.5)
    axes.set_yscale("log")
    axes.set_xlabel("layer, from the input")
    axes.set_ylabel("RMS of dE/dW")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="best")
    return figure


def _rms(stats: FlowStats, count: int) -> list[float]:
    sizes: list[Magnitude | None] = [x.weight_gradient for x in stats.matrix_layers]
    # Zero has no place on a logarithmic axis.
    return [g.rms if g is not None and g.rms > 0 else np.nan for g in sizes[:count]]
