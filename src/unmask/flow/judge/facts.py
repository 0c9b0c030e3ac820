"""The counts of a training loop, by which it is judged as a whole."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from unmask.flow.judge.schedules import Course, Plateau
from unmask.flow.measure.copies import CopyFacts
from unmask.flow.measure.inputs import InputFacts


@dataclass
class LoopFacts:
    """The counts of a training, for one model and the optimisers that hold it.

    Args:
        model: the class of the model.
        forwards: passes with gradients.
        backwards: backward passes.
        steps: of any optimiser.
        empty: steps at which no parameter had a gradient.
        cleared: those of them after a backward pass.
        rates: the learning rate of each step.
        clips: the fraction that each clipping left of the gradient.
        losses: of backward passes, where known.
        scales: of the GradScaler.
        redrawn: the steps before which the weights had been replaced.
        pulled: steps before which they had gone back most of the way to their start.
        twice: by parameter, how often two optimisers moved it with one gradient.
        attention: whether the model has attention layers.
        pace: the update ratio of a typical layer at the start.
        graded: whether any gradient has reached its parameters.
        together: whether a backward pass may have been another model's, as a discriminator's is of
            what a generator made.
        inputs: the facts of its inputs.
        normalises_steps: whether the optimiser divides by the gradient's size.
        scaled_clips: clippings of gradients that a GradScaler had not unscaled yet.
        scaled_steps: steps with such gradients.
        late_clips: clippings after the step rather than before it.
        discarded: gradients that were zeroed without a step.
        elsewhere: steps of optimisers that hold only tensors without a gradient, none of this
            model's.
        others: steps of optimisers that hold other tensors with a gradient.
        moved: whether the weights changed without a step, as where a loop changes them by hand.
        fixed: whether the model was in evaluation mode at such steps.
        optimizers: that stepped.
        remembers: whether they keep averages of the gradients.
        training_runs: runs of such passes as the next ones, each after many training passes.
        training_validations: passes without gradients in training mode, of a model with dropout or
            batch normalisation, with no step between.
        evaluating_backwards: backward passes in evaluation mode, of such a model.
        fresh_norms: whether its running statistics have never been updated.
        schedules: steps of learning rate schedules.
        plateaus: what each step of a schedule that watches a figure saw.
        courses: of schedules of a set length, in turn.
        lightning: whether Lightning makes the steps.
        copies: of the model, as averages of its weights are.
        shuffled: batches that were drawn in random order.
        same: calls of kl_div on a distribution and itself, neither of them with a graph.
        carried: by recurrent layer, the probed steps that began with the state that the step before
            had left.
        finished: whether the program came to its end by itself.
        lines: places in the user's code, by "step", "backward", "validation", "zero_grad",
            "schedule", "clip", "kl_div", and "elsewhere" for steps of another model's optimiser.
    """

    model: str = "the model"
    forwards: int = 0
    backwards: int = 0
    steps: int = 0
    empty: int = 0
    cleared: int = 0
    rates: list[float] = field(default_factory=list)
    clips: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    scales: list[float] = field(default_factory=list)
    redrawn: list[int] = field(default_factory=list)
    pulled: int = 0
    twice: dict[str, int] = field(default_factory=dict)
    attention: bool = False
    pace: float | None = None
    graded: bool = False
    together: bool = False
    inputs: InputFacts = field(default_factory=InputFacts)
    normalises_steps: bool = False
    scaled_clips: int = 0
    scaled_steps: int = 0
    late_clips: int = 0
    discarded: int = 0
    elsewhere: int = 0
    others: int = 0
    fixed: bool = False
    moved: bool = False
    optimizers: int = 0
    remembers: bool = False
    training_runs: int = 0
    training_validations: int = 0
    evaluating_backwards: int = 0
    fresh_norms: bool = False
    schedules: int = 0
    plateaus: list[Plateau] = field(default_factory=list)
    courses: list[Course] = field(default_factory=list)
    lightning: bool = False
    copies: list[CopyFacts] = field(default_factory=list)
    shuffled: int = 0
    same: int = 0
    carried: dict[str, int] = field(default_factory=dict)
    finished: bool = False
    lines: dict[str, str] = field(default_factory=dict)

    def scheduled(self, schedule: Any, figure: Any) -> None:
        """Record a step of a schedule, after it; the figure is the one that it was given."""
        self.schedules += 1
        length = getattr(schedule, "total_steps", None) or getattr(schedule, "T_max", None)
        if length:
            key, at = (id(schedule), id(schedule.optimizer)), int(schedule.last_epoch)
            course = next((c for c in reversed(self.courses) if c.key == key), None)
            if course is None or at <= course.at:
                # One that is made anew may be where the last one was in memory.
                course = Course(key, type(schedule).__name__, int(length), self.schedules)
                self.courses.append(course)
            course.at, course.last = at, self.schedules
        if figure is None:
            return
        since = self.losses[self.plateaus[-1].losses if self.plateaus else 0 :]
        loss = sum(since) / len(since) if since else math.nan
        rate, mode = schedule.optimizer.param_groups[0]["lr"], getattr(schedule, "mode", "")
        self.plateaus.append(Plateau(mode, float(figure), loss, float(rate), len(self.losses)))
