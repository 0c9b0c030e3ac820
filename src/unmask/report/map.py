"""The trainability map as files: page, figure, numbers."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from unmask.flow.map import TrainabilityMap
from unmask.models.activations import activation
from unmask.report.figures.map import map_figure
from unmask.report.figures.style import STYLES, to_png, to_svg
from unmask.report.files import Content, data_uri, plain, to_csv, to_json, write_files
from unmask.report.html import render, said, stamp_rows


def write_map(found: TrainabilityMap, folder: Path) -> list[Path]:
    """Write report.html, the figure as SVG and PNG, and the numbers as CSV and JSON.

    Args:
        found: the map.
        folder: where the files go.

    Returns:
        The paths, the page first.

    Raises:
        UserError: when the folder can't be written.
    """
    figure = map_figure(found)
    png = to_png(figure)
    files: dict[str, Content] = {
        "report.html": _page(found, png),
        "figures/map.svg": to_svg(figure, "map"),
        "figures/map.png": png,
        "data/map.csv": _csv(found),
        "data/map.json": to_json(map_as_dict(found), indent=1),
    }
    return write_files(folder, files)


def map_as_dict(found: TrainabilityMap) -> dict[str, Any]:
    """Return the map as plain values, with None for NaN and infinity."""
    return {
        "sigma_w2": plain(found.plan.sigma_w2()),
        "depths": found.plan.depths().tolist(),
        "accuracy": plain(found.accuracy),
        "trainable_depth": plain(found.trainable_depth),
        "critical_sigma_w2": found.critical,
        "chance": found.chance,
        "agreement": found.agreement,
        "stamp": found.stamp,
    }


def _csv(found: TrainabilityMap) -> str:
    rows: list[list[Any]] = [["depth", "sigma_w2", "test_accuracy", "trainable_depth"]]
    for depth, row in zip(found.plan.depths(), found.accuracy, strict=True):
        columns = zip(found.plan.sigma_w2(), row, found.trainable_depth, strict=True)
        rows += [[depth, *column] for column in columns]
    return to_csv(rows)


def _page(found: TrainabilityMap, png: bytes) -> str:
    plan = found.plan
    return render(
        "map.html",
        found=found,
        plan=plan,
        title=activation(plan.activation).title,
        nets=found.accuracy.size,
        diverged=int(np.isnan(found.accuracy).sum()),
        image=data_uri(png),
        settings=[(k.replace("_", " "), said(v)) for k, v in asdict(plan).items() if v is not None],
        stamp=stamp_rows(found.stamp),
        palette=STYLES,
    )
