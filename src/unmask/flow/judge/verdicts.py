"""Verdicts: what the statistics of a few steps say is wrong, where, why, and what mends it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from unmask.flow.judge import rates, signals
from unmask.flow.judge.kinds import rank
from unmask.flow.measure.statistics import FlowStats
from unmask.registry import load_plugins
from unmask.verdict import SEVERITIES, Verdict

Judge = Callable[[list[FlowStats]], Verdict | None]
_JUDGES: list[Judge] = [
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
        judge: a function from the statistics of a training's steps, in order, to a verdict or None.
            It must compare like with like, so that scaling the loss changes no verdict.
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
    broken = rates.diverged(history)
    whole = [s for s in history if s.step < (broken.step or 0)] if broken else history
    found = [broken] if broken else []
    if broken and not whole:
        whole = history[:1]
    for judge in _JUDGES:
        verdict = judge(whole)
        if verdict is not None:
            found.append(verdict)
    return sorted(found, key=lambda v: (-SEVERITIES.index(v.severity), rank(v.kind)))
