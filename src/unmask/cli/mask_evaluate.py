"""The verb mask evaluate: what a detector is worth on annotated pictures."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from unmask.data.annotated import read_annotated
from unmask.mask.detector import MaskDetector
from unmask.mask.metrics import DetectionMetrics, Row, measured

# Average precision goes through all thresholds, so boxes are wanted of far lower scores too.
_FLOOR = 0.01


def evaluate(
    folder: Annotated[
        Path, Parameter(help="a folder or zip with VOC, YOLO or COCO annotations and the pictures")
    ],
    /,
    *,
    model: Annotated[
        Path | None, Parameter(help="an ONNX file of mask export; what ships by default")
    ] = None,
    threshold: Annotated[
        float | None, Parameter(help="the score at which a box counts; the file's own by default")
    ] = None,
    json: Annotated[bool, Parameter(help="print the figures as JSON")] = False,
) -> int:
    """Measure a detector on annotated pictures: average precision, and tables by kind of face."""
    detector = MaskDetector.load(model)
    annotated, warnings = read_annotated(folder)
    annotated = annotated.with_classes(detector.class_names)
    found = [detector.detect(path, threshold=_FLOOR) for path in annotated.paths]
    least = detector.facts.face if threshold is None else threshold
    metrics = measured(annotated, found, threshold=least)
    if json:
        print(json_module.dumps({**metrics.as_dict(), "warnings": list(warnings)}))
    else:
        for line in warnings:
            Console(stderr=True).print(line, markup=False, highlight=False, soft_wrap=True)
        _print(Console(), metrics)
    return 0


def _print(console: Console, metrics: DetectionMetrics) -> None:
    for name, ap, (low, high) in zip(
        metrics.class_names, metrics.ap.tolist(), metrics.ap_intervals.tolist(), strict=True
    ):
        console.print(f"AP@50 {ap:.4f}  [{low:.3f}, {high:.3f}]  {name}", markup=False)
    low, high = metrics.mean_ap_interval
    console.print(
        f"mAP@50 {metrics.mean_ap:.4f}  [{low:.3f}, {high:.3f}]  on {metrics.pictures} pictures",
        markup=False,
    )
    table = Table(box=SIMPLE_HEAD)
    for heading in ("faces", "annotated", "recall", "precision", "class right", "judged"):
        table.add_column(heading)
    for row in (metrics.overall, *metrics.rows):
        table.add_row(*_cells(row))
    console.print(table)


def _cells(row: Row) -> tuple[str, ...]:
    parts = (row.recall, row.precision, row.accuracy)
    return (row.name, str(row.faces), *(f"{part:.3f}" for part in parts), str(row.judged))
