"""The terminal as a place for foreign text: nothing that somebody wrote drives or breaks it."""

from __future__ import annotations

from typing import Any

from rich import console as rich_console
from rich.status import Status
from rich.text import Text

from unmask.text import printable


class Console(rich_console.Console):
    """rich's console, for which a text is a text: no markup, no emoji codes, no control characters.

    What is to be coloured comes with a style, or as rich's Text.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"markup": False, "emoji": False, **options})

    def render_str(self, text: str, **options: Any) -> Text:
        """Return the text of a line or of a table's cell, all that isn't plain written out."""
        return super().render_str(printable(text, lines=True), **options)

    def status(self, status: Any, **options: Any) -> Status:
        """Show what is going on, a text as it is."""
        shown = Text(printable(status)) if isinstance(status, str) else status
        return super().status(shown, **options)


def say(line: object, **options: Any) -> None:
    """Print a line as print does, with all that isn't plain text written out.

    Args:
        line: may hold ends of lines and tabs.
        options: of print.
    """
    print(printable(str(line), lines=True), **options)
