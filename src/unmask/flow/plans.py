"""The fixes that are tried for each kind of verdict, simple ones first."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from torch import nn

from unmask.errors import UserError
from unmask.flow import changes
from unmask.flow.changes import Fix, Mended
from unmask.flow.check import FlowCheck, check_flow
from unmask.flow.feed import Batch, Loss
from unmask.flow.judge import fixes
from unmask.flow.judge.indicators import decay
from unmask.flow.judge.kinds import CAUSES
from unmask.flow.measure.statistics import FlowStats

BALANCING_ROUNDS = 3


def network_plans(
    check: FlowCheck, kinds: set[str], initialise: Callable[..., Fix]
) -> Iterator[tuple[Fix, ...]]:
    """Yield changes of the network, simple plans first.

    Args:
        check: of the network.
        kinds: of its verdicts.
        initialise: makes the initialisation from stats, other fixes and an activation, as balanced
            does.
    """
    stats = check.history[0]
    layers = stats.matrix_layers
    if not layers:
        return
    certain = list(_certain(check, kinds))
    yield from ((fix,) for fix in certain)
    counts = [max(c.classes) + 1 for s in check.history for c in s.calls if c.classes]
    scores = bool(kinds & {"wrong loss", "activation before the loss"}) and bool(counts)
    if scores:
        yield (changes.class_scores(stats, max(counts)),)
    outside = list(certain)
    bare = "activation before the loss" in kinds
    if layers[-1].slopes is not None and kinds & {"constant outputs", "dead units"} and not bare:
        outside.append(changes.bare_output(stats))
    if "inputs badly scaled" in kinds:
        outside.append(changes.standardised_inputs(stats))
    if len(outside) > 1 or outside != certain:
        yield tuple(outside)
    if ((certain or scores) and kinds <= CAUSES) or kinds == {"learning rate too low"}:
        return
    anew = initialise(stats, outside)
    yield (anew, *outside)
    activation = fixes.main_activation(stats)
    if activation in ("sigmoid", "hardsigmoid", "softsign", "hardtanh"):
        swap = changes.other_activation(activation, "tanh")
        yield (initialise(stats, [swap, *outside], "tanh"), swap, *outside)
    elif activation == "relu" and "dead units" in kinds:
        yield (anew, changes.other_activation("relu", "leaky_relu"), *outside)
    if not any("Norm" in x.kind for x in stats.layers):
        yield (anew, changes.normalisation(stats), *outside)
    if len(layers) > 4:
        yield (anew, changes.residual(stats), *outside)


def _certain(check: FlowCheck, kinds: set[str]) -> Iterator[Fix]:
    """Yield fixes of faults that need no trial to be known; every later plan has them."""
    stats = check.history[0]
    if "activation before the loss" in kinds:
        yield changes.bare_output(stats)
    if any("negative" in v.message for v in check.verdicts if v.kind == "wrong loss"):
        yield changes.minimised()
    if "shapes broadcast" in kinds:
        yield changes.one_shape()
    if kinds & {"parameters in no optimiser", "no step"}:
        yield changes.complete_optimizer()
    if "weight decay too large" in kinds:
        yield changes.weight_decay()


def balanced(
    model: nn.Module,
    loss_fn: Loss,
    pair: Batch,
    stats: FlowStats,
    outside: Sequence[Fix],
    activation: str | None = None,
) -> Fix:
    """Return the critical initialisation, corrected until a batch's gradient keeps its size.

    Args:
        model: the network.
        loss_fn: of output and targets.
        pair: inputs and targets.
        stats: of the network's first step.
        outside: other fixes that are applied with it.
        activation: None for the network's own.
    """
    correction = 1.0
    for _ in range(BALANCING_ROUNDS):
        fix = changes.critical_initialisation(stats, activation, correction)
        network = Mended((fix, *outside)).model(model, seed=0)
        try:
            measured = decay(check_flow(network, loss_fn, pair).history[0])
        except UserError:
            return fix
        if measured is None or not math.isfinite(measured.per_layer):
            return fix
        # A gradient's RMS is proportional to the root of sigma_w2.
        correction *= 10 ** (-2 * measured.per_layer)
        correction = min(max(correction, 0.25), 4.0)
    return changes.critical_initialisation(stats, activation, correction)
