"""A check of a model as files: one page, JSON, SARIF, JUnit XML."""

from __future__ import annotations

from pathlib import Path

from unmask.check.result import Check, Comparison
from unmask.report.figures.style import STYLES
from unmask.report.files import Content, to_json, write_files
from unmask.report.html import render, stamp_rows
from unmask.report.verdicts import SIGNS, junit, sarif
from unmask.verdict import Severity

_STATUS = {"done": ("good", "✓"), "skipped": ("none", "–"), "failed": ("bad", "✗")}


def write_model_check(
    check: Check, folder: Path, *, comparison: Comparison | None = None, fail_on: Severity = "error"
) -> list[Path]:
    """Write report.html, check.json, check.sarif and check.junit.xml.

    Args:
        check: what was found.
        folder: where the files go.
        comparison: the changes since a baseline, shown on the page.
        fail_on: the severity from which JUnit counts a failure.

    Returns:
        The paths, the page first.

    Raises:
        UserError: when the folder can't be written.
    """
    asked = [p for p in check.parts if p.status != "skipped"]
    files: dict[str, Content] = {
        "report.html": check_page(check, comparison),
        "check.json": to_json(check.as_dict(), indent=1),
        "check.sarif": sarif(check.verdicts, check.model, figures=check.figures()),
        "check.junit.xml": junit(
            {p.name: p.verdicts for p in asked},
            name=check.model,
            fail_on=fail_on,
            skipped={p.name: p.reason for p in check.parts if p.status == "skipped"},
            seconds={p.name: p.seconds for p in check.parts},
        ),
    }
    return write_files(folder, files)


def check_page(check: Check, comparison: Comparison | None = None) -> str:
    """Return the report as one self-contained HTML page."""
    return render(
        "model_check.html",
        {"figure": _figure},
        check=check,
        comparison=comparison,
        signs=SIGNS,
        statuses=_STATUS,
        stamp=stamp_rows(check.provenance),
        palette=STYLES,
    )


def _figure(value: float) -> str:
    if float(value).is_integer() and abs(value) >= 2:
        return f"{int(value):,}"
    # What is left of differences of equal numbers is no figure.
    return f"{value:.4g}" if abs(value) > 1e-12 else "0"
