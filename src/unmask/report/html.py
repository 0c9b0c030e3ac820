"""Templates become HTML files that need nothing else: no network, no script, no other file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def render(
    template: str, filters: Mapping[str, Callable[..., Any]] | None = None, **values: Any
) -> str:
    """Return a template of this package, filled in; what it names and isn't given is an error."""
    environment = Environment(
        loader=PackageLoader("unmask.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters or {})
    return environment.get_template(template).render(**values)


def stamp_rows(stamp: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return an environment stamp as names and texts, without what a page shows elsewhere."""
    return [(name, said(v)) for name, v in stamp.items() if name not in ("command", "plan")]


def said(value: Any) -> str:
    """Return a setting as a reader would write it."""
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {v}" for k, v in value.items())
    if isinstance(value, (tuple, list)):
        return " ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else str(value)
