"""A console for foreign text: no markup, and control characters escaped."""

from __future__ import annotations

from typing import Any

from rich import console as rich_console
from rich.status import Status
from rich.text import Text

from unmask.text import printable


class Console(rich_console.Console):
    """rich's console, which prints text as it is: no markup, no emoji codes, no control characters.

    What should be coloured comes with a style, or as rich's Text.

    Args:
        options: of rich's console.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"markup": False, "emoji": False, **options})

    def render_str(self, text: str, **options: Any) -> Text:
        """Return the text of a line or of a table's cell, with control characters escaped."""
        return super().render_str(printable(text, lines=True), **options)

    def status(self, status: Any, **options: Any) -> Status:
        """Show what is being done, with control characters escaped."""
        shown = Text(printable(status)) if isinstance(status, str) else status
        return super().status(shown, **options)
