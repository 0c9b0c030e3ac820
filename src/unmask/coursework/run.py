"""Runs the report's exercises one after the other; a failure of one doesn't stop the others."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from unmask.coursework.exercise import Drawings, Exercise, Length, Task
from unmask.coursework.exercises.cifar10 import COLOURS
from unmask.coursework.exercises.depth import STUDY
from unmask.coursework.exercises.digits import DIGITS_EXERCISE
from unmask.coursework.exercises.faces import FACES_EXERCISE
from unmask.coursework.exercises.ranges import BOUNDS
from unmask.coursework.sections import Done, Reproduction, Section, keep, kept
from unmask.errors import UserError
from unmask.runtime import cpu_threads, environment_stamp

EXERCISES = (BOUNDS, STUDY, DIGITS_EXERCISE, COLOURS, FACES_EXERCISE)
_STOPPED = "it was stopped before this was done; --resume goes on"

Progress = Callable[[str, str, float | None], None]
"""The exercise, what it does just now, and how much of that is done, 0 to 1, None if unknown."""


class ReproductionInterrupted(KeyboardInterrupt):
    """Ctrl-C during a reproduction; it holds all that was done by then."""

    def __init__(self, reproduction: Reproduction) -> None:
        super().__init__("the reproduction was interrupted")
        self.reproduction = reproduction


def reproduce(
    length: Length,
    out: Path,
    *,
    cifar10: Path | None = None,
    faces: Path | None = None,
    draw: Drawings,
    resume: bool = False,
    progress: Progress | None = None,
    exercises: Sequence[Exercise] = EXERCISES,
) -> Reproduction:
    """Run every exercise of the report and return its figures beside ours.

    An exercise whose images are absent, or that fails, gives the reason in its sections.

    Args:
        length: what is trained, and how.
        out: gets a folder for each exercise, with what it trains, and the finished sections.
        cifar10: where CIFAR-10 lies; by default searched for in UNMASK_DATA and, where the length
            allows, downloaded.
        faces: where the face mask set lies; by default the same.
        draw: draws the figures, such as unmask.report.reproduction.Figures.
        resume: don't run finished exercises again, and resume the others from what lies in out.
        progress: called with the exercise, what it does, and the fraction of that done, None if
            unknown.
        exercises: which ones, in this order; by default all.

    Raises:
        UserError: as kept does.
        ReproductionInterrupted: on Ctrl-C.
    """
    done = kept(out, length.name, resume=resume)
    keep(out, length.name, done)
    told = progress or (lambda exercise, doing, part: None)
    sections: Done = {}
    stopped = False
    for exercise in exercises:
        if exercise.name in done:
            sections[exercise.name] = done[exercise.name]
            continue
        if stopped:
            sections[exercise.name] = _absent(exercise, _STOPPED)
            continue
        task = Task(
            length=length,
            folder=out / exercise.name,
            cifar10=cifar10,
            faces=faces,
            draw=draw,
            progress=lambda doing, part, exercise=exercise: told(exercise.title, doing, part),  # type: ignore[misc]
        )
        began = time.perf_counter()
        try:
            found = _tried(exercise, task)
        except KeyboardInterrupt:
            stopped = True
            sections[exercise.name] = _absent(exercise, _STOPPED)
            continue
        first = replace(found[0], seconds=time.perf_counter() - began)
        sections[exercise.name] = (first, *found[1:])
        if not any(section.reason for section in found):
            done[exercise.name] = sections[exercise.name]
            keep(out, length.name, done)
    result = _of(length, sections)
    if stopped:
        raise ReproductionInterrupted(result)
    return result


def _tried(exercise: Exercise, task: Task) -> tuple[Section, ...]:
    try:
        return exercise.run(task)
    except UserError as error:
        return _absent(exercise, str(error))
    except Exception as error:
        # Whatever fails in one exercise, the report of the others is still worth having.
        place = traceback.extract_tb(error.__traceback__)[-1]
        line = (str(error).strip().splitlines() or [""])[0][:200]
        where = f"{Path(place.filename).name}, line {place.lineno}"
        return _absent(exercise, f"it failed with {type(error).__name__}: {line} ({where})")


def _absent(exercise: Exercise, reason: str) -> tuple[Section, ...]:
    return tuple(replace(section, reason=reason) for section in exercise.missing(reason))


def _of(length: Length, sections: Done) -> Reproduction:
    flat = tuple(section for found in sections.values() for section in found)
    return Reproduction(
        length=length.name,
        purpose=length.purpose,
        sections=flat,
        seconds=sum(section.seconds or 0.0 for section in flat),
        stamp=environment_stamp(threads=cpu_threads()),
    )
