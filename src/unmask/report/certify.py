"""Certifications as files: one page, one figure, and every number."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from unmask.fool.certify.result import (
    ATTACKED,
    OPEN,
    PROVED,
    STAGES,
    STATUSES,
    WRONG,
    Certification,
)
from unmask.report.figures.certify import bracket_figure
from unmask.report.figures.style import STYLES, to_png, to_svg
from unmask.report.files import Content, to_csv, to_json, write_files
from unmask.report.html import drawing, render, stamp_rows
from unmask.report.notation import NORMS

PAGE = "report.html"
WORDS = {
    PROVED: "proved robust",
    OPEN: "open: neither proved nor attacked",
    ATTACKED: "attacked",
    WRONG: "misclassified unchanged",
}


def write_certification(found: Certification, folder: Path) -> Path:
    """Write report.html, figures/ and data/ into the folder and return the page's path.

    Args:
        found: the certification.
        folder: where the files go.

    Raises:
        UserError: when the folder can't be written.
    """
    figure = bracket_figure(found)
    svg = to_svg(figure, "bracket")
    narrow = to_svg(bracket_figure(found, narrow=True), "bracket-narrow")
    page = render(
        "certify.html",
        {"count": "{:,}".format},
        found=found,
        norm=NORMS[found.plan.norm],
        bracket=bracket(found),
        rows=rows(found),
        stages=[(name, count) for name, count in found.stages() if count],
        verdicts=found.verdicts(),
        figure=drawing(svg, narrow),
        stamp=stamp_rows(found.stamp),
        palette=STYLES,
    )
    files: dict[str, Content] = {
        "figures/bracket.svg": svg,
        "figures/bracket.png": to_png(figure),
        "data/images.csv": _csv(found),
        "data/certification.json": to_json(found.as_dict()),
        PAGE: page,
    }
    write_files(folder, files)
    return folder / PAGE


def rows(found: Certification) -> list[tuple[str, int, str]]:
    """Return each status in words, its count, and its fraction of all with the 95 % interval."""
    return [(WORDS[s], found.count(s), fraction(found, found.count(s))) for s in WORDS]


def fraction(found: Certification, count: int) -> str:
    """Return a count as a fraction of all images, in per cent with its 95 % interval."""
    low, high = found.interval(count)
    text = f"{count / max(len(found), 1):.1%} ({low:.1%} to {high:.1%})"
    return text.replace("%", " %")


def bracket(found: Certification) -> str:
    """Return the bounds between which robust accuracy lies, in one sentence."""
    proved, open_ = found.count(PROVED), found.count(OPEN)
    n = max(len(found), 1)
    text = (
        f"Robust accuracy at {NORMS[found.plan.norm]} {found.plan.eps:.4g} is at least "
        f"{proved / n:.2%} (proved) and at most {(proved + open_) / n:.2%} (attacked)."
    )
    return text.replace("%", " %")


def _csv(found: Certification) -> str:
    lines: list[tuple[object, ...]] = [("image", "class", "predicted", "status", "by", "bound")]
    names = found.class_names
    for i in range(len(found)):
        bound = found.bound[i]
        lines.append(
            (
                int(found.rows[i]),
                names[found.labels[i]],
                names[found.predicted[i]],
                STATUSES[found.status[i]],
                STAGES[found.stage[i]],
                f"{bound:.6g}" if np.isfinite(bound) else "",
            )
        )
    return to_csv(lines)
