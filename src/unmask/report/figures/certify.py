"""The figure of a certification: proved, open, attacked and misclassified images, by class."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from unmask.fool.certify.result import ATTACKED, OPEN, PROVED, STATUSES, WRONG, Certification
from unmask.report.figures.style import GRID, MUTED, PAPER, STYLES, styled_figure

_MOST_CLASSES = 24
# Each status's colour, hatching that needs no colour, and words.
_LOOKS = {
    PROVED: (STYLES["sigmoid"].light, "", "proved robust"),
    OPEN: (GRID, "", "open"),
    ATTACKED: (STYLES["relu"].light, "///", "attacked"),
    WRONG: (MUTED, "xxx", "misclassified unchanged"),
}


@styled_figure
def bracket_figure(found: Certification, *, narrow: bool = False) -> Figure:
    """Return bars of the fraction of each status, for all images and for each class."""
    classes = [k for k in range(len(found.class_names)) if (found.labels == k).any()]
    shown = classes if len(classes) <= _MOST_CLASSES else []
    names = ["all", *(found.class_names[k] for k in shown)]
    groups = [np.ones(len(found), bool), *(found.labels == k for k in shown)]
    height = 0.28 * len(names) + 1.3
    figure = Figure(figsize=(4.6 if narrow else 8.2, height), layout="constrained")
    ax = figure.subplots()
    places = np.arange(len(names)) + (np.arange(len(names)) > 0) * 0.4
    left = np.zeros(len(names))
    for status, (colour, hatch, words) in _LOOKS.items():
        parts = np.array([(found.status[g] == STATUSES.index(status)).mean() for g in groups])
        ax.barh(
            places,
            parts,
            0.78,
            left,
            color=colour,
            hatch=hatch,
            edgecolor=PAPER,
            linewidth=0.6,
            label=words,
        )
        left += parts
    ax.set_yticks(places, names)
    ax.invert_yaxis()
    ax.set(xlim=(0, 1), xlabel="fraction of the images", ylabel="class")
    ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.grid(visible=False, axis="y")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2 if narrow else 4, borderaxespad=0.2)
    return figure
