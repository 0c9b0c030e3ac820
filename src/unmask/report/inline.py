"""A figure's SVG for the inside of a page, in the page's colours, light or dark."""

from __future__ import annotations

import re

from unmask.report.figures.style import GRID, INK, MUTED, PAPER, STYLES

_COLOURS = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--grid)",
    PAPER: "var(--paper)",
    **{style.light: f"var(--{name})" for name, style in STYLES.items()},
}


def inline_svg(svg: str, kind: str) -> str:
    """Return the SVG as markup. kind: "wide" or "narrow", the windows it is shown in."""
    svg = svg[svg.index("<svg") :]
    # The ids of groups are the same in every figure and nothing refers to them.
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    head, _, rest = svg.partition(">")
    head = re.sub(r' (width|height)="[^"]*"', "", head)
    for colour, variable in _COLOURS.items():
        rest = rest.replace(colour, variable)
    return f'{head} class="{kind}" aria-hidden="true">{rest}'
