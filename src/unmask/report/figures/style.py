"""The style of figures, and their conversion to text and bytes.

No curve is identified by its colour alone: each activation has its own line style and marker, so
that figures can be read in grey.
"""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, ParamSpec

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogFormatterMathtext, NullFormatter

from unmask.text import power_of_ten, printable

_P = ParamSpec("_P")
# The most characters of a name that figures have room for.
_LONGEST = 32

INK, MUTED, GRID, PAPER = "#1c2126", "#5a646e", "#d9dee3", "#fffffe"


@dataclass(frozen=True)
class Style:
    """How an activation is drawn.

    Args:
        light: the colour on a white page.
        dark: the colour on a dark page.
        line: matplotlib's line style.
        marker: matplotlib's marker.
    """

    light: str
    dark: str
    line: Literal["-"] | tuple[float, tuple[float, ...]]
    marker: str


STYLES: dict[str, Style] = {
    "relu": Style("#c44601", "#ff9058", (0, (5, 2)), "s"),
    "tanh": Style("#0063a8", "#62b6ff", "-", "o"),
    "sigmoid": Style("#00785a", "#45d3a4", (0, (1, 1.4)), "^"),
    "lecun": Style("#9c3587", "#f191d4", (0, (6, 2, 1, 2)), "D"),
    "leaky_relu": Style("#8a5a00", "#e0b050", (0, (3, 1)), "v"),
    "elu": Style("#a8201a", "#ff8d85", (0, (8, 2)), "P"),
    "selu": Style("#4b3fb0", "#a9a1ff", (0, (4, 1, 1, 1)), "X"),
    "gelu": Style("#00707f", "#4fd0e0", (0, (2, 1)), "p"),
    "silu": Style("#5d7a00", "#b4d455", (0, (5, 1, 1, 1, 1, 1)), "h"),
    "softplus": Style("#7a4a2b", "#d9a27c", (0, (1, 2)), "<"),
    "erf": Style("#35607f", "#9cc4e0", (0, (10, 3)), ">"),
    "linear": Style("#4d4d4e", "#c4c4c5", (0, (3, 3)), "*"),
}

_RC: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.labelsize": 9.5,
    "legend.fontsize": 9.5,
    "legend.frameon": False,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.facecolor": "none",
    "figure.facecolor": PAPER,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "svg.fonttype": "none",
    # A name with two dollar signs is no formula.
    "text.parse_math": False,
}


def styled_figure(draw: Callable[_P, Figure]) -> Callable[_P, Figure]:
    """Decorate a function that draws with our settings, and leave the caller's alone."""

    @functools.wraps(draw)
    def drawn(*args: _P.args, **kwargs: _P.kwargs) -> Figure:
        with mpl.rc_context(_RC):
            figure = draw(*args, **kwargs)
        for axes in figure.axes:
            for axis in (axes.xaxis, axes.yaxis):
                # Its labels are formulas, which are off here and would be shown as their source.
                if isinstance(axis.get_major_formatter(), LogFormatterMathtext):
                    axis.set_major_formatter(FuncFormatter(lambda value, _: _power(value)))
                if isinstance(axis.get_minor_formatter(), LogFormatterMathtext):
                    axis.set_minor_formatter(NullFormatter())
        return figure

    return drawn


def _power(value: float) -> str:
    """Return a tick of a logarithmic axis, a power of ten where it is one."""
    exponent = math.log10(value) if value > 0 else math.nan
    near = exponent.is_integer() or abs(exponent - round(exponent)) < 1e-9
    return power_of_ten(round(exponent)) if near else f"{value:g}"


def legible(name: str) -> str:
    """Return a name of the user's, of a class or a file, as a figure can show it."""
    return printable(name, most=_LONGEST)


def to_svg(figure: Figure, name: str) -> str:
    """Return the figure as the text of an SVG; the same figure and name give the same text."""
    buffer = io.StringIO()
    with mpl.rc_context({**_RC, "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return printable(buffer.getvalue(), lines=True)


def to_png(figure: Figure) -> bytes:
    """Return the figure as the bytes of a PNG at 200 dpi."""
    buffer = io.BytesIO()
    with mpl.rc_context(_RC):
        figure.savefig(buffer, format="png", dpi=200)
    return buffer.getvalue()
