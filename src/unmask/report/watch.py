"""A watched training as files: the page of its worst model, and the numbers of all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unmask.flow.check import FlowCheck
from unmask.flow.profile import NoPrediction
from unmask.flow.watch import WatchReport
from unmask.report.check import write_check
from unmask.report.files import plain, to_json, write_files


def watch_as_dict(report: WatchReport) -> dict[str, Any]:
    """Return all that was found as plain values: what is not finite as None."""
    found: dict[str, Any] = plain(report.as_dict())
    return found


def write_watch(report: WatchReport, folder: Path) -> list[Path]:
    """Write report.html with its figure, and data/watch.json.

    Args:
        report: of a training in which a model was seen.
        folder: where to.

    Returns:
        The paths, the page first.

    Raises:
        UserError: the folder can't be written.
    """
    main = max(report.models, key=lambda m: (bool(m.history), m.parameters))
    numbers = {"data/watch.json": to_json(watch_as_dict(report))}
    if not main.history:
        return write_files(folder, numbers)
    check = FlowCheck(main.model, main.parameters, main.history, report.verdicts, report.stamp)
    reason = NoPrediction("it was watched in a training of its own")
    fed = f"watched for {main.steps:,} steps, {len(main.history)} of them measured"
    return [*write_check(check, reason, None, fed, folder), *write_files(folder, numbers)]
