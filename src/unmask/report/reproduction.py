"""A reproduction as one self-contained HTML file, and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from unmask.coursework.sections import (
    AGREES,
    CORRECTED,
    DIFFERS,
    NOT_RUN,
    SOME_SEEDS,
    UNDECIDED,
    Cell,
    Picture,
    Reproduction,
)
from unmask.coursework.study.run import Study
from unmask.fool.grid import Grid
from unmask.report.figures.grid import faces_figure, grid_figure
from unmask.report.figures.study import study_figures
from unmask.report.figures.style import STYLES, to_png, to_svg
from unmask.report.files import to_json, write_files
from unmask.report.html import drawing, render, stamp_rows

PAGE, NUMBERS = "report.html", "reproduction.json"

# Each verdict's class in the style sheet, a sign that needs no colour, and the verdict's meaning.
_SIGNS = {
    AGREES: ("good", "✓", "within a tolerance that its cell states"),
    SOME_SEEDS: ("mixed", "≈", "one of the outcomes that our seeds had"),
    DIFFERS: ("bad", "✗", "outside the tolerance; the reason is in the cell"),
    CORRECTED: ("fixed", "✎", "the report is wrong; the correction is in the cell"),
    UNDECIDED: ("none", "?", "our figures do not decide it"),
    NOT_RUN: ("none", "–", "something it needs is missing; the cell names how to get it"),
}


class Figures:
    """Draws the figures of a reproduction: see unmask.coursework.exercise.Drawings."""

    def study(self, study: Study) -> dict[str, tuple[str, str]]:
        """Return every figure of a study by name, as SVG for a wide and for a narrow window."""
        narrow = study_figures(study, columns=1)
        return {
            name: (to_svg(figure, name), to_svg(narrow[name], f"{name}-narrow"))
            for name, figure in study_figures(study).items()
        }

    def grid(self, grid: Grid) -> bytes:
        """Return a grid of changed images as a PNG."""
        return to_png(grid_figure(grid))

    def faces(
        self, faces: Sequence[tuple[NDArray[np.uint8], str, bool]], rows: Sequence[str]
    ) -> bytes:
        """Return faces as a PNG.

        Args:
            faces: for each the pixels, uint8[3, h, w], a caption, and whether the prediction is
                right.
            rows: the titles of the rows, which the faces fill column by column.
        """
        return to_png(faces_figure(faces, rows))


def write_reproduction(found: Reproduction, folder: Path) -> list[Path]:
    """Write report.html and reproduction.json into the folder.

    Args:
        found: the reproduction.
        folder: where the files go.

    Returns:
        The paths, the page first.

    Raises:
        UserError: when the folder can't be written.
    """
    files = {PAGE: reproduction_page(found), NUMBERS: to_json(found.as_dict(), indent=1)}
    return write_files(folder, files)


def reproduction_page(found: Reproduction) -> str:
    """Return the reproduction as HTML."""
    return render(
        "reproduction.html",
        {"picture": _picture, "clock": clock, "anchor": _anchor},
        found=found,
        counts={v: n for v, n in found.counts.items() if n},
        total=sum(found.counts.values()),
        signs=_SIGNS,
        apart=_apart(found),
        absent=_absent(found),
        stamp=stamp_rows(found.stamp),
        palette=STYLES,
    )


def clock(seconds: float) -> str:
    """Return a duration in words: "0.4 s", "12 s", "3 min 5 s", "2 h 10 min"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _apart(found: Reproduction) -> dict[str, list[tuple[str, str, Cell]]]:
    """Return the cells that don't simply agree, by verdict: section, place in it, and cell."""
    cells = [(s.name, place, cell) for s in found.sections for place, cell in s.named()]
    sorted_out = {
        verdict: [entry for entry in cells if entry[2].verdict == verdict]
        for verdict in (DIFFERS, CORRECTED, SOME_SEEDS, UNDECIDED)
    }
    return {verdict: entries for verdict, entries in sorted_out.items() if entries}


def _absent(found: Reproduction) -> list[tuple[str, str, int]]:
    """Return the sections with figures that were not run: name, reason, and how many."""
    result = []
    for section in found.sections:
        cells = [c for _, c in section.named() if c.verdict == NOT_RUN]
        if cells:
            result.append((section.name, section.reason or cells[0].why, len(cells)))
    return result


def _picture(picture: Picture) -> Markup:
    if picture.png:
        return Markup('<img src="data:image/png;base64,{}" alt="{}">').format(
            picture.png, picture.alt
        )
    return drawing(picture.wide, picture.narrow)


def _anchor(name: str) -> str:
    return name.lower().replace(" ", "-")
