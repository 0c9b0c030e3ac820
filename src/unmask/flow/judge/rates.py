"""Judges of the learning rate: does a step change the weights too much or too little?"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

from unmask.flow.judge import fixes
from unmask.flow.judge.indicators import (
    FRESH,
    adaptive,
    finite,
    median,
    normalised,
    pace,
    relative_gain,
    unborn,
    update_ratios,
)
from unmask.flow.measure.calls import LossCall
from unmask.flow.measure.statistics import FlowStats
from unmask.verdict import Verdict

# The update ratios of rates that hardly get anywhere, of those at which a classifier hardly does,
# and of those that are slow.
STILL, BARELY, SLOW, SLOW_GAIN = 5e-5, 1e-4, 2e-4, 7e-4
# The loss of a classifier that guesses, the later probed steps that show it, and steps after which
# one that has learnt nothing was thrown off at the start.
GUESSES, LATE, LONG = 0.95, 2, 100
FAST, FAR_TOO_FAST, KEPT, HASTY_SHARE = 0.15, 0.3, 0.45, 0.25
# A step that is this large after the loss has grown may have made it grow.
FAST_STILL = 0.03
# Probed steps that must agree where the loss after a step is not known.
WITNESSES = 5
FAST_GAIN, OVERSHOT, LOSS_GREW = 5.0, 0.1, 3.0
# The change of the loss that a step must predict for it to account for a loss that grows.
PROMISES = 0.5
# A step that reduces its own batch's loss by this fraction is no overshoot, whatever was predicted.
LOWERS = 0.1
# Outputs that vary by this much of their size differ from image to image.
VARIED = 0.05


def too_high(history: list[FlowStats]) -> Verdict | None:
    """Judge by the update ratio, the loss, and how much of the predicted gain was achieved."""
    ratios = [median(r) for r in map(update_ratios, history) if r]
    if not ratios:
        return None
    typical = median(ratios)
    # A line search sets the length of its steps itself.
    searched = _searches(history)
    gains = finite([g for g in map(relative_gain, history) if g is not None])
    kept = [k for k in map(_kept_promise, history) if k is not None]
    # Of a large network the loss after a step is known of some steps only.
    tried = sum(s.loss_after is not None for s in history)
    losses = [s.loss for s in history if s.loss is not None]
    # Weights that start near 0 may have far to go; descent that keeps its promises goes there.
    descends = not _normalises(history[0])
    arrives = median(kept) >= KEPT if kept else len(losses) > 2 and _only_falls(losses)
    far = typical > FAR_TOO_FAST and not (descends and arrives)
    hasty = 0 < HASTY_SHARE * tried <= sum(map(_hasty, history)) or far
    # Tables that start at 0, as of a user's bias, are young for a few steps.
    young = history[0 if history[-1].step <= FRESH else -1].matrix_layers
    hasty = hasty and not searched and not all(unborn(x) for x in young if not x.frozen)
    falls = [f for f in map(_fall, history) if f is not None]
    overshoots = bool(gains and kept) and median(gains) > FAST_GAIN and median(kept) < OVERSHOT
    overshoots = overshoots and median(falls) < LOWERS
    after = history[-1].loss_after
    recent = [*losses[-2:], *([after] if after is not None else [])]
    # By difference, since a loss may be negative.
    grew = len(losses) > 2 and min(recent) - losses[0] > (LOSS_GREW - 1) * _size(history[0])
    # A loss of both signs, as of a policy's returns, has no size; it is held against its own range.
    before = losses[:-2]
    if before and min(losses) < 0 < max(losses):
        span = max(before) - min(before)
        grew = len(losses) >= WITNESSES and min(recent) - max(before) > (LOSS_GREW - 1) * span
    if grew and not kept and not any(s.calls for s in history):
        # A loss of the user's own, as of an episode's actions, may grow with what it adds up.
        fast = (pace(history[-1]) or 0.0) > FAST_STILL
        grew = fast and bool(before) and min(recent) > LOSS_GREW * max(map(abs, before))
    # Batches differ by themselves: steps that promise little can't have made the loss grow.
    grew = grew and (not gains or max(map(abs, gains)) > PROMISES)
    # As long as the loss is below that of guessing, the task changed rather than the network.
    outputs = max((c.shape[1] for c in history[-1].calls if _classifies(c)), default=0)
    grew = grew and not (outputs and min(recent) < math.log(outputs))
    if not hasty and not overshoots and not grew:
        return _thrown_off(history)
    if not kept and (len(history) < WITNESSES or (not grew and _halves(losses))):
        # Where no step's own effect is known, the course of the loss decides.
        return None
    stats = history[-1]
    # Gradient descent may overshoot at first and settle as the gradient shrinks. Optimisers that
    # divide by the gradient's size keep taking steps as large.
    settles = descends and bool(losses) and recent[-1] < losses[0]
    # Steps that throw normalised weights far out make them large, and so the next steps small.
    settles |= descends and normalised(history[0]) and typical < FAST
    summed = next((c for s in history for c in s.calls if _sums(c, s)), None)
    cause, fix = _length(history)
    return Verdict(
        "learning rate too high",
        "warning" if settles and not _hasty(stats) else "error",
        f"a step changes the weights of a typical layer by {typical:.2g} of their size"
        + (f", and the loss went from {losses[0]:.3g} to {recent[-1]:.3g}" if grew else ""),
        fix,
        cause=cause,
        location=summed.location if summed else None,
        step=stats.step,
        evidence={"update_to_weight_ratio": typical}
        | ({"expected_gain": median(gains)} if gains else {}),
    )


def _thrown_off(history: list[FlowStats]) -> Verdict | None:
    """Find a classifier whose first step was large and which still guesses long afterwards."""
    guesses = {
        s.step: c.value >= GUESSES * math.log(c.shape[1])
        for s in history
        for c in s.calls
        if _classifies(c) and c.own and c.value is not None
    }
    late = [step for step in guesses if step >= LONG]
    ratios = update_ratios(history[0])
    if len(late) < LATE or not all(guesses.values()) or not ratios or median(ratios) < FAST:
        return None
    return Verdict(
        "learning rate too high",
        "error",
        f"the first step changed the weights of a typical layer by {median(ratios):.2g} of their "
        f"size, and after {late[-1]} steps the loss is still that of guessing",
        fixes.slower(history[:1]),
        step=history[-1].step,
        evidence={"update_to_weight_ratio": median(ratios)},
    )


def collapsed(verdict: Verdict, history: list[FlowStats]) -> Verdict:
    """Return a verdict on constant outputs that names the steps where these made them so.

    Args:
        verdict: on the last step.
        history: of one training, in order.
    """
    first = history[0].output
    if first is None or first.variation is None or first.variation < VARIED:
        return verdict
    cause, fix = _length(history)
    told = f"they varied by {first.variation:.1g} before the first step"
    return replace(verdict, cause=f"{told}; {cause}" if cause else told, fix=fix)


def _length(history: list[FlowStats]) -> tuple[str, str]:
    """Return why steps are too long, "" where it isn't known, and how to shorten them."""
    summed = next((c for s in history for c in s.calls if _sums(c, s)), None)
    added = next((n for s in history if (n := _added(s)) > 1), 1)
    if summed is not None:
        cause = f"{summed.name} sums over {summed.shape[0]} images"
        return cause, 'reduction="mean", for which rates are meant'
    if added > 1:
        cause = f"the gradients of {added} batches are added up, not averaged"
        return cause, f"(loss / {added}).backward(), for which rates are meant"
    return "", fixes.slower(history)


def too_low(history: list[FlowStats]) -> Verdict | None:
    """Judge by the update ratio and, where the loss is known, the predicted gain of a step."""
    # A search shortens its steps as it ends.
    paces = [p for s in history if (p := pace(s)) is not None]
    fastest = paces[0] if paces and _searches(history) else pace(history[-1])
    if fastest is None:
        return None
    if history[-1].step > FRESH:
        return _never_starts(history, max(paces))
    if fastest == 0 and any(map(unborn, history[-1].matrix_layers)):
        # An output layer that starts at 0 moves first, and alone.
        return None
    rates = [s.learning_rate for s in history if s.learning_rate is not None]
    if len(rates) > 1 and rates[-1] > rates[0]:
        # It is being warmed up.
        return None
    gains = finite([g for g in map(relative_gain, history) if g is not None])
    # Narrow layers have large weights, of which a usual step is a small part.
    growth = _still_to_build(history)
    gaining = not gains or median(gains) * growth >= SLOW_GAIN
    fastest *= growth
    if fastest >= (STILL if gaining else SLOW):
        return None
    guesses = any(_classifies(c) and c.own for s in history for c in s.calls)
    zero = bool(rates) and rates[-1] == 0
    return Verdict(
        "learning rate too low",
        "error" if fastest < (BARELY if guesses else STILL) else "warning",
        "the learning rate is 0, and no step changes anything"
        if zero
        else f"a step changes the weights by {fastest:.2g} of their size"
        + (f" and the loss by {median(gains):.1g} of its own" if gains else ""),
        "warm up from batch to batch: a schedule that is stepped once an epoch keeps its first "
        "rate for all of it (in Lightning, interval='step')"
        if zero
        else fixes.faster(history),
        step=history[-1].step,
        evidence={"update_to_weight_ratio": fastest}
        | ({"expected_gain": median(gains)} if gains else {}),
    )


def _never_starts(history: list[FlowStats], fastest: float) -> Verdict | None:
    """Find a classifier that still guesses, none of whose steps could have taught it anything."""
    guesses = [
        c.value >= GUESSES * math.log(c.shape[1])
        for s in history
        for c in s.calls
        if s.step > FRESH and _classifies(c) and c.own and c.value is not None
    ]
    if fastest >= STILL or len(guesses) < LATE or not all(guesses):
        return None
    return Verdict(
        "learning rate too low",
        "error",
        f"in {history[-1].step} steps none changed the weights by more than {fastest:.2g} of "
        "their size, and the loss is still that of guessing",
        fixes.faster(history),
        step=history[-1].step,
        evidence={"update_to_weight_ratio": fastest},
    )


def _still_to_build(history: list[FlowStats]) -> float:
    """Return how many times as large steps become as momentum adds up gradients."""
    stats = history[-1]
    memory = stats.parameters.memory if stats.parameters is not None else 0.0
    summed = stats.optimizer == "SGD" and 0 < memory < 1
    return 1 / (1 - memory ** (stats.step + 1)) if summed else 1.0


def _searches(history: list[FlowStats]) -> bool:
    return any((s.optimizer or "").startswith("LBFGS") for s in history)


def _size(stats: FlowStats) -> float:
    """Return the loss's natural size: one of the user's own may lie near 0 by chance."""
    last = stats.matrix_layers[-1].output if stats.matrix_layers and not stats.calls else None
    return max(abs(stats.loss or 0.0), last.rms if last is not None else 0.0)


def _sums(call: LossCall, stats: FlowStats) -> bool:
    """Return whether a loss is summed over the images, by its reduction or afterwards."""
    if call.reduction != "none" or call.total is None or stats.loss is None:
        return call.reduction == "sum"
    return len(call.target_shape) > 0 and abs(stats.loss - call.total) <= 1e-3 * abs(call.total)


def _added(stats: FlowStats) -> int:
    """Return how many batches' mean losses plain descent adds up for a step, 1 for none."""
    means = [c.value for c in stats.calls if c.own and c.reduction == "mean" and c.value]
    if _normalises(stats) or stats.passes < 2 or stats.loss is None:
        return 1
    # As many losses are kept as passes, or fewer.
    mean = sum(means) / len(means) if means else math.inf
    whole = stats.loss / stats.passes
    return stats.passes if abs(whole - mean) <= 0.2 * abs(mean) else 1


def _classifies(call: LossCall) -> bool:
    return call.name == "cross_entropy" and len(call.shape) > 1 and call.reduction == "mean"


def _halves(losses: list[float]) -> bool:
    return len(losses) > 1 and 0 < losses[-1] < losses[0] / 2


def _only_falls(losses: list[float]) -> bool:
    return all(b < a for a, b in pairwise(losses))


def _fall(stats: FlowStats) -> float | None:
    """Return how much a step reduced its own batch's loss, or None."""
    if not stats.loss or stats.loss_after is None:
        return None
    return (stats.loss - stats.loss_after) / abs(stats.loss)


def _kept_promise(stats: FlowStats) -> float | None:
    """Return the decrease of the loss over the one that its gradient predicted, or None."""
    gain, fall = relative_gain(stats), _fall(stats)
    return None if fall is None or not gain else fall / gain


def _hasty(stats: FlowStats) -> bool:
    """Return whether the step was large and achieved little of the gain that was predicted."""
    ratios, kept = update_ratios(stats), _kept_promise(stats)
    return bool(ratios) and kept is not None and median(ratios) > FAST and kept < KEPT


def _normalises(stats: FlowStats) -> bool:
    """Return whether steps are as large as the learning rate, whatever the gradient's size."""
    if stats.optimizer in ("SGD", "ASGD", "LBFGS") or adaptive(stats):
        return adaptive(stats)
    steps = [
        x.update_to_weight_ratio * x.weight.rms
        for x in stats.matrix_layers
        if x.update_to_weight_ratio is not None and x.weight is not None
    ]
    return bool(steps and stats.learning_rate) and median(steps) > 0.3 * (stats.learning_rate or 0)
