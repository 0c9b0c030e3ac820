"""A shift measurement as files: a page with images at each severity, numbers as JSON and CSV."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from unmask.data.images import Images
from unmask.report.figures.style import STYLES
from unmask.report.files import Content, data_uri, to_csv, to_json, write_files
from unmask.report.html import render, stamp_rows
from unmask.shift.corruptions.registry import corrupt
from unmask.shift.result import Shift
from unmask.shift.scores import Scores

SIGNS = {"error": ("bad", "✗"), "warning": ("mixed", "!"), "note": ("none", "–")}
_SIDE, _GAP = 112, 4


def write_shift(found: Shift, images: Images, folder: Path) -> list[Path]:
    """Write report.html, data/shift.json and data/shift.csv.

    Args:
        found: the measurement.
        images: some of those it was made on; the first is shown under every corruption.
        folder: where the files go.

    Returns:
        The paths, the page first.

    Raises:
        UserError: when the folder can't be written.
    """
    files: dict[str, Content] = {
        "report.html": shift_page(found, images),
        "data/shift.json": to_json(found.as_dict(), indent=1),
        "data/shift.csv": to_csv(_rows(found)),
    }
    return write_files(folder, files)


def shift_page(found: Shift, images: Images) -> str:
    """Return the report as one self-contained HTML page."""
    figures = found.figures()
    rows = sorted(found.cells.items(), key=lambda x: sum(c.accuracy for c in x[1]))
    return render(
        "shift.html",
        {"percent": percent, "heat": _heat, "interval": _interval},
        found=found,
        figures=figures,
        rows=[(name, row, strip(images, name, found)) for name, row in rows],
        severities=[f"{s:g}" for s in found.plan.severities],
        signs=SIGNS,
        stamp=stamp_rows(found.provenance),
        palette=STYLES,
    )


def strip(images: Images, name: str, found: Shift) -> str:
    """Return the first image, clean and at each severity of a corruption, as a PNG's data URI."""
    pixels = torch.tensor(images.pixels[:1]).float() / 255
    seed = found.plan.seed
    shown = [pixels[0], *(corrupt(pixels, name, s, seed=seed)[0] for s in found.plan.severities)]
    tiles = [_tile((x.clamp(0, 1) * 255).round().byte().numpy()) for x in shown]
    gap = np.full((tiles[0].shape[0], _GAP, tiles[0].shape[2]), 255, np.uint8)
    parts = [part for tile in tiles for part in (tile, gap)][:-1]
    return data_uri(_png(np.concatenate(parts, 1)))


def image_uri(pixels: NDArray[np.uint8]) -> str:
    """Return an image uint8[c, h, w], at the size that pages show, as the data URI of a PNG."""
    return data_uri(_png(_tile(pixels)))


def _tile(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return uint8[height, width, c], small images enlarged by a whole factor."""
    from PIL import Image

    x = pixels.transpose(1, 2, 0)
    height, width = x.shape[:2]
    if max(height, width) <= _SIDE:
        times = max(1, _SIDE // max(height, width))
        return x.repeat(times, 0).repeat(times, 1)
    scale = _SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    image = Image.fromarray(x if x.shape[2] == 3 else x[..., 0]).resize(size)
    return np.asarray(image).reshape(size[1], size[0], -1)


def _png(pixels: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0]).save(buffer, "PNG")
    return buffer.getvalue()


def percent(value: float | None) -> str:
    """Return a fraction in per cent to one decimal, or a dash where there is none."""
    return "–" if value is None else f"{100 * value:.1f} %"


def _interval(scores: Scores) -> str:
    low, high = scores.interval
    return f"{100 * low:.1f} to {100 * high:.1f} %"


def _heat(accuracy: float, clean: float) -> str:
    """Return the style class of a cell, by the fraction of the clean accuracy that is left."""
    left = accuracy / clean if clean else 0.0
    return "good" if left >= 0.95 else "mixed" if left >= 0.7 else "bad"


_COLUMNS = (
    *("corruption", "severity", "images", "right", "accuracy", "interval_95_low"),
    *("interval_95_high", "confidence", "ece", "auroc", "flip_rate", "smallest_severity"),
)


def _rows(found: Shift) -> list[Sequence[object]]:
    table: list[Sequence[object]] = [_COLUMNS]
    table.append(["clean", 0, *_scores(found.clean), None, None])
    for name, row in found.cells.items():
        for severity, cell in zip(found.plan.severities, row, strict=True):
            end = (found.flips[name], found.smallest.get(name))
            table.append([name, severity, *_scores(cell), *end])
    return table


def _scores(cell: Scores) -> list[object]:
    low, high = cell.interval
    return [
        *(cell.images, cell.right, cell.accuracy, low, high),
        *(cell.confidence, cell.ece, cell.auroc),
    ]
