"""Templates become self-contained HTML files: no network, no script, no other file."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from unmask.report.figures.style import GRID, INK, MUTED, PAPER, STYLES
from unmask.text import printable

_COLOURS = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--grid)",
    PAPER: "var(--paper)",
    **{style.light: f"var(--{name})" for name, style in STYLES.items()},
}


def render(
    template: str, filters: Mapping[str, Callable[..., Any]] | None = None, **values: Any
) -> str:
    """Return a template of this package, filled in.

    Args:
        template: its file name.
        filters: functions that the template may call.
        values: what the template names; a name that is missing is an error.
    """
    return _compiled(template, tuple((filters or {}).items())).render(**values)


@functools.lru_cache(maxsize=32)
def _compiled(template: str, filters: tuple[tuple[str, Callable[..., Any]], ...]) -> Template:
    """Return a template with its filters; to compile one takes longer than to fill it in."""
    environment = Environment(
        loader=PackageLoader("unmask.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.filters["sentence"] = sentence
    environment.filters.update(filters)
    return environment.get_template(template)


def stamp_rows(stamp: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return an environment stamp as names and texts, without what a page shows elsewhere."""
    return [(name, said(v)) for name, v in stamp.items() if name not in ("command", "plan")]


def said(value: Any) -> str:
    """Return a setting's value as text: entries and items in a line, thousands with commas."""
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {v}" for k, v in value.items())
    if isinstance(value, (tuple, list)):
        return " ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else str(value)


def sentence(text: str) -> str:
    """Return a text that begins as a sentence does, unless its first word is a name in code."""
    first = text.partition(" ")[0]
    return text if re.search(r"[_.(]|'$", first) else text[:1].upper() + text[1:]


def inline_svg(svg: str, kind: str) -> str:
    """Return the SVG as markup for the inside of a page.

    Args:
        svg: the text of an SVG file.
        kind: "wide" or "narrow", the windows in which it is shown.
    """
    svg = svg[svg.index("<svg") :]
    # The ids of groups are the same in every figure and nothing refers to them.
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    head, _, rest = svg.partition(">")
    head = re.sub(r' (width|height)="[^"]*"', "", head)
    for colour, variable in _COLOURS.items():
        rest = rest.replace(colour, variable)
    return f'{head} class="{kind}" aria-hidden="true">{rest}'


def drawing(wide: str, narrow: str) -> Markup:
    """Return a figure's two SVGs as markup, one of which is shown by the window's width."""
    return Markup(inline_svg(wide, "wide") + inline_svg(narrow, "narrow"))


def _shown(value: Any) -> Any:
    """Return a value to print, with control characters escaped; jinja2 escapes it for HTML."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return printable(value, lines=True)
    return value
