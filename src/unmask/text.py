"""Numbers and lists as they are written in a sentence."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def power_of_ten(exponent: int) -> str:
    """Return 10 to that power as it is printed."""
    return f"10{str(exponent).translate(_SUPERSCRIPTS)}"


def figure(value: float) -> str:
    """Return the value with two significant digits, in powers of ten where it is far from 1.

    A whole number (an int, not a float) is returned as it is.
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
    """Return the smallest and the largest of the values, or the one that they all are."""
    ordered = sorted(values)
    low, high = figure(ordered[0]), figure(ordered[-1])
    return low if low == high else f"{low} to {high}"


def listed(items: Sequence[str]) -> str:
    """Return the items joined with commas and "and"."""
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


def moment(epoch: int) -> str:
    """Return when a probe was taken: at the start, or after so many epochs."""
    return "at the start" if epoch == 0 else f"after {epoch} epoch{'s' * (epoch > 1)}"


def percent(probability: float) -> str:
    """Return a probability in per cent, never rounded up to certainty."""
    return f"{min(100 * probability, 99.9):.0f} %" if probability < 0.995 else "> 99 %"
