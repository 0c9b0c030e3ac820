"""A flow check as files: page, figure, numbers; and the texts that pages and terminals share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from markupsafe import Markup

from unmask.flow.check import FlowCheck
from unmask.flow.measure.statistics import LayerStats
from unmask.flow.profile import NoPrediction, Prediction
from unmask.flow.repair import Repair
from unmask.flow.watched import WatchReport
from unmask.report.figures.check import BAND, profile_figure
from unmask.report.figures.style import STYLES, to_png, to_svg
from unmask.report.files import Content, plain, to_csv, to_json, write_files
from unmask.report.html import drawing, render, stamp_rows
from unmask.verdict import Verdict

SIGNS = {"error": ("bad", "✗"), "warning": ("mixed", "!"), "note": ("none", "–")}


def write_check(
    check: FlowCheck,
    prediction: Prediction | NoPrediction,
    repair: Repair | None,
    fed: str,
    folder: Path,
    *,
    verb: str = "check",
) -> list[Path]:
    """Write report.html, the figure as SVG and PNG, and the numbers as CSV and JSON.

    Args:
        check: what was found.
        prediction: the expected and the measured profile, or why there is none.
        repair: the fixes that were tried, or None.
        fed: the input of the network, in words.
        folder: where the files go.
        verb: of `unmask flow`, which found it.

    Returns:
        The paths, the page first.

    Raises:
        UserError: when the folder can't be written.
    """
    wide = profile_figure(check, prediction)
    svg = to_svg(wide, "profile")
    narrow = to_svg(profile_figure(check, prediction, narrow=True), "profile-narrow")
    figure = drawing(svg, narrow)
    files: dict[str, Content] = {
        "report.html": _page(check, prediction, repair, fed, figure, verb),
        "figures/profile.svg": svg,
        "figures/profile.png": to_png(wide),
        "data/layers.csv": _csv(check, prediction),
        "data/check.json": to_json(check_as_dict(check, prediction, repair)),
    }
    return write_files(folder, files)


def check_as_dict(
    check: FlowCheck, prediction: Prediction | NoPrediction, repair: Repair | None
) -> dict[str, Any]:
    """Return all that was found as plain values, with None for what is not finite.

    Args:
        check: what was found.
        prediction: the expected and the measured profile, or why there is none.
        repair: the result of each fix that was tried, or None.

    Returns:
        The check's own entries, and "prediction" and "repair".
    """
    found: dict[str, Any] = plain(
        {
            **check.as_dict(),
            "prediction": asdict(prediction),
            "repair": None if repair is None else repair.as_dict(),
        }
    )
    return found


def watch_as_dict(report: WatchReport) -> dict[str, Any]:
    """Return all that was found as plain values, with None for what is not finite."""
    found: dict[str, Any] = plain(report.as_dict())
    return found


def write_watch(report: WatchReport, folder: Path) -> list[Path]:
    """Write report.html with its figure, and data/watch.json.

    Args:
        report: of a training in which a model was seen.
        folder: where the files go.

    Returns:
        The paths, the page first; data/watch.json alone where no step was measured.

    Raises:
        UserError: when the folder can't be written.
    """
    main = max(report.models, key=lambda m: (bool(m.history), m.parameters))
    numbers = {"data/watch.json": to_json(watch_as_dict(report))}
    if not main.history:
        return write_files(folder, numbers)
    check = FlowCheck(main.model, main.parameters, main.history, report.verdicts, report.stamp)
    reason = NoPrediction("it was watched in its own training")
    fed = f"watched for {main.steps:,} steps, {len(main.history)} of them measured"
    files = write_check(check, reason, None, fed, folder, verb="watch")
    return [*files, *write_files(folder, numbers)]


def headline(check: FlowCheck) -> str:
    """Return in words what was checked."""
    layers, steps = len(check.history[0].matrix_layers), len(check.history)
    last = check.history[-1]
    trained = "the first batch alone"
    if last.optimizer is not None and last.learning_rate is not None:
        trained = f"{steps} step{'s' * (steps > 1)} of {last.optimizer}"
        trained += f" at learning rate {last.learning_rate:g}"
    return (
        f"{check.model} of {check.parameters:,} parameters in {layers} "
        f"layer{'s' * (layers > 1)}; {trained}"
    )


def place(verdict: Verdict) -> str:
    """Return in words where and when a verdict was seen."""
    where = verdict.location
    if where is None:
        where = "the whole network" if verdict.subject is None else f"layer {verdict.subject}"
    return where if verdict.step is None else f"{where}, step {verdict.step + 1}"


def short(value: float | None) -> str:
    """Return a number to three digits, or a dash where there is none."""
    if value is None or math.isnan(value):
        return "–"
    return "∞" if math.isinf(value) else f"{value:.3g}"


def percent(value: float | None) -> str:
    """Return a fraction in per cent, or a dash where there is none."""
    return "–" if value is None else f"{100 * value:.0f} %"


def shares(values: Sequence[float]) -> str:
    """Return fractions in per cent to one decimal, or a dash where there are none."""
    return ", ".join(f"{100 * v:.1f} %" for v in values) or "–"


def _page(
    check: FlowCheck,
    prediction: Prediction | NoPrediction,
    repair: Repair | None,
    fed: str,
    figure: Markup,
    verb: str,
) -> str:
    last = check.history[-1]
    later = {layer.name: layer for layer in last.matrix_layers}
    counted = [x.slopes.dead_pictures for x in last.matrix_layers if x.slopes]
    return render(
        "check.html",
        {"short": short, "percent": percent, "shares": shares, "place": place},
        check=check,
        headline=headline(check),
        fed=fed,
        verb=verb,
        prediction=prediction if isinstance(prediction, Prediction) else None,
        reason="" if isinstance(prediction, Prediction) else prediction.reason,
        band=BAND,
        repair=repair,
        signs=SIGNS,
        layers=[(x, later.get(x.name, x)) for x in check.history[0].matrix_layers],
        last=last,
        dead_pictures=max(counted, default=0),
        figure=figure,
        stamp=stamp_rows(check.stamp),
        palette=STYLES,
    )


_COLUMNS = (
    *("step", "layer", "name", "kind", "fan_in", "weight_rms", "weight_gradient_rms"),
    *("weight_gradient_max", "output_rms", "output_gradient_rms", "activation", "slope_median"),
    *("saturated", "dead", "update_to_weight_ratio"),
)
_EXPECTED = (
    *("expected_gradient_rms", "expected_gradient_spread_log10"),
    *("prediction_measured_gradient_rms",),
)


def _csv(check: FlowCheck, prediction: Prediction | NoPrediction) -> str:
    rows: list[list[Any]] = [[*_COLUMNS, *_EXPECTED]]
    for stats in check.history:
        for i, x in enumerate(stats.matrix_layers):
            row = [stats.step, i + 1, *_row(x)]
            if isinstance(prediction, Prediction) and stats is check.history[0]:
                expected = prediction.expected
                row += [expected.gradient_rms[i], expected.gradient_spread[i]]
                row += [prediction.gradient_rms[i]]
            rows.append([*row, *[None] * (len(_COLUMNS) + len(_EXPECTED) - len(row))])
    return to_csv(rows)


def _row(x: LayerStats) -> list[Any]:
    gradient, slopes = x.weight_gradient, x.slopes
    return [
        *(x.name, x.kind, x.fan_in),
        x.weight.rms if x.weight else None,
        *((gradient.rms, gradient.maximum) if gradient else (None, None)),
        x.output.rms if x.output else None,
        x.output_gradient.rms if x.output_gradient else None,
        *(
            (slopes.activation, slopes.quantiles[2], slopes.saturated, slopes.dead)
            if slopes
            else (None,) * 4
        ),
        x.update_to_weight_ratio,
    ]
