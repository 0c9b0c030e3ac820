"""The trainability map as a figure."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from unmask.flow.map import TrainabilityMap
from unmask.models.activations import activation
from unmask.report.figures.style import PAPER, styled_figure

_NO_ACCURACY = "#b9bec4"
_OUTLINE = [withStroke(linewidth=3.2, foreground="#1c2126")]


@styled_figure
def map_figure(found: TrainabilityMap) -> Figure:
    """Return accuracy over sigma_w2 and depth, with 6 xi_c and the critical point of the theory."""
    figure = Figure(figsize=(7.4, 4.4), layout="constrained")
    axes = figure.subplots()
    plan, sigma_w2, depths = found.plan, found.plan.sigma_w2(), found.plan.depths()
    accuracy = 100 * np.ma.masked_invalid(found.accuracy)
    mesh = axes.pcolormesh(
        sigma_w2, depths, accuracy, cmap="viridis", vmin=0, vmax=100, rasterized=True
    )
    axes.set_facecolor(_NO_ACCURACY)
    # The curve is cut beyond the map: at criticality it diverges.
    axes.plot(
        sigma_w2,
        np.where(found.trainable_depth <= 3 * depths[-1], found.trainable_depth, np.nan),
        color=PAPER,
        linewidth=2,
        path_effects=_OUTLINE,
        label="theory: 6 ξ_c",
    )
    if found.critical is not None and sigma_w2[0] < found.critical < sigma_w2[-1]:
        axes.axvline(
            found.critical,
            color=PAPER,
            linestyle=(0, (4, 3)),
            linewidth=1.5,
            path_effects=_OUTLINE,
            label=f"critical σ_w² = {found.critical:.3g}",
        )
    axes.set_xlim(sigma_w2[0], sigma_w2[-1])
    axes.set_ylim(depths[0], depths[-1])
    axes.grid(visible=False)
    axes.set_xlabel(f"σ_w², variance of the weights times fan-in (σ_b² = {plan.sigma_b2:g})")
    axes.set_ylabel("hidden layers")
    axes.set_title(
        f"{activation(plan.activation).title}: {found.accuracy.size} nets of width {plan.width} "
        f"after {plan.steps} steps",
        loc="left",
    )
    bar = figure.colorbar(mesh, ax=axes, pad=0.02)
    bar.set_label("test accuracy, %")
    bar.outline.set_visible(False)
    keys = axes.get_legend_handles_labels()[0]
    if np.ma.is_masked(accuracy):
        keys.append(Patch(color=_NO_ACCURACY, label="diverged"))
    # Beside the map, where it hides no net; dark, since the curves are white.
    legend = figure.legend(
        handles=keys, loc="outside lower center", ncols=3, frameon=True, facecolor="#1c2126"
    )
    legend.get_frame().set_linewidth(0)
    for text in legend.get_texts():
        text.set_color(PAPER)
    return figure
