"""Judges of schedules: what they do to the learning rate, and whether they take their course."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from unmask.verdict import Verdict

# Schedules that were left, and the fraction of their length from which on they have ended.
COURSES, UNFINISHED = 2, 0.9
# The fraction of its length before which a one-cycle schedule has hardly begun to lower the rate.
BEFORE_PEAK = 0.2
# Steps after which a rate that fell to a thousandth of its peak, for half of them, is at an end.
LEAST_STEPS, FALLEN = 20, 1e-3
# The figures that a schedule watches, from which on their direction is certain; a figure that lies
# this close to the training loss is a loss.
FIGURES, CLOSE = 4, 2.0


@dataclass(frozen=True)
class Plateau:
    """One step of a schedule that lowers the rate when a figure no longer improves.

    Args:
        mode: "min" or "max".
        figure: that it was given.
        loss: the mean training loss since its last step.
        rate: the learning rate after it.
        losses: the number of training losses so far.
    """

    mode: str
    figure: float
    loss: float
    rate: float
    losses: int


def schedule(
    rates: Sequence[float], plateaus: Sequence[Plateau], each: bool, lines: Mapping[str, str]
) -> Iterator[Verdict]:
    """Judge what schedules do to the learning rate.

    Args:
        rates: of each step so far.
        plateaus: what each step of a schedule that watches a figure saw.
        each: whether schedules stepped at nearly every step.
        lines: places in the user's code.
    """
    line = lines.get("schedule")
    wrong_way = list(_reversed(plateaus, line))
    yield from wrong_way
    if len(rates) < LEAST_STEPS or wrong_way:
        # What a reversed schedule does to the rate is part of that verdict.
        return
    peak = max(rates)
    at = rates.index(peak)
    gone = [r < FALLEN * peak for r in rates[at:]]
    if peak > 0 and sum(gone) > len(rates) / 2:
        yield Verdict(
            "learning rate vanishes",
            "error",
            f"the learning rate is {rates[-1]:.2g} at step {len(rates)}, a thousandth of its "
            f"{peak:.2g} since step {at + gone.index(True) + 1}",
            "call scheduler.step() once an epoch, or give the schedule as many steps as there "
            "are batches"
            if each
            else "a schedule that ends with the training",
            cause="the schedule is advanced at every batch" if each else "",
            location=line,
            evidence={"rate": rates[-1], "peak": peak},
        )


@dataclass
class Course:
    """How far a schedule of a set length came.

    Args:
        key: the ids of the schedule and of its optimiser.
        kind: its class.
        length: its steps.
        first: the count of all schedules' steps at its first step.
        last: the same at its last.
        at: its own steps so far.
    """

    key: tuple[int, int]
    kind: str
    length: int
    first: int
    last: int = 0
    at: int = 0


def begun_anew(courses: Sequence[Course], line: str | None) -> Iterator[Verdict]:
    """Judge schedules of one optimiser that are made again before they have come to their end.

    Args:
        courses: of each schedule in turn.
        line: of a schedule's step in the user's code.
    """
    left = [
        a
        for a, b in pairwise(courses)
        if a.key[1] == b.key[1] and a.last < b.first and a.at + 1 < UNFINISHED * a.length
    ]
    if len(left) < COURSES or len(left) < len(courses) - 1:
        return
    yield Verdict(
        "schedule begun anew",
        "warning",
        f"{len(left)} times a {left[-1].kind} was left for a new one, the last after {left[-1].at} "
        f"of its {left[-1].length} steps: the rate never takes its course",
        "make it once, before the loop over epochs, for all steps of the training",
        location=line,
        evidence={"left": float(len(left)), "length": float(left[-1].length)},
    )


def unfinished(course: Course, line: str | None) -> Verdict | None:
    """Judge a one-cycle schedule that a whole training left before its peak.

    Args:
        course: of the only schedule.
        line: of its step in the user's code.
    """
    if course.kind != "OneCycleLR" or not 0 < course.at < BEFORE_PEAK * course.length:
        return None
    return Verdict(
        "learning rate vanishes",
        "warning",
        f"the training ended after {course.at:,} of the {course.length:,} steps of its OneCycleLR: "
        "the rate never took its course",
        "total_steps = epochs * len(loader), or steps_per_epoch=len(loader): batches, not images; "
        "step it at every batch",
        location=line,
        evidence={"steps": float(course.at), "length": float(course.length)},
    )


def _reversed(seen: Sequence[Plateau], line: str | None) -> Iterator[Verdict]:
    """Judge whether a schedule takes what improves for what gets worse."""
    if len(seen) < FIGURES or not seen[-1].loss < seen[0].loss:
        return
    figures, mode = [p.figure for p in seen], seen[0].mode
    a_loss = all(p.loss / CLOSE <= p.figure <= p.loss * CLOSE for p in seen)
    percent = figures[0] > 5 * seen[0].loss and max(figures) <= 100
    rate = min(figures) >= 0 and (max(figures) <= 1 or percent) and not a_loss
    falls, rises = max(figures[1:]) < figures[0], min(figures[1:]) > figures[0]
    if not (mode == "max" and falls and a_loss) and not (mode == "min" and rises and rate):
        return
    lowered = seen[-1].rate < seen[0].rate
    other = "min" if mode == "max" else "max"
    yield Verdict(
        "schedule reversed",
        "error" if lowered and mode == "max" else "warning",
        f"the schedule lowers the rate while its figure does not {'rise' if falls else 'fall'}: it "
        f"went from {figures[0]:.3g} to {figures[-1]:.3g} while the training loss fell"
        + (f", and the rate from {seen[0].rate:.2g} to {seen[-1].rate:.2g}" if lowered else ""),
        f'mode="{other}"' + ("" if falls else " if the figure is an accuracy"),
        location=line,
        evidence={"first": figures[0], "last": figures[-1]},
    )
