"""Numbers and lists as they are written in a sentence, and untrusted text made safe to show."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Sequence

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
# Cc are control characters, Cs halves of surrogate pairs, Zl and Zp separators that some programs
# treat as the end of a line.
_UNSHOWABLE = frozenset(("Cc", "Cs", "Zl", "Zp"))
# Format characters that change the direction of what follows (Trojan Source, 2021), and the two
# code points that XML doesn't allow.
_REFUSED = frozenset(
    "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufffe\uffff"
)

# The first characters by which a spreadsheet treats the text of a cell as a formula.
_FORMULA = ("=", "+", "-", "@")


def printable(text: str, *, lines: bool = False, most: int | None = None) -> str:
    r"""Return untrusted text with all that isn't plain text escaped, such as "\x1b".

    The result is safe in a terminal, a page, an SVG or a log: it moves no cursor, changes no
    direction, ends no line, and can be encoded as UTF-8 and as XML. HTML and XML still need their
    own quoting of <, > and &.

    Args:
        text: a name of a class, a file, a layer, or any other text from outside.
        lines: whether ends of lines and tabs are kept.
        most: the longest text to return, in characters, None for no limit; a longer one is cut and
            ends in "…".
    """
    if most is not None and len(text) > most:
        text = f"{text[: most - 1]}…"
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if _is_plain(c) or (lines and c in "\n\t") else _written_out(c) for c in text)


def as_cell(text: str) -> str:
    """Return untrusted text as a cell of a CSV file that no spreadsheet evaluates (CWE-1236).

    Args:
        text: gets an apostrophe before it where it would be a formula.
    """
    shown = printable(text)
    return f"'{shown}" if shown.lstrip().startswith(_FORMULA) else shown


def told(error: BaseException, most: int = 300) -> str:
    """Return the message of an exception from other code, in one plain line.

    Args:
        error: its own __str__ may raise or return anything.
        most: the longest line, in characters.
    """
    kind = type(error).__name__
    try:
        said = " ".join(str(error).split())
    except Exception:
        said = ""
    return printable(f"{kind}: {said}" if said else kind, most=most)


def _is_plain(character: str) -> bool:
    return unicodedata.category(character) not in _UNSHOWABLE and character not in _REFUSED


def _written_out(character: str) -> str:
    return character.encode("unicode_escape", "backslashreplace").decode()


def power_of_ten(exponent: int) -> str:
    """Return 10 to the power of exponent, with superscript digits."""
    return f"10{str(exponent).translate(_SUPERSCRIPTS)}"


def figure(value: float) -> str:
    """Return the value with two significant digits, in powers of ten where it is far from 1.

    Args:
        value: a float; a whole number of type int is returned with all its digits.
    """
    if isinstance(value, int) or value == 0:
        return f"{value:.0f}"
    if not math.isfinite(value):
        return "–" if math.isnan(value) else "∞" if value > 0 else "−∞"
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    if -4 < int(exponent) < 4:
        return f"{float(f'{value:.1e}'):#.2g}".rstrip(".") if int(exponent) < 2 else f"{value:.0f}"
    return f"{mantissa} × {power_of_ten(int(exponent))}"


def span(values: Iterable[float]) -> str:
    """Return the smallest and the largest of the values, or one figure where both look alike."""
    ordered = sorted(values)
    low, high = figure(ordered[0]), figure(ordered[-1])
    return low if low == high else f"{low} to {high}"


def listed(items: Sequence[str]) -> str:
    """Return the items joined with commas and "and"."""
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


def counted(count: int, what: str) -> str:
    """Return a count and what is counted, in the singular for one."""
    return f"{count:,} {what}{'s' * (count != 1)}"


def moment(epoch: int) -> str:
    """Return when a probe was taken: at the start, or after that many epochs."""
    return "at the start" if epoch == 0 else f"after {counted(epoch, 'epoch')}"


def percent(probability: float) -> str:
    """Return a probability, 0 to 1, in per cent, never rounded up to certainty."""
    return f"{min(100 * probability, 99.9):.0f} %" if probability < 0.995 else "> 99 %"
