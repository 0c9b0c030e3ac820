"""The three lengths of a reproduction: what ships, the fast recipes, the document's own."""

from __future__ import annotations

from dataclasses import dataclass

from unmask.errors import unknown
from unmask.flow.study.run import StudyPlan


@dataclass(frozen=True)
class Length:
    """What is trained, and how.

    study: the nets of Exercise 1. digits, colours and faces: the recipes of the classifiers of
    Exercises 2 A, 2 C and 3, None for what ships. downloads: whether pictures that are absent are
    fetched.
    """

    name: str
    purpose: str
    study: StudyPlan
    digits: str | None
    colours: str | None
    faces: str | None
    downloads: bool


LENGTHS = {
    length.name: length
    for length in (
        Length(
            name="quick",
            purpose="Exercise 1 trained from nothing over three seeds; Exercises 2 and 3 with the "
            "weights that ship",
            study=StudyPlan(seeds=3),
            digits=None,
            colours=None,
            faces=None,
            downloads=False,
        ),
        Length(
            name="default",
            purpose="everything trained from nothing, Exercises 2 and 3 by the fast recipes",
            study=StudyPlan(seeds=10),
            digits="fast",
            colours="fast",
            faces="augmented",
            downloads=True,
        ),
        Length(
            name="as-document",
            purpose="everything trained from nothing by the document's own recipes",
            study=StudyPlan(seeds=10),
            digits="document",
            colours="document",
            faces="document",
            downloads=True,
        ),
    )
}


def length(name: str) -> Length:
    """Return the length of that name; raise UserError for an unknown one."""
    if name not in LENGTHS:
        raise unknown("length", name, LENGTHS)
    return LENGTHS[name]
