"""Judges of regressions and reconstructions: what they learn, and whether their targets fit."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from unmask.flow.measure.calls import SYMMETRIC, LossCall
from unmask.flow.measure.graph import RANGES
from unmask.flow.measure.statistics import FlowStats
from unmask.verdict import Verdict

# Steps after which a task shows in the outputs, the fraction of the targets' variance that is
# nothing, the looks that agree, and the fraction that was learnt, whatever came later.
LONG, NOTHING, _LOOKS, _SOMETHING = 100, 0.02, 3, 0.1
# Growth of that fraction from look to look that goes on.
_APPROACHES = 0.05
# The fraction of the loss that its other terms were, what is left of them, and the later looks.
OUTWEIGHS, _GONE, _CONFIRMED = 0.3, 0.1, 2
# The same of a reconstruction whose mean over this many numbers an image is taken.
SOME, MANY = 0.01, 50
# The fraction of targets that an activation's range may miss; noise on them may pass its ends.
UNREACHABLE = 0.25
# Outputs this much smaller than their targets, which explain less of them than this, begin far
# off; with more than such a fraction of the way left they stay there.
SMALL, _WORSE, _LEFT, _MOST_LEFT = 0.01, -1.0, 0.3, 0.5


def regression(history: list[FlowStats]) -> Iterator[Verdict]:
    """Judge what the outputs explain of their targets as the training goes on.

    Args:
        history: of one training, in order.
    """
    yield from _mean_alone(history)
    yield from _outweighed(history)
    yield from _out_of_reach(history)


def distance(stats: FlowStats) -> float:
    """Return a regression's loss over that of the targets' mean, at least 1; else 1.

    What is beyond 1 is the targets' distance from the outputs as a whole, which no change of the
    weights by 1 % changes much.

    Args:
        stats: of one step.
    """
    told = [c for c in stats.calls if c.own and c.name in SYMMETRIC and c.explained is not None]
    return max(1.0, 1.0 - (told[0].explained or 0.0)) if len(told) == 1 else 1.0


def far_off(history: list[FlowStats]) -> bool:
    """Return whether outputs that began far from their targets may be on the way to them still.

    Args:
        history: of one training, in order.
    """
    late = history[-1].step >= (1 + _CONFIRMED) * LONG
    return not late and any(_begins_far_off(c) for c in history[0].calls)


def _begins_far_off(call: LossCall) -> bool:
    largest = max(abs(call.target_low), abs(call.target_high))
    small = max(abs(call.low), abs(call.high)) < SMALL * largest
    told = call.own and call.explained is not None and call.name in SYMMETRIC
    return told and small and (call.explained or 0.0) < _WORSE


def _out_of_reach(history: list[FlowStats]) -> Iterator[Verdict]:
    """Find targets so far from 0 that the outputs need most of a training to come near them."""
    began = [c for c in history[0].calls if _begins_far_off(c)]
    if len(began) != 1:
        return
    first = began[0]
    middle = (first.target_low + first.target_high) / 2
    late = [
        (s.step, c)
        for s in history
        for c in s.calls
        if c.location == first.location and c.name == first.name and s.step >= LONG
    ]
    if len(late) < _CONFIRMED:
        return
    gaps = [abs((c.low + c.high) / 2 - middle) for c in (first, *(c for _, c in late))]
    if gaps[-1] < _LEFT * gaps[0] or any((c.explained or 0.0) > _WORSE for _, c in late):
        return
    step, call = late[-1]
    yield Verdict(
        "targets badly scaled",
        "error" if gaps[-1] > _MOST_LEFT * gaps[0] else "warning",
        f"after {step} steps the outputs, {call.low:.3g} to {call.high:.3g}, are still far from "
        f"their targets, {call.target_low:.3g} to {call.target_high:.3g}",
        "standardise the targets, (y - mean) / std by the training set's, and turn predictions "
        "back; or start the last bias at the mean",
        location=call.location,
        step=step,
        evidence={"gap": gaps[-1], "gap at first": gaps[0]},
    )


def _mean_alone(history: list[FlowStats]) -> Iterator[Verdict]:
    """Find a regression or reconstruction that has learnt nothing in hundreds of steps."""
    told = [
        (s.step, c.explained, c.location)
        for s in history
        for c in s.calls
        if c.own and c.explained is not None
    ]
    # Several losses of a step may share the task.
    if len({step for step, _, _ in told}) < len(told):
        return
    late = [(step, part) for step, part, _ in told if step >= LONG]
    if len(late) < _LOOKS or max(part for _, part in late) > NOTHING:
        return
    # An autoencoder may approach the mean for hundreds of steps, and go beyond it.
    if max(part for _, part, _ in told) > _SOMETHING or late[-1][1] - late[0][1] > _APPROACHES:
        return
    step, part = late[-1]
    yield Verdict(
        "no better than the mean",
        "warning",
        f"after {step} steps the outputs explain {max(part, 0):.0%} of the targets' variance over "
        "images: the mean of the targets would do as well",
        "see whether it can learn 32 examples by heart; that inputs and targets are shuffled "
        "together; and, where the loss has several terms, that they are weighed alike: sum a "
        "reconstruction over its pixels if the other term is a sum over units",
        location=told[-1][2],
        step=step,
        evidence={"explained": part},
    )


def _outweighed(history: list[FlowStats]) -> Iterator[Verdict]:
    """Find a loss whose other terms fell to nothing, and whose own task was never learnt."""
    told = [
        (s.step, c, s.loss - c.value)
        for s in history
        for c in s.calls
        if c.own and c.value and s.loss is not None and s.loss > 0 and len(s.calls) == 1
    ]
    late = [(c, rest) for step, c, rest in told if step >= LONG]
    if len(late) < _CONFIRMED or not all(_learnt_nothing(c) for c, _ in late):
        return
    most, whole = max((rest, rest + (c.value or 0)) for _, c, rest in told)
    call, rest = late[-1]
    # The mean of a large reconstruction is outweighed by what begins as a small part of the loss.
    pixels = math.prod(call.shape[1:]) if call.explained is not None else 1
    small = call.reduction == "mean" and pixels >= MANY and told[-1][0] >= (1 + _CONFIRMED) * LONG
    if most < (SOME if small else OUTWEIGHS) * whole or abs(rest) > _GONE * most:
        return
    yield Verdict(
        "loss outweighed",
        "error" if most >= OUTWEIGHS * whole else "warning",
        f"the loss's other terms fell from {most:.3g} to {rest:.3g}, and nothing was learnt of "
        f"{call.name}: they outweigh it",
        "weigh them less: an L2 penalty by about 1e-4; the divergence of a VAE by 1 where both "
        "terms are sums over an image, and far less where the reconstruction is a mean",
        location=call.location,
        step=told[-1][0],
        evidence={"first": most, "last": rest},
    )


def _learnt_nothing(call: LossCall) -> bool:
    if call.explained is not None:
        return call.explained < NOTHING
    guess = math.log(call.shape[1]) if len(call.shape) > 1 and call.shape[1] > 1 else math.inf
    return call.name == "cross_entropy" and (call.value or 0.0) > 0.95 * guess


def fit(call: LossCall, verdict: Callable[..., Verdict]) -> Iterator[Verdict]:
    """Judge the outputs and targets of a regression's loss.

    Args:
        call: of the loss.
        verdict: makes a verdict of its kind, message, fix and evidence.
    """
    out, aim = call.shape, call.target_shape
    if out != aim and math.prod(out) > 1 and math.prod(aim) > 1:
        yield verdict(
            "shapes broadcast",
            f"{call.name} compares outputs of shape {list(out)} with targets of shape {list(aim)}: "
            "each is broadcast against every other",
            "give both one shape, for instance with output.squeeze(1)",
        )
    elif call.beyond > UNREACHABLE:
        low, high = RANGES[call.operation or ""]
        yield verdict(
            "activation before the loss",
            f"{call.operation} gives numbers from {low:g} to {high:g}, where {call.beyond:.0%} of "
            f"the targets of {call.name} lie outside: {call.target_low:.3g} to "
            f"{call.target_high:.3g}",
            f"leave out {call.operation}, or scale the targets into its range",
            beyond=call.beyond,
        )
    elif _class_indices(call):
        yield verdict(
            "wrong loss",
            f"{call.name} compares one output with class numbers 0 to {call.target_high:g}, as if "
            "class 2 lay between 1 and 3",
            "use cross_entropy with one output a class",
            classes=float(len(call.classes)),
        )


def _class_indices(call: LossCall) -> bool:
    """Return whether targets are class indices: whole numbers from 0, none left out."""
    one_each = math.prod(call.shape) == call.shape[0] if call.shape else False
    numbers = sorted(call.classes)
    whole = len(numbers) > 2 and numbers == list(range(len(numbers))) and len(numbers) <= 1000
    return one_each and whole and min(call.classes.values(), default=0) > 0
