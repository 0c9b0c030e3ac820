"""The kinds of fault that a flow check knows, in the order in which equally bad ones are listed."""

from __future__ import annotations

from typing import Literal, get_args

FlowKind = Literal[
    # Faults of the step itself: the causes.
    "not a number",
    "bad data",
    "no graph",
    "activation before the loss",
    "wrong loss",
    "shapes broadcast",
    "layers not registered",
    "layers shared",
    "parameters without gradient",
    "parameters in no optimiser",
    "parameters in two optimisers",
    "weights that don't move",
    "weights drawn anew",
    "weights not loaded",
    "loss scale collapses",
    "gradients not zeroed",
    "no step",
    "gradients not unscaled",
    "gradients clipped away",
    "weight decay too large",
    "loss outweighed",
    "loss without effect",
    "momentum too large",
    "learning rate vanishes",
    "schedule reversed",
    "schedule begun anew",
    "images mixed",
    "target leakage",
    "attention mask reversed",
    "labels constant",
    "batches sorted by class",
    "wrong mode",
    "batch too small",
    "dropout too strong",
    # Faults that the signals show.
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
    "warm-up missing",
    "loss independent of the images",
    "state carried over",
    "padding read",
    "labels unrelated to the images",
    "no better than the mean",
    "targets badly scaled",
    "train and validation inputs differ",
    "validation images seen in training",
    "labels imbalanced",
    "no activation",
    "optimiser made anew",
    "clipping without effect",
    "running statistics",
    "crashed",
]
KINDS: tuple[FlowKind, ...] = get_args(FlowKind)

# Faults of the step itself; their consequences are not reported beside them.
CAUSES: frozenset[str] = frozenset(KINDS[: KINDS.index("labels constant")])
CONSEQUENCES: frozenset[str] = frozenset(
    (
        *("diverged", "dead units", "saturated", "float underflow", "vanishing", "exploding"),
        *("learning rate too high", "learning rate too low"),
    )
)
# The consequences of an error of each kind, which are not reported beside it.
FOLLOWS: dict[str, frozenset[str]] = {
    kind: frozenset(follows)
    for kind, follows in {
        "activation before the loss": ("images mixed", "loss independent of the images"),
        "no graph": ("wrong loss", "parameters without gradient", "no step", "constant outputs"),
        "no step": ("parameters without gradient", "constant outputs"),
        "loss scale collapses": ("no step",),
        "weights drawn anew": ("learning rate too low",),
        "bad data": ("inputs badly scaled", "constant outputs", "dead units"),
        "batches sorted by class": ("labels constant", "labels imbalanced"),
        "not a number": ("inputs badly scaled", "constant outputs", "dead units"),
        "parameters without gradient": ("no step",),
        "inputs badly scaled": (*CONSEQUENCES, "constant outputs"),
        "dropout too strong": (*CONSEQUENCES, "constant outputs", "weight decay too large"),
        "symmetric initialisation": ("vanishing", "constant outputs", "learning rate too low"),
        "loss independent of the images": ("vanishing", "learning rate too low"),
        "dead units": ("vanishing", "constant outputs", "learning rate too low"),
        "saturated": ("vanishing", "constant outputs", "learning rate too low"),
        "float underflow": (
            *("vanishing", "constant outputs", "learning rate too low"),
            "weights that don't move",
        ),
        "targets badly scaled": (*CONSEQUENCES, "constant outputs", "no better than the mean"),
        "loss outweighed": ("constant outputs", "no better than the mean"),
        "vanishing": ("constant outputs", "learning rate too low"),
        # A network that such a rate has killed doesn't move.
        "learning rate too high": ("learning rate too low",),
        "diverged": ("learning rate too high", "dead units", "saturated", "constant outputs"),
        "exploding": ("diverged", "learning rate too high"),
    }.items()
}
# Consequences of a rate that is too high, in a network without them before the first step.
OF_THE_RATE = frozenset(("dead units", "saturated", "constant outputs", "vanishing", "exploding"))


def rank(kind: str) -> int:
    """Return the place of a kind among those that are equally bad; unknown kinds come last."""
    return KINDS.index(kind) if kind in KINDS else len(KINDS)
