"""Images by classes as files: the page, the figures, the numbers and the images themselves."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unmask.fool.grid import Grid
from unmask.report.figures.grid import change_as_picture, columns, grid_figure, magnification
from unmask.report.figures.style import STYLES, to_png, to_svg
from unmask.report.files import Content, data_uri, to_csv, to_json, write_files
from unmask.report.html import render, stamp_rows
from unmask.text import percent


def write_grids(grids: Sequence[Grid], folder: Path) -> list[Path]:
    """Write report.html, figures/, data/ and every changed image as PNG.

    Args:
        grids: shown on the page one below the other.
        folder: where the files go; the page needs none of the others.

    Returns:
        The paths, the page first.

    Raises:
        UserError: when the folder can't be written.
    """
    files: dict[str, Content] = {"report.html": grid_page(grids)}
    for grid in grids:
        name = _file_name(grid.title)
        figure = grid_figure(grid)
        files[f"figures/{name}.svg"] = to_svg(figure, name)
        files[f"figures/{name}.png"] = to_png(figure)
        files[f"data/{name}.json"] = to_json(grid.as_dict(), indent=1)
        files[f"data/{name}.csv"] = _csv(grid)
        for i, (row, target) in enumerate(zip(grid.rows, grid.targets, strict=True)):
            aim = _file_name(grid.class_names[target])
            picture = f"pictures/{name}/{row + 1}-{_file_name(grid.names[row])}-as-{aim}.png"
            files[picture] = png(grid.changed[i])
    return write_files(folder, files)


def grid_page(grids: Sequence[Grid]) -> str:
    """Return the grids as one self-contained HTML page."""
    return render(
        "grid.html",
        {"two": "{:.2f}".format, "three": "{:.3f}".format},
        grids=[_section(grid) for grid in grids],
        stamp=stamp_rows(grids[0].stamp),
        command=grids[0].stamp.get("command", ""),
        palette=STYLES,
    )


def png(pixels: NDArray[np.float32]) -> bytes:
    """Return an image float32[c, h, w] in [0, 1] as the bytes of an 8-bit PNG."""
    values = np.rint(pixels * 255).clip(0, 255).astype(np.uint8).transpose(1, 2, 0)
    buffer = io.BytesIO()
    Image.fromarray(values if values.shape[2] == 3 else values[..., 0]).save(buffer, "PNG")
    return buffer.getvalue()


def _section(grid: Grid) -> dict[str, Any]:
    shown, times = columns(grid), magnification(grid)
    cells = {(r, t): i for i, (r, t) in enumerate(zip(grid.rows, grid.targets, strict=True))}
    outcome = grid.outcome
    rows = []
    for row in range(len(grid.originals)):
        own = np.flatnonzero(grid.rows == row)
        rows.append(
            {
                "name": grid.names[row],
                "label": grid.class_names[grid.labels[row]],
                "misjudged": None
                if grid.predicted[row] == grid.labels[row]
                else grid.class_names[grid.predicted[row]],
                "confidence": percent(grid.confidence[row]),
                "image": data_uri(png(grid.originals[row])),
                "cells": [
                    {"own": target == grid.labels[row]}
                    if (pair := cells.get((row, target))) is None
                    else _cell(grid, pair, times)
                    for target in shown
                ],
                "pairs": len(own),
                "fooled": int(outcome.reached_saved[own].sum()),
                "l2": outcome.l2[own].mean(),
                "linf": outcome.linf[own].mean(),
                "ssim": outcome.similarity[own].mean(),
                "steps": outcome.steps[own].mean(),
            }
        )
    return {
        "title": grid.title,
        "mode": grid.mode,
        "threat": str(grid.threat),
        "columns": [grid.class_names[k] for k in shown],
        "rows": rows,
        "times": times,
        "grey": grid.originals.shape[1] == 1,
        "pairs": len(grid.rows),
        "failures": grid.failures,
        "fooled": int(outcome.reached.sum()),
        "fooled_saved": int(outcome.reached_saved.sum()),
        "l2": float(outcome.l2.mean()),
        "linf": float(outcome.linf.mean()),
        "ssim": float(outcome.similarity.mean()),
        "steps": float(outcome.steps.mean()),
        "gradients": grid.cost.backwards / max(len(grid.rows), 1),
        "ms": 1000 * grid.seconds / max(len(grid.rows), 1),
    }


def _cell(grid: Grid, pair: int, times: int) -> dict[str, Any]:
    outcome = grid.outcome
    return {
        "own": False,
        "image": data_uri(png(grid.changed[pair])),
        "change": data_uri(png(change_as_picture(grid, pair, times))),
        "fooled": bool(outcome.reached_saved[pair]),
        "predicted": grid.class_names[outcome.predicted[pair]],
        "confidence": percent(outcome.confidence[pair]),
        "told": f"predicted {grid.class_names[outcome.predicted[pair]]}, "
        f"L2 {outcome.l2[pair]:.3f}, Linf {outcome.linf[pair] * 255:.0f}/255, "
        f"SSIM {outcome.similarity[pair]:.3f}, "
        f"{outcome.steps[pair]} steps",
    }


def _csv(grid: Grid) -> str:
    pairs = grid.as_dict()["pairs"]
    return to_csv([list(pairs[0]), *(pair.values() for pair in pairs)])


def _file_name(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "pictures"
