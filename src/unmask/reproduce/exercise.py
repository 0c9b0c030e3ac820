"""What an exercise of the document is given, and what it gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from unmask.report.compared import Section
from unmask.reproduce.lengths import Length

Progress = Callable[[str, float | None], None]
"""What is being done, in words, and how much of it is done, 0 to 1, None where nobody knows."""


@dataclass(frozen=True)
class Task:
    """What an exercise is given.

    folder: its own, for what it trains; it goes on from what lies there. cifar10 and faces: where
    the user says that the pictures lie.
    """

    length: Length
    folder: Path
    cifar10: Path | None
    faces: Path | None
    progress: Progress


@dataclass(frozen=True)
class Exercise:
    """An exercise that can be run alone.

    name: as its folder is called. run raises UserError where it can't, Interrupted on Ctrl-C, with
    everything trained so far in its folder; missing gives its sections with no figures of ours,
    for a reason.
    """

    name: str
    title: str
    run: Callable[[Task], tuple[Section, ...]]
    missing: Callable[[str], tuple[Section, ...]]
