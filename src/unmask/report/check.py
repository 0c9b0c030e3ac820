"""A flow check as one HTML page, as text for terminals and as annotations for pull requests."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from unmask.flow.check import FlowCheck
from unmask.flow.repair import Repair
from unmask.flow.theory import Profile
from unmask.flow.verdict import Verdict
from unmask.report.figures.check import check_figure
from unmask.report.figures.style import STYLES, to_svg
from unmask.report.html import render, stamp_rows

PAGE = "report.html"
SIGNS = {"error": ("bad", "✗"), "warning": ("mixed", "!"), "note": ("none", "–")}
_ANNOTATIONS = {"error": "error", "warning": "warning", "note": "notice"}


def check_page(check: FlowCheck, expected: Profile | None, repair: Repair | None) -> str:
    """Return the check's report as one HTML page that needs nothing else."""
    svg = to_svg(check_figure(check, expected), "check")
    return render(
        "check.html",
        {"where": where, "short": short},
        check=check,
        expected=expected is not None,
        repair=repair,
        signs=SIGNS,
        first=check.history[0],
        last=check.history[-1],
        figure=Markup(svg[svg.index("<svg") :]),
        stamp=stamp_rows(check.stamp),
        palette=STYLES,
    )


def check_lines(check: FlowCheck) -> list[str]:
    """Return the verdicts in plain lines, worst first."""
    steps = len(check.history)
    lines = [
        f"{check.model}: {check.parameters:,} parameters, "
        f"{len(check.history[0].matrix_layers)} layers, {steps} step{'s' if steps > 1 else ''}."
    ]
    for verdict in check.verdicts:
        sign = SIGNS[verdict.severity][1]
        lines.append(
            f"{sign} {verdict.severity}: {verdict.kind}{where(verdict)}: {verdict.message}"
        )
        if verdict.cause:
            lines.append(f"    cause: {verdict.cause}")
        lines.append(f"    fix: {verdict.fix}")
    if not check.verdicts:
        lines.append("✓ nothing stands in the gradient's way.")
    return lines


def repair_lines(repair: Repair) -> list[str]:
    """Return what every fix came to, and the code of the one that worked."""
    lines = [f"as it was: {_outcome(repair.before.losses, repair.before.accuracies)}"]
    for trial in repair.trials:
        sign = "✓" if trial is repair.best else " "
        outcome = _outcome(trial.losses, trial.accuracies)
        lines.append(f"{sign} {trial.name} ({trial.sets}): {outcome}")
    if repair.best is None:
        return [*lines, "None of them worked."]
    return [*lines, "", "# What worked, to paste after the model is made:", repair.best.code]


def annotate(check: FlowCheck, path: str) -> list[str]:
    """Return the verdicts as workflow commands of GitHub Actions, one a line."""
    return [
        f"::{_ANNOTATIONS[v.severity]} title=Unmask {_property(v.kind)}::"
        + _data(f"{path}{where(v)}: {v.message}. Fix: {v.fix}")
        for v in check.verdicts
    ]


def check_as_dict(check: FlowCheck, repair: Repair | None) -> dict[str, Any]:
    """Return check and repair as plain values fit for JSON: NaN and infinity as None."""
    found: dict[str, Any] = _plain(check.as_dict())
    found["repair"] = None if repair is None else _plain(repair.as_dict())
    return found


def where(verdict: Verdict) -> str:
    """Return the place of a verdict for a sentence: " in layer fc1", or nothing."""
    return f" in layer {verdict.layer}" if verdict.layer else ""


def short(value: float | None) -> str:
    """Return a figure to two digits, or a dash."""
    return "–" if value is None else f"{value:.2g}"


def _outcome(losses: tuple[float, ...], accuracies: tuple[float, ...]) -> str:
    said = "loss " + ", ".join(f"{loss:.3g}" for loss in losses)
    if accuracies:
        said += "; accuracy " + ", ".join(f"{a:.1%}" for a in accuracies)
    return said


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not abs(value) < float("inf"):
        return None
    return value


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
