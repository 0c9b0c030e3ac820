"""The study as one HTML file that needs nothing else: no network, no script, no other file."""

from __future__ import annotations

import math
from dataclasses import fields

from markupsafe import Markup

from unmask.coursework.study import comparison, outcomes, profiles
from unmask.coursework.study.findings import findings
from unmask.coursework.study.run import Study, StudyPlan
from unmask.models.activations import activation
from unmask.report.figures.style import STYLES
from unmask.report.html import render, said, stamp_rows
from unmask.report.inline import inline_svg
from unmask.text import figure as figure_text
from unmask.text import listed

# A verdict's place in the style sheet and the sign that tells it without colour.
_SIGNS = {
    outcomes.AGREES: ("good", "✓"),
    outcomes.TOSS: ("mixed", "≈"),
    outcomes.DIFFERS: ("bad", "✗"),
    outcomes.NO_FIGURE: ("none", "–"),
    profiles.HOLDS: ("good", "✓"),
    profiles.SOMETIMES: ("mixed", "≈"),
    profiles.FAILS: ("bad", "✗"),
}


def study_page(study: Study, wide: dict[str, str], narrow: dict[str, str]) -> str:
    """Return the study's report as HTML.

    wide and narrow: every figure of the study as SVG by name, the latter one panel wide.
    """
    return render(
        "study.html",
        {"four": _four, "figure": figure_text, "title": _title, "listed": listed},
        outcome_rules=outcomes,
        profile_rules=profiles,
        signs=_SIGNS,
        study=study,
        plan=study.plan,
        findings=findings(study),
        bar=outcomes.trained_bar(study.chance),
        cells={(o.depth, o.activation): o for o in study.outcomes},
        pairs=list(zip(study.profiles_start, study.profiles_after, strict=True)),
        throughout=comparison.throughout(study.comparison) if study.comparison else "",
        similar=comparison.SIMILAR,
        settings=_settings(study.plan),
        stamp=stamp_rows(study.stamp),
        figures={
            name: Markup(inline_svg(wide[name], "wide") + inline_svg(narrow[name], "narrow"))
            for name in wide
        },
        palette=STYLES,
        has_zeros=any(
            (p.maxima == 0).any() for p in (*study.profiles_start, *study.profiles_after)
        ),
    )


def _four(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.4f}"


def _title(name: str) -> str:
    return activation(name).title


def _settings(plan: StudyPlan) -> list[tuple[str, str, str]]:
    """Return every setting as (name, value, the document's where it is another)."""
    departures = plan.departures()
    return [
        (
            f.name.replace("_", " "),
            said(getattr(plan, f.name)),
            said(f.default) if f.name in departures else "",
        )
        for f in fields(plan)
        if getattr(plan, f.name) is not None or f.name in departures
    ]
