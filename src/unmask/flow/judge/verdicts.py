"""Verdicts: what the statistics of a few steps say is wrong, where, why, and what mends it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from unmask.flow.judge import rates, signals
from unmask.flow.judge.data import data
from unmask.flow.judge.head import head
from unmask.flow.judge.kinds import CAUSES, CONSEQUENCES, rank
from unmask.flow.judge.numbers import numbers
from unmask.flow.judge.steps import steps
from unmask.flow.measure.statistics import FlowStats
from unmask.registry import load_plugins
from unmask.verdict import SEVERITIES, Verdict

Judge = Callable[[list[FlowStats]], Verdict | Iterable[Verdict] | None]
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
    """Add a judge to those that every check asks; usable as a decorator.

    Args:
        judge: a function from the statistics of a training's steps, in order, to one verdict,
            several, or None. It must compare like with like: scaling the loss may change nothing.
    """
    _JUDGES.append(judge)
    return judge


def verdicts(stats: FlowStats | Sequence[FlowStats]) -> list[Verdict]:
    """Return what is wrong with a network's gradient flow, worst first; nothing when all is well.

    A pure function: the same statistics always give the same verdicts. All are free of scale: they
    compare layers with one another, inputs with the weights they meet, and changes with what
    changes.

    Args:
        stats: one step, or several of one training in order.
    """
    history = [stats] if isinstance(stats, FlowStats) else list(stats)
    if not history:
        return []
    load_plugins()
    broken = numbers(history)
    whole = [s for s in history if s.step < (broken.step or 0)] if broken else history
    found = [broken] if broken else []
    if broken and not whole:
        whole = history[:1]
    for judge in _JUDGES:
        given = judge(whole)
        found += [given] if isinstance(given, Verdict) else given or ()
    return sorted(_causes_only(found), key=lambda v: (-SEVERITIES.index(v.severity), rank(v.kind)))


def _causes_only(found: list[Verdict]) -> list[Verdict]:
    """Return the verdicts without those that others bring about."""
    errors = {v.kind for v in found if v.severity == "error"}
    follow: set[str] = set()
    if errors & CAUSES:
        follow |= CONSEQUENCES
    if errors & {"bad data", "not a number"}:
        follow |= {"inputs badly scaled", "constant outputs", "dead units"}
    if errors - {"loss independent of the images"}:
        follow.add("loss independent of the images")
    return [v for v in found if v.kind not in follow]
