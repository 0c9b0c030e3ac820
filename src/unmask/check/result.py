"""The result of a check: its parts, their verdicts, and the changes since another check."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from unmask.errors import UserError
from unmask.runtime import read_regular
from unmask.saved_state import MAX_JSON_BYTES
from unmask.verdict import SEVERITIES, Severity, Verdict, at_least, worst_first

Status = Literal["done", "skipped", "failed"]
Change = Literal["new", "worse", "same", "better", "gone", "not asked"]


@dataclass(frozen=True)
class Part:
    """One question of a check.

    Args:
        name: such as "shift".
        status: "done", "skipped" or "failed".
        reason: why it was skipped or failed, or how it was limited; "" otherwise.
        seconds: the time it took.
        figures: the measurements, by name.
        verdicts: the faults found.
        tried: the corruptions that were measured, of a question that may leave some out.
    """

    name: str
    status: Status
    reason: str = ""
    seconds: float = 0.0
    figures: dict[str, float] = field(default_factory=dict)
    verdicts: tuple[Verdict, ...] = ()
    tried: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the part as plain values."""
        return {**self.__dict__, "verdicts": [v.as_dict() for v in self.verdicts]}


@dataclass(frozen=True)
class Check:
    """The answers to all questions about one model.

    Args:
        model: its name.
        data: the name of the images.
        parts: in the order of the questions.
        minutes: the time that was allowed.
        seconds: the time that was used.
        provenance: what is needed to replay it.
    """

    model: str
    data: str
    parts: tuple[Part, ...]
    minutes: float
    seconds: float
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def verdicts(self) -> list[Verdict]:
        """All verdicts, worst first."""
        return worst_first(v for part in self.parts for v in part.verdicts)

    @property
    def unanswered(self) -> str:
        """Why nothing can be concluded, as where the model took no image; "" otherwise.

        A gate must not pass on a check of this kind, however few verdicts there are.
        """
        asked = [p for p in self.parts if p.name != "preflight"]
        for part in self.parts:
            if part.name == "preflight" and part.status == "failed":
                return f"the preflight failed: {part.reason}"
        if asked and not any(p.status == "done" for p in asked):
            return f"no question was answered: {asked[0].name}: {asked[0].reason}"
        return ""

    @property
    def healthy(self) -> bool:
        """Whether no verdict is an error."""
        return not at_least(self.verdicts, "error")

    def figures(self) -> dict[str, float]:
        """Return all figures by name, each with its part as a prefix, such as "shift.ece"."""
        return {f"{p.name}.{k}": v for p in self.parts for k, v in p.figures.items()}

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "model": self.model,
            "data": self.data,
            "minutes": self.minutes,
            "seconds": self.seconds,
            "healthy": self.healthy,
            "figures": self.figures(),
            "verdicts": [v.as_dict() for v in self.verdicts],
            "parts": [p.as_dict() for p in self.parts],
            "provenance": self.provenance,
        }

    def save(self, folder: str | Path) -> list[Path]:
        """Write report.html, check.json, check.sarif and check.junit.xml; return their paths.

        Args:
            folder: for the files, made if it is missing.

        Raises:
            UserError: when the folder can't be written.
        """
        # The report writers lie in a higher layer.
        import importlib

        written: list[Path] = importlib.import_module(
            "unmask.report.model_check"
        ).write_model_check(self, Path(folder))
        return written

    def __str__(self) -> str:
        lines = [f"{self.model} on {self.data}, {self.seconds:.0f} s"]
        lines += [str(v) for v in self.verdicts] or ["nothing was found wrong"]
        lines += [f"{p.name}: {p.status}: {p.reason}" for p in self.parts if p.reason]
        return "\n".join(lines)


@dataclass(frozen=True)
class Comparison:
    """The changes since an earlier check.

    Args:
        changes: (change, verdict) of every verdict of the new check, and of those that are gone,
            or whose question wasn't answered this time.
        figures: by name, the earlier and the new figure where both exist and differ.
    """

    changes: tuple[tuple[Change, Verdict], ...]
    figures: dict[str, tuple[float, float]]

    @property
    def worse(self) -> list[Verdict]:
        """The verdicts that are new or more severe."""
        return [v for change, v in self.changes if change in ("new", "worse")]


@dataclass(frozen=True)
class Baseline:
    """An earlier check, as read from its check.json.

    Args:
        verdicts: by kind and subject, the worst of each.
        questions: by kind and subject, the question that found it and the names of its figures and
            of the corruption that it is about.
        figures: by name, each with its question as a prefix.
    """

    verdicts: dict[tuple[str, str | None], Verdict]
    questions: dict[tuple[str, str | None], tuple[str, frozenset[str]]]
    figures: dict[str, float]


def read_baseline(baseline: Path) -> Baseline:
    """Return the check that a check.json holds.

    Args:
        baseline: the check.json of an earlier check.

    Raises:
        UserError: when the file is missing or isn't a check.json.
    """
    try:
        old = json.loads(read_regular(baseline, MAX_JSON_BYTES))
        verdicts: dict[tuple[str, str | None], Verdict] = {}
        for v in worst_first(Verdict(**v) for v in old["verdicts"]):
            SEVERITIES.index(v.severity)
            verdicts.setdefault((v.kind, v.subject), v)
        figures = {str(k): float(v) for k, v in old["figures"].items() if v is not None}
        questions = {
            (v["kind"], v["subject"]): (
                str(part["name"]),
                frozenset(part["figures"]) | {v["subject"]} & set(part.get("tried", ())),
            )
            for part in old.get("parts", ())
            for v in part["verdicts"]
        }
    except UserError:
        raise
    except OSError as error:
        raise UserError("can't read the baseline", got=baseline, do="give a check.json") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            "the baseline is no check.json", got=f"{baseline}: {error}", do="run unmask check first"
        ) from error
    return Baseline(verdicts, questions, figures)


def compare(now: Check, baseline: Path | Baseline) -> Comparison:
    """Return the changes since an earlier check.

    Args:
        now: the new check.
        baseline: the earlier one, or its check.json.

    Raises:
        UserError: when the file is missing or isn't a check.json.
    """
    old = baseline if isinstance(baseline, Baseline) else read_baseline(baseline)
    changes: list[tuple[Change, Verdict]] = []
    for v in now.verdicts:
        earlier = old.verdicts.get((v.kind, v.subject))
        before = None if earlier is None else SEVERITIES.index(earlier.severity)
        here = SEVERITIES.index(v.severity)
        change: Change = (
            "new"
            if before is None
            else "worse"
            if here > before
            else "better"
            if here < before
            else "same"
        )
        changes.append((change, v))
    present = {(v.kind, v.subject) for v in now.verdicts}
    answered = {p.name: {*p.figures, *p.tried} for p in now.parts if p.status == "done"}
    for key, v in old.verdicts.items():
        if key in present:
            continue
        question, names = old.questions.get(key, ("", frozenset()))
        # What was measured less thoroughly may have missed it.
        again = not question or (question in answered and names <= answered[question])
        changes.append(("gone" if again else "not asked", v))
    new = now.figures()
    return Comparison(
        tuple(changes),
        {k: (f, new[k]) for k, f in old.figures.items() if k in new and f != new[k]},
    )


def failing(verdicts: list[Verdict], fail_on: Severity | Literal["never"]) -> list[Verdict]:
    """Return the verdicts that a check fails for."""
    return [] if fail_on == "never" else at_least(verdicts, fail_on)
