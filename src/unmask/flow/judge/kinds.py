"""The kinds of fault that a flow check knows, in the order in which equally bad ones are told."""

from __future__ import annotations

from typing import Literal, get_args

FlowKind = Literal[
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
]
KINDS: tuple[FlowKind, ...] = get_args(FlowKind)


def rank(kind: str) -> int:
    """Return the place of a kind among those that are equally bad; those of others come last."""
    return KINDS.index(kind) if kind in KINDS else len(KINDS)
