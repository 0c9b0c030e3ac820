"""Judges of a training loop as a whole: what no single step shows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from unmask.verdict import Verdict

# Gradients may be accumulated over this many backward passes before anything is amiss.
PATIENCE = 64
# Steps after which a rate that fell to a thousandth of its peak, for half of them, is at an end.
LEAST_STEPS, FALLEN = 20, 1e-3
# A gradient cut to a thousandth at nearly every step.
CLIPPED, CLIPS = 1e-3, 0.9
VALIDATIONS = 3
IDLE = 3


@dataclass
class LoopFacts:
    """What is counted while a training runs, of one model and the optimisers that hold it.

    forwards, backwards: passes with gradients. steps: of any optimiser. empty: steps at which no
    parameter had a gradient, cleared: those of them after a backward pass. rates: the learning rate
    of each step. clips: the fraction that each clipping left of the gradient. training_validations:
    passes without gradients in training mode, of a model with dropout or batch normalisation, with
    no step between. evaluating_backwards: backward passes in evaluation mode, of such a model.
    fresh_norms: its running statistics have never been updated. losses: of the steps, where known.
    scales: of the GradScaler. drops: the rates of its dropout. lines: places in the user's code, by
    "step", "backward", "validation", "zero_grad", "schedule" and "clip".
    """

    forwards: int = 0
    backwards: int = 0
    steps: int = 0
    empty: int = 0
    cleared: int = 0
    rates: list[float] = field(default_factory=list)
    clips: list[float] = field(default_factory=list)
    normalises_steps: bool = False
    training_validations: int = 0
    evaluating_backwards: int = 0
    fresh_norms: bool = False
    schedules: int = 0
    drops: list[float] = field(default_factory=list)
    values_a_channel: int | None = None
    lines: dict[str, str] = field(default_factory=dict)


def loop(facts: LoopFacts, ended: bool = False) -> Iterator[Verdict]:
    """Judge a loop so far, or, once it has ended, as a whole.

    Args:
        facts: what was counted.
        ended: whether there is more to come.
    """
    yield from _no_step(facts, ended)
    yield from _rates(facts)
    yield from _mode(facts)
    strong = max(facts.drops, default=0.0)
    if strong >= 0.9:
        yield Verdict(
            "dropout too strong",
            "error" if strong >= 1 else "warning",
            f"dropout of {strong:g} leaves {1 - strong:.0%} of what passes it",
            "dropout of 0.1 to 0.5",
            evidence={"dropout": strong},
        )
    if facts.values_a_channel is not None and facts.values_a_channel < 4:
        yield Verdict(
            "batch too small",
            "warning",
            f"batch normalisation sees {facts.values_a_channel} values a channel: their mean and "
            "deviation are mostly noise",
            "a larger batch, or GroupNorm",
            evidence={"values": float(facts.values_a_channel)},
        )


def _no_step(facts: LoopFacts, ended: bool) -> Iterator[Verdict]:
    lines = facts.lines
    if facts.steps == 0 and (facts.backwards > PATIENCE or (ended and facts.backwards >= IDLE)):
        yield Verdict(
            "no step",
            "error",
            f"{facts.backwards} backward passes and no optimizer.step(): the weights never change",
            "call optimizer.step() after backward(), on an optimiser of this model",
            location=lines.get("backward"),
            evidence={"backwards": float(facts.backwards)},
        )
    if facts.backwards == 0 and ended and facts.forwards >= IDLE and facts.steps >= IDLE:
        yield Verdict(
            "no step",
            "error",
            f"{facts.steps} steps and no backward pass",
            "call loss.backward() before optimizer.step()",
            location=lines.get("step"),
            evidence={"steps": float(facts.steps)},
        )
    elif facts.empty >= IDLE and facts.empty >= 0.9 * facts.steps:
        cleared = facts.cleared >= 0.9 * facts.empty
        yield Verdict(
            "no step",
            "error",
            f"{facts.empty} of {facts.steps} steps found no gradient: "
            + ("it is zeroed after backward()" if cleared else "step() comes before backward()"),
            "order them: optimizer.zero_grad(), loss.backward(), optimizer.step()",
            location=(lines.get("zero_grad") if cleared else None) or lines.get("step"),
            evidence={"empty": float(facts.empty), "steps": float(facts.steps)},
        )


def _rates(facts: LoopFacts) -> Iterator[Verdict]:
    if len(facts.rates) >= LEAST_STEPS:
        peak = max(facts.rates)
        at = facts.rates.index(peak)
        gone = [r < FALLEN * peak for r in facts.rates[at:]]
        if peak > 0 and sum(gone) > len(facts.rates) / 2:
            first = at + gone.index(True)
            each = facts.schedules >= 0.9 * facts.steps
            yield Verdict(
                "learning rate vanishes",
                "error",
                f"the learning rate is {facts.rates[-1]:.2g} at step {len(facts.rates)}, a "
                f"thousandth of its {peak:.2g} since step {first + 1}",
                "call scheduler.step() once an epoch, or give the schedule as many steps as there "
                "are batches"
                if each
                else "a schedule that ends with the training",
                cause="the schedule is advanced at every batch" if each else "",
                location=facts.lines.get("schedule"),
                evidence={"rate": facts.rates[-1], "peak": peak},
            )
    if len(facts.clips) >= LEAST_STEPS and not facts.normalises_steps:
        cut = sum(c < CLIPPED for c in facts.clips) / len(facts.clips)
        if cut >= CLIPS:
            middle = sorted(facts.clips)[len(facts.clips) // 2]
            yield Verdict(
                "gradients clipped away",
                "error",
                f"clipping leaves {middle:.1g} of the gradient at {cut:.0%} of the steps",
                "clip at a norm that few steps reach, for instance 1.0",
                location=facts.lines.get("clip"),
                evidence={"left": middle, "steps": cut},
            )


def _mode(facts: LoopFacts) -> Iterator[Verdict]:
    if facts.evaluating_backwards >= IDLE and facts.evaluating_backwards > facts.backwards / 2:
        yield Verdict(
            "wrong mode",
            "error" if facts.fresh_norms else "warning",
            "the model trains in evaluation mode: "
            + (
                "batch normalisation keeps statistics that were never measured"
                if facts.fresh_norms
                else "dropout is off and batch normalisation keeps its statistics"
            ),
            "call model.train() before each epoch's training",
            location=facts.lines.get("backward"),
            evidence={"backwards": float(facts.evaluating_backwards)},
        )
    if facts.training_validations >= VALIDATIONS:
        yield Verdict(
            "wrong mode",
            "warning",
            f"{facts.training_validations} passes without gradients ran in training mode: dropout "
            "is on, and batch normalisation learns from what is validated",
            "call model.eval() before validation and model.train() after it",
            location=facts.lines.get("validation"),
            evidence={"passes": float(facts.training_validations)},
        )
