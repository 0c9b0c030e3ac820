"""What an audit warns of."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One reason not to take the figures at their face.

    kind: a name that stays the same, such as "zero_gradients". message: what was seen, with its
    figure. do: what mends it.
    """

    kind: str
    message: str
    do: str
