"""A detector's figures on the console, for mask train and mask evaluate."""

from __future__ import annotations

import math

from rich.box import SIMPLE_HEAD
from rich.table import Table

from unmask.cli.console import Console
from unmask.mask.evaluate.confidence import TOLERATED_GAP, Reliability
from unmask.mask.evaluate.metrics import DetectionMetrics, Row
from unmask.mask.runtime.classes import plain_words
from unmask.stats import wilson

_OF = {"face": "that it is a face", "class": "of its class"}


def print_metrics(console: Console, metrics: DetectionMetrics) -> None:
    """Print average precision, and recall, precision and accuracy by kind of face."""
    for name, ap, interval in zip(
        metrics.class_names, metrics.ap.tolist(), metrics.ap_intervals.tolist(), strict=True
    ):
        console.print(f"AP@50  {_figure(ap, interval)}  {plain_words(name)}", markup=False)
    figure = _figure(metrics.mean_ap, metrics.mean_ap_interval)
    pictures = f"{metrics.pictures:,} image{'s' * (metrics.pictures != 1)}"
    console.print(f"mAP@50 {figure}  on {pictures}", markup=False)
    table = Table(
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        caption=f"% at the threshold {metrics.threshold:.2f} (95 % interval)",
    )
    table.add_column("faces", no_wrap=True)
    for heading in ("count", "recall", "precision", "class right"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in (metrics.overall, *metrics.rows):
        table.add_row(*_cells(row))
    console.print(table)


def print_reliabilities(console: Console, found: dict[str, Reliability]) -> None:
    """Print how far the stated confidence is from the accuracy."""
    for of, reliability in found.items():
        worst = max(reliability.bins, key=lambda b: b.gap, default=None)
        if worst is None:
            console.print(f"confidence {_OF[of]}: there are no answers", markup=False)
            continue
        good = "within" if worst.gap <= TOLERATED_GAP else "not within"
        console.print(
            f"confidence {_OF[of]}: {100 * reliability.mean_gap:.1f} points from the truth on "
            f"average, {100 * worst.gap:.1f} at most (stated {worst.confidence:.1%}, right "
            f"{worst.right / worst.count:.1%} of {worst.count}): {good} "
            f"{100 * TOLERATED_GAP:.0f} points",
            markup=False,
            highlight=False,
        )


def _cells(row: Row) -> tuple[str, ...]:
    return (
        plain_words(row.name),
        f"{row.faces:,}",
        _part(row.found, row.faces),
        _part(row.found, row.found + row.alarms),
        _part(row.right, row.judged),
    )


def _part(part: int, whole: int) -> str:
    if not whole:
        return "-"
    low, high = wilson(part, whole)
    return f"{100 * part / whole:.1f} ({100 * low:.0f}-{100 * high:.0f})"


def _figure(value: float, interval: tuple[float, float] | list[float]) -> str:
    if math.isnan(value):
        return "none annotated   "
    low, high = interval
    return f"{value:.3f} ({low:.3f}-{high:.3f})"
