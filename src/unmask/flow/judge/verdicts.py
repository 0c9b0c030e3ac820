"""Verdicts on the statistics of a few steps: what is wrong, where, why, and how to fix it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from unmask.flow.judge import rates, signals
from unmask.flow.judge.data import data
from unmask.flow.judge.head import head
from unmask.flow.judge.indicators import learns
from unmask.flow.judge.kinds import CAUSES, CONSEQUENCES, FOLLOWS, OF_THE_RATE, rank
from unmask.flow.judge.numbers import numbers
from unmask.flow.judge.steps import steps
from unmask.flow.measure.statistics import FlowStats
from unmask.registry import load_plugins
from unmask.verdict import SEVERITIES, Verdict

# A signal is certain once this many probed steps agree; a fault of the step is certain at once.
# Sigmoids and narrow autoencoders may give nearly constant outputs for a hundred steps.
SURE, OFTEN, PLATEAU, CONSTANT = 3, 5, 6, 7
# A layer whose weights change by this fraction in a step moves.
MOVES = 1e-3

Judge = Callable[[list[FlowStats]], Verdict | Iterable[Verdict] | None]
_TWICE = ("batches sorted by class", "labels imbalanced")
_JUDGES: list[Judge] = [
    head,
    steps,
    data,
    signals.symmetric,
    signals.inputs,
    signals.dead,
    signals.saturated,
    signals.underflow,
    signals.vanishing,
    signals.exploding,
    signals.constant,
    rates.too_high,
    rates.too_low,
]


def register_judge(judge: Judge) -> Judge:
    """Add a judge to those that every check runs; usable as a decorator.

    Args:
        judge: a function from the statistics of a training's steps, in order, to one verdict,
            several, or None. It must compare like with like: scaling the loss may change nothing.
    """
    _JUDGES.append(judge)
    return judge


def verdicts(stats: FlowStats | Sequence[FlowStats]) -> list[Verdict]:
    """Return what is wrong with a network's gradient flow, worst first; [] when all is well.

    A pure function: the same statistics always give the same verdicts. All are free of scale: they
    compare layers with one another, inputs with weights, and changes with the changed values.

    Args:
        stats: one step, or several of one training in order.

    Example:
        >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> with unmask.GradientProbe(network, every=1) as probe:
        ...     nn.functional.cross_entropy(
        ...         network(torch.randn(32, 4)), torch.arange(32) % 3
        ...     ).backward()
        >>> [v for v in unmask.verdicts(probe.history) if v.severity == "error"]
        []
    """
    history = [stats] if isinstance(stats, FlowStats) else list(stats)
    if not history:
        return []
    load_plugins()
    broken = numbers(history)
    whole = [s for s in history if s.step < (broken.step or 0)] if broken else history
    if broken and not whole:
        whole = history[:1]
    found = [*([broken] if broken else []), *_given(_JUDGES, whole)]
    fast = any(v.kind == "learning rate too high" and v.severity == "error" for v in found)
    if fast:
        first = {v.kind for v in _given(_JUDGES, whole[:1]) if v.severity == "error"}
        if not first & OF_THE_RATE:
            found = [v for v in found if v.kind not in OF_THE_RATE]
    found = [rates.collapsed(v, whole) if v.kind == "constant outputs" else v for v in found]
    return ordered(found)


def _given(judges: Iterable[Judge], history: list[FlowStats]) -> list[Verdict]:
    found: list[Verdict] = []
    for judge in judges:
        given = judge(history)
        found += [given] if isinstance(given, Verdict) else given or ()
    return found


def ordered(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """Return the verdicts worst first, without those that follow from others."""
    found = sorted(verdicts, key=lambda v: (-SEVERITIES.index(v.severity), rank(v.kind)))
    errors = [v.kind for v in found if v.severity == "error"]
    follow: set[str] = set()
    for kind in errors:
        if kind not in follow:
            follow |= CONSEQUENCES if kind in CAUSES else set()
            follow |= FOLLOWS.get(kind, frozenset())
    if set(errors) & (CAUSES | {"symmetric initialisation"}):
        follow.add("loss independent of the images")
    return _once([v for v in found if v.kind not in follow])


def _once(found: list[Verdict]) -> list[Verdict]:
    """Leave out what the whole loop shows again of a fault that single steps showed with a line."""
    placed = {v.kind for v in found if v.location}
    return [v for v in found if v.kind not in _TWICE or v.location or v.kind not in placed]


def early(verdict: Verdict, history: Sequence[FlowStats], ended: bool) -> bool:
    """Return whether too few steps are behind a verdict for it to be certain.

    Args:
        verdict: on the history.
        history: the probed steps of a training.
        ended: whether it is over. Signals of a step or two are no more than that; a gradient that
            fades may come back wherever the weights move, and a network whose loss falls may give
            the mean of its targets first.
    """
    needed = _needed(verdict, history)
    passes = verdict.kind == "vanishing" or (verdict.kind == "constant outputs" and learns(history))
    return len(history) < (min(needed, SURE) if ended and not passes else needed)


def _needed(v: Verdict, history: Sequence[FlowStats]) -> int:
    """Return how many probed steps make a verdict certain."""
    if v.kind == "parameters without gradient" and v.severity == "warning":
        # What takes no part in a few steps may be skipped at random, or routed past.
        return OFTEN
    if v.kind == "constant outputs":
        return CONSTANT
    if v.kind == "vanishing":
        # Steps that don't depend on the gradient's size may bring it back.
        layers = [x for x in history[-1].layers if x.name == v.subject] if history else []
        moves = [x.update_to_weight_ratio or 0.0 for x in layers]
        return _patience(max(moves, default=0.0))
    # Without a probed step there are only the counts of the loop, which have patience of their own.
    return 0 if v.kind in CAUSES or v.kind == "diverged" else SURE


def _patience(moves: float) -> int:
    if moves >= MOVES:
        return PLATEAU
    return PLATEAU + 1 if moves >= MOVES / 3 else SURE


def told(verdict: Verdict) -> str:
    """Return a verdict as one line: severity, kind, place, step, cause, and fix."""
    cause = f" Cause: {verdict.cause}." if verdict.cause else ""
    fix = f" Fix: {verdict.fix}." if verdict.fix else ""
    where = verdict.location or verdict.subject or "the whole network"
    step = f", step {verdict.step + 1}" if verdict.step is not None else ""
    return f"{verdict.severity}: {verdict.kind} ({where}{step}): {verdict.message}.{cause}{fix}"
