"""A verdict: one thing that is wrong with a classifier, whichever question found it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Severity = Literal["note", "warning", "error"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)


@dataclass(frozen=True)
class Verdict:
    """One thing that is wrong, what shows it, and what to do.

    Args:
        kind: a name that stays the same from version to version, such as "vanishing". Each question
            types its own kinds as a Literal, e.g. unmask.flow.judge.kinds.FlowKind.
        severity: "note", "warning" or "error". An error predicts that the classifier fails at its
            task; a warning that a figure can't be trusted or that something is lost.
        message: what was seen, in one sentence with its figures.
        fix: what mends it, with a number to set where there is one.
        cause: what is to blame, in words; "" where the message says it.
        subject: what the verdict is about: a layer, a class, a file; None for the whole model.
        location: "file:line" in the user's own code; None where no line is to blame.
        step: the optimiser step that it was seen at, from 0; None where there are no steps.
        evidence: the figures that it rests on, by name.
    """

    kind: str
    severity: Severity
    message: str
    fix: str = ""
    cause: str = ""
    subject: str | None = None
    location: str | None = None
    step: int | None = None
    evidence: dict[str, float] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The kind as it is shown."""
        return self.kind.replace("_", " ")

    def as_dict(self) -> dict[str, Any]:
        """Return the verdict as plain JSON values."""
        return {**self.__dict__, "evidence": dict(self.evidence)}

    def __str__(self) -> str:
        where = self.location or self.subject
        head = f"{self.severity}: {self.title}" + (f" ({where})" if where else "")
        fix = f". Fix: {self.fix}" if self.fix else ""
        return f"{head}: {self.message.rstrip('.') if fix else self.message}{fix}"


def worst_first(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """Return the verdicts sorted from errors to notes, otherwise in their order."""
    return sorted(verdicts, key=lambda v: -SEVERITIES.index(v.severity))


def at_least(verdicts: Iterable[Verdict], severity: Severity) -> list[Verdict]:
    """Return the verdicts that are of this severity or worse, in their order."""
    floor = SEVERITIES.index(severity)
    return [v for v in verdicts if SEVERITIES.index(v.severity) >= floor]
