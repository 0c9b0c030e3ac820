"""The one exception that users are meant to read."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

_ABSENT = object()
_FEW = 60
# What was got may be a damaged file's name for a key, as long as the file.
_LONGEST = 1000
# Every library that is given a seed takes one up to this.
MAX_SEED = (1 << 63) - 1


class UserError(ValueError):
    """A mistake of the user's: what was wrong, what was got, and what to do, in one line.

    The command line prints the line and exits with status 2.

    Example:
        >>> print(unmask.UserError("the rate must be positive", got=-1, do="try 0.001"))
        the rate must be positive: got -1; try 0.001
    """

    def __init__(self, wrong: str, *, got: object = _ABSENT, do: str = "") -> None:
        line = wrong if got is _ABSENT else f"{wrong}: got {_cut(str(got))}"
        super().__init__(" ".join(f"{line}; {do}".rstrip("; ").split()))


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def require_whole(name: str, value: object, least: int, most: int, unit: str = "") -> None:
    """Refuse all but whole numbers within bounds.

    Args:
        name: what the number is, for the error.
        value: what was given; True and False are no numbers here.
        least: the smallest that is taken.
        most: the largest.
        unit: what is counted, for the error.

    Raises:
        UserError: it is no whole number, or out of the bounds.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        shown = "2^63 - 1" if most == MAX_SEED else str(most)
        # Python refuses to write out whole numbers of more than 4300 digits.
        bits = value.bit_length() if isinstance(value, int) else 0
        raise UserError(
            f"the {name} must be a whole number",
            got=f"one of {bits} bits" if bits > 256 else repr(value)[:80],
            do=f"give {least} to {shown} {unit}",
        )


def plain_numbers(settings: Any) -> None:
    """Turn the numbers of NumPy in a dataclass into Python's: grids are often made of them.

    Args:
        settings: a frozen dataclass, in its __post_init__.
    """
    for field in fields(settings):
        value = getattr(settings, field.name)
        # Tests for NumPy without loading it.
        if hasattr(value, "dtype") and getattr(value, "shape", None) == ():
            object.__setattr__(settings, field.name, value.item())


def unknown(kind: str, name: object, known: Iterable[str]) -> UserError:
    """Return the error for a name that is not among those known, with the nearest ones."""
    names = list(known)
    near = difflib.get_close_matches(str(name).lower(), [n.lower() for n in names], n=1, cutoff=0.5)
    if len(names) > _FEW:
        # timm alone knows a thousand: the nearest say more than all.
        close = difflib.get_close_matches(str(name).lower(), names, n=5, cutoff=0.4)
        told = f"did you mean {', '.join(map(repr, close))}? " if close else ""
        return UserError(f"unknown {kind}", got=repr(name), do=f"{told}{len(names):,} are known")
    hint = next((f"did you mean {n!r}? " for n in names if near and n.lower() == near[0]), "")
    return UserError(f"unknown {kind}", got=repr(name), do=f"{hint}choose from {', '.join(names)}")
