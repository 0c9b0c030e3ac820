"""How far a measured proportion may lie from the true one."""

from __future__ import annotations

import math

_Z95 = 1.959963984540054


def wilson(right: int, count: int) -> tuple[float, float]:
    """Return the 95 % confidence interval of the proportion right of count (Wilson, 1927).

    It is 0 to 1 where count is 0.
    """
    if not count:
        return 0.0, 1.0
    p, z2 = right / count, _Z95**2 / count
    middle = (p + z2 / 2) / (1 + z2)
    half = math.sqrt(z2 * (p * (1 - p) + z2 / 4)) / (1 + z2)
    return max(0.0, middle - half), min(1.0, middle + half)
