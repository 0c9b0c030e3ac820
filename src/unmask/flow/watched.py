"""The report on a watched training."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from unmask.flow.measure.statistics import FlowStats
from unmask.verdict import Severity, Verdict, at_least

if TYPE_CHECKING:
    from unmask.flow.training import Training

Key = tuple[str, str | None, str | None]


@dataclass(frozen=True)
class Watched:
    """The record of one model.

    Args:
        model: its class.
        parameters: the number of its parameters.
        history: the probed steps.
        steps: that it made.
        problem: why it could not be measured, or None.
    """

    model: str
    parameters: int
    history: tuple[FlowStats, ...]
    steps: int
    problem: str | None = None


@dataclass(frozen=True)
class WatchReport:
    """The report on a watched training.

    Args:
        models: that trained.
        verdicts: worst first.
        seconds: since the watch began.
        stamp: the provenance.
    """

    models: tuple[Watched, ...]
    verdicts: tuple[Verdict, ...]
    seconds: float
    stamp: dict[str, Any] = field(default_factory=dict)

    def at_least(self, severity: Severity) -> tuple[Verdict, ...]:
        """Return the verdicts of that severity or a worse one."""
        return tuple(at_least(self.verdicts, severity))

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain values."""
        return asdict(self)


def key(v: Verdict) -> Key:
    """Return what distinguishes a verdict from others of the same training."""
    return v.kind, v.subject, v.location


def record(training: Training) -> Watched:
    """Return the record of a training so far."""
    return Watched(
        type(training.module).__name__,
        sum(p.numel() for p in training.module.parameters()),
        tuple(training.history),
        training.probe.step,
        training.probe.problem,
    )
