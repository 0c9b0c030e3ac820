"""The depth study as files: the page, the figures, and every number as CSV and JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from unmask.coursework.study import comparison, outcomes, profiles
from unmask.coursework.study.findings import findings
from unmask.coursework.study.outcomes import trained_bar
from unmask.coursework.study.plan import StudyPlan
from unmask.coursework.study.profiles import Profile
from unmask.coursework.study.run import Study
from unmask.models.activations import activation
from unmask.report.figures.study import study_figures
from unmask.report.figures.style import STYLES, to_png, to_svg
from unmask.report.files import Content, plain, to_csv, to_json, write_files
from unmask.report.html import drawing, render, said, stamp_rows
from unmask.sweep.history import CURVES, LAYER_STATISTICS, STATUS_NAMES, TEST_FIGURES
from unmask.text import figure as figure_text
from unmask.text import listed

PAGE = "report.html"
# Each verdict's class in the style sheet, and a sign that needs no colour.
_SIGNS = {
    outcomes.AGREES: ("good", "✓"),
    outcomes.TOSS: ("mixed", "≈"),
    outcomes.DIFFERS: ("bad", "✗"),
    outcomes.NO_FIGURE: ("none", "–"),
    profiles.HOLDS: ("good", "✓"),
    profiles.SOMETIMES: ("mixed", "≈"),
    profiles.FAILS: ("bad", "✗"),
}


def write_study(study: Study, folder: Path) -> list[Path]:
    """Write the study's page, figures and tables into the folder.

    Every file is complete or absent.

    Args:
        study: what was found.
        folder: where the files go.

    Returns:
        The paths, the page first.

    Raises:
        UserError: when the folder can't be written.
    """
    wide, narrow = study_figures(study), study_figures(study, columns=1)
    drawings = {name: to_svg(figure, name) for name, figure in wide.items()}
    narrow_drawings = {name: to_svg(figure, f"{name}-narrow") for name, figure in narrow.items()}
    files: dict[str, Content] = {PAGE: study_page(study, drawings, narrow_drawings)}
    for name, figure in wide.items():
        files[f"figures/{name}.svg"] = drawings[name]
        files[f"figures/{name}.png"] = to_png(figure)
    for name, rows in _tables(study).items():
        files[f"data/{name}.csv"] = to_csv(rows)
    files["data/study.json"] = to_json(study_as_dict(study))
    return write_files(folder, files)


def study_page(study: Study, wide: dict[str, str], narrow: dict[str, str]) -> str:
    """Return the study's report as HTML.

    Args:
        study: what was found.
        wide: every figure of the study as SVG, by name.
        narrow: the same figures one panel wide.
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
        figures={name: drawing(wide[name], narrow[name]) for name in wide},
        palette=STYLES,
        has_zeros=any(
            (p.maxima == 0).any() for p in (*study.profiles_start, *study.profiles_after)
        ),
    )


def summary_as_dict(study: Study) -> dict[str, Any]:
    """Return provenance, findings and tables of B, C and D as plain values, with None for NaN."""
    found: dict[str, Any] = plain(
        {
            "stamp": study.stamp,
            "findings": list(findings(study)),
            "chance": study.chance,
            "trained_above": trained_bar(study.chance),
            "outcomes": [asdict(o) for o in study.outcomes],
            "gradients": [
                _profile_as_dict(p) for p in (*study.profiles_start, *study.profiles_after)
            ],
            "claims": [asdict(c) for c in study.claims],
            "comparison": [asdict(c) for c in study.comparison],
        }
    )
    return found


def study_as_dict(study: Study) -> dict[str, Any]:
    """Return the summary and, under "nets", every figure of every net as plain values."""
    history = study.history
    nets = [
        {
            "spec": spec.as_dict(),
            "status": STATUS_NAMES[history.status[i]],
            "diverged_step": int(history.diverged_step[i]),
            **{name: history.test[name][i] for name in TEST_FIGURES},
            **{name: history.curves[name][i, : spec.epochs] for name in CURVES},
            "layers": {
                str(epoch): {
                    name: history.layers[name][i, probe, : spec.depth + 1]
                    for name in LAYER_STATISTICS
                }
                for probe, epoch in enumerate(history.probe_epochs)
            },
        }
        for i, spec in enumerate(history.specs)
    ]
    return {**summary_as_dict(study), "nets": plain(nets)}


def _profile_as_dict(profile: Profile) -> dict[str, Any]:
    return {
        "depth": profile.depth,
        "activation": profile.activation,
        "epoch": profile.epoch,
        "gradient_max_median": profile.median,
        "gradient_max": profile.maxima,
    }


Row = Sequence[Any]


def _tables(study: Study) -> dict[str, Iterable[Row]]:
    return {
        "outcomes": _outcome_rows(study),
        "nets": _net_rows(study),
        "curves": _curve_rows(study),
        "layers": _layer_rows(study),
    }


def _outcome_rows(study: Study) -> Iterator[Row]:
    spread = ("mean", "std", "low", "high")
    yield (
        *("depth", "activation", "seeds", "trained", "diverged"),
        *("trained_share_low", "trained_share_high"),
        *(f"{name}_{part}" for name in TEST_FIGURES for part in spread),
        *("document_test_loss", "document_test_accuracy", "agreement", "sentence"),
    )
    for o in study.outcomes:
        yield (
            *(o.depth, o.activation, o.seeds, o.trained, o.diverged, *o.trained_interval),
            *(getattr(s, part) for s in (o.test_loss, o.test_accuracy) for part in spread),
            *((o.document.test_loss, o.document.test_accuracy) if o.document else (None, None)),
            *(o.agreement, o.sentence),
        )


def _net_rows(study: Study) -> Iterator[Row]:
    history = study.history
    names = list(history.specs[0].as_dict())
    yield (*names, "status", "diverged_step", *TEST_FIGURES)
    for i, spec in enumerate(history.specs):
        yield (
            *spec.as_dict().values(),
            STATUS_NAMES[history.status[i]],
            history.diverged_step[i],
            *(history.test[name][i] for name in TEST_FIGURES),
        )


def _curve_rows(study: Study) -> Iterator[Row]:
    history = study.history
    yield ("depth", "activation", "seed", "epoch", *CURVES)
    for i, spec in enumerate(history.specs):
        for epoch in range(spec.epochs):
            figures = (history.curves[name][i, epoch] for name in CURVES)
            yield (spec.depth, spec.activation, spec.seed, epoch + 1, *figures)


def _layer_rows(study: Study) -> Iterator[Row]:
    history = study.history
    yield ("depth", "activation", "seed", "after_epochs", "layer", *LAYER_STATISTICS)
    for i, spec in enumerate(history.specs):
        for probe, epoch in enumerate(history.probe_epochs):
            for layer in range(spec.depth + 1):
                figures = (history.layers[name][i, probe, layer] for name in LAYER_STATISTICS)
                yield (spec.depth, spec.activation, spec.seed, epoch, layer + 1, *figures)


def _four(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.4f}"


def _title(name: str) -> str:
    return activation(name).title


def _settings(plan: StudyPlan) -> list[tuple[str, str, str]]:
    """Return every setting as (name, value, the report's value where it differs)."""
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
