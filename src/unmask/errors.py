"""The one exception that users are meant to read."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_ABSENT = object()


class UserError(ValueError):
    """A mistake of the user's: what was wrong, what was got, and what to do, in one line.

    The command line prints the line and exits with status 2.
    """

    def __init__(self, wrong: str, *, got: object = _ABSENT, do: str = "") -> None:
        line = wrong if got is _ABSENT else f"{wrong}: got {got}"
        super().__init__(" ".join(f"{line}; {do}".rstrip("; ").split()))


def unknown(kind: str, name: object, known: Iterable[str]) -> UserError:
    """Return the error for a name that is not among those known, with the nearest ones."""
    names = list(known)
    near = difflib.get_close_matches(str(name).lower(), [n.lower() for n in names], n=1, cutoff=0.5)
    hint = next((f"did you mean {n!r}? " for n in names if near and n.lower() == near[0]), "")
    return UserError(f"unknown {kind}", got=repr(name), do=f"{hint}choose from {', '.join(names)}")
