"""What verbs print without rich, which takes longer to import than the parser of their options."""

from __future__ import annotations

import contextlib
import io
import sys
from typing import Any

from unmask.text import printable


class _Aside(io.TextIOBase):
    """A stdout for loaded code, which may close it, that writes to stderr."""

    def write(self, text: str) -> int:
        """Write to stderr."""
        return sys.stderr.write(text)

    def flush(self) -> None:
        """Flush stderr."""
        if not self.closed:
            sys.stderr.flush()

    def fileno(self) -> int:
        """Return stderr's number."""
        return sys.stderr.fileno()


def aside() -> contextlib.ExitStack:
    """Send what loaded code prints to stderr until the stack that is returned is closed.

    Results alone go to stdout, which other programs read.
    """
    stack = contextlib.ExitStack()
    stack.enter_context(contextlib.redirect_stdout(_Aside()))
    return stack


def say(line: object, **options: Any) -> None:
    """Print a line as print does, with control characters escaped.

    Args:
        line: may contain newlines and tabs.
        options: of print.
    """
    print(printable(str(line), lines=True), **options)
