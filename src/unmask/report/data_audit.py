"""A data audit as files: a page with the images in doubt, numbers as JSON, doubts as CSV."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from unmask.data.audit_result import DataAudit
from unmask.data.images import Images
from unmask.data.sources import Source
from unmask.report.figures.style import STYLES
from unmask.report.files import Content, to_csv, to_json, write_files
from unmask.report.html import render, stamp_rows
from unmask.report.shift import image_uri
from unmask.report.verdicts import SIGNS

_SHOWN = 24


def write_data_audit(found: DataAudit, data: Source | Images, folder: Path) -> list[Path]:
    """Write report.html, data/audit.json and data/labels.csv.

    Args:
        found: the audit.
        data: the audited images, for the page.
        folder: where the files go.

    Returns:
        The paths, the page first.

    Raises:
        UserError: when the folder can't be written.
    """
    files: dict[str, Content] = {
        "report.html": data_page(found, data),
        "data/audit.json": to_json(found.as_dict(), indent=1),
        "data/labels.csv": to_csv(_rows(found, data)),
    }
    return write_files(folder, files)


def data_page(found: DataAudit, data: Source | Images) -> str:
    """Return the report as one self-contained HTML page."""
    doubts = []
    for part, errors in found.label_errors.items():
        images = _part(data, part)
        for row, to in zip(errors.rows[:_SHOWN], errors.suggested[:_SHOWN], strict=True):
            given = images.class_names[images.labels[row]]
            suggested = images.class_names[to]
            doubts.append((image_uri(images.pixels[row]), f"{part} {row}", given, suggested))
    pairs = []
    for group in [*found.copies, *found.near][:_SHOWN]:
        shown = [(image_uri(_part(data, p).pixels[i]), f"{p} {i}") for p, i in group[:2]]
        pairs.append(shown)
    return render(
        "data_audit.html",
        found=found,
        signs=SIGNS,
        doubts=doubts[: 2 * _SHOWN],
        pairs=pairs,
        stamp=stamp_rows(found.provenance),
        palette=STYLES,
    )


def _part(data: Source | Images, part: str) -> Images:
    if isinstance(data, Images):
        return data
    images = {"train": data.train, "validation": data.validation, "test": data.test}[part]
    assert images is not None
    return images


def _rows(found: DataAudit, data: Source | Images) -> list[Sequence[object]]:
    table: list[Sequence[object]] = [("part", "row", "label", "suggested", "confidence")]
    for part, errors in found.label_errors.items():
        images = _part(data, part)
        names = images.class_names
        for row, to, sure in zip(errors.rows, errors.suggested, errors.confidence, strict=True):
            table.append((part, int(row), names[images.labels[row]], names[to], float(sure)))
    return table
