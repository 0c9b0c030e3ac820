"""A verdict: one thing that is wrong with a network's gradient flow."""

from __future__ import annotations

from dataclasses import dataclass, field

SEVERITIES = ("note", "warning", "error")
KINDS = (
    "diverged",
    "symmetric initialisation",
    "inputs badly scaled",
    "dead units",
    "saturated",
    "float underflow",
    "vanishing",
    "exploding",
    "constant outputs",
    "learning rate too high",
    "learning rate too low",
)


@dataclass(frozen=True)
class Verdict:
    """One thing that is wrong: its kind (of KINDS), how bad it is, where, and what to do.

    evidence holds the figures it rests on; cause names the factor to blame in words; fix holds a
    number to set. layer is None where the whole network is meant. step counts from 0.
    """

    kind: str
    severity: str
    message: str
    fix: str
    step: int = 0
    layer: str | None = None
    cause: str = ""
    evidence: dict[str, float] = field(default_factory=dict)
