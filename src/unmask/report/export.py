"""The study as files: the page, the figures, and every number as CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from unmask.coursework.study.findings import findings
from unmask.coursework.study.outcomes import trained_bar
from unmask.coursework.study.profiles import Profile
from unmask.coursework.study.run import Study
from unmask.report.figures.study import study_figures
from unmask.report.figures.style import to_png, to_svg
from unmask.report.page import study_page
from unmask.runtime import write_atomically
from unmask.sweep.history import CURVES, LAYER_STATISTICS, STATUS_NAMES, TEST_FIGURES

PAGE = "report.html"


def require_writable(folder: Path) -> None:
    """Make the folder if need be and check that files can be written there.

    Raises UserError when they can't.
    """
    probe = folder / ".writable"
    with write_atomically(probe) as file:
        file.write(b"?")
    probe.unlink()


def write_study(study: Study, folder: Path) -> list[Path]:
    """Write the study into the folder and return what was written, the page first.

    Every file is whole or absent. Raises UserError when the folder can't be written.
    """
    wide, narrow = study_figures(study), study_figures(study, columns=1)
    drawings = {name: to_svg(figure, name) for name, figure in wide.items()}
    narrow_drawings = {name: to_svg(figure, f"{name}-narrow") for name, figure in narrow.items()}
    files: dict[str, bytes] = {PAGE: study_page(study, drawings, narrow_drawings).encode()}
    for name, figure in wide.items():
        files[f"figures/{name}.svg"] = drawings[name].encode()
        files[f"figures/{name}.png"] = to_png(figure)
    for name, rows in _tables(study).items():
        files[f"data/{name}.csv"] = _csv(rows)
    files["data/study.json"] = to_json(study_as_dict(study))
    for name, content in files.items():
        with write_atomically(folder / name) as file:
            file.write(content)
    return [folder / name for name in files]


def summary_as_dict(study: Study) -> dict[str, Any]:
    """Return the stamp, the findings and the tables of B, C and D as plain values, NaN as None."""
    found = {
        "stamp": study.stamp,
        "findings": list(findings(study)),
        "chance": study.chance,
        "trained_above": trained_bar(study.chance),
        "outcomes": [asdict(o) for o in study.outcomes],
        "gradients": [_profile_as_dict(p) for p in (*study.profiles_start, *study.profiles_after)],
        "claims": [asdict(c) for c in study.claims],
        "comparison": [asdict(c) for c in study.comparison],
    }
    plain: dict[str, Any] = _plain(found)
    return plain


def study_as_dict(study: Study) -> dict[str, Any]:
    """Return the summary and, under "nets", every figure of every net as plain values."""
    history = study.history
    nets = [
        {
            "spec": spec.as_dict(),
            "status": STATUS_NAMES[history.status[i]],
            "diverged_step": int(history.diverged_step[i]),
            **{name: history.test[name][i] for name in TEST_FIGURES},
            **{name: history.curves[name][i, : spec.epochs] for name in CURVES},
            "layers": {
                str(epoch): {
                    name: history.layers[name][i, probe, : spec.depth + 1]
                    for name in LAYER_STATISTICS
                }
                for probe, epoch in enumerate(history.probe_epochs)
            },
        }
        for i, spec in enumerate(history.specs)
    ]
    return {**summary_as_dict(study), "nets": _plain(nets)}


def to_json(value: Any) -> bytes:
    """Return the plain value as JSON that every reader accepts: no NaN, no infinity."""
    return json.dumps(value, allow_nan=False, ensure_ascii=False).encode()


def _profile_as_dict(profile: Profile) -> dict[str, Any]:
    return {
        "depth": profile.depth,
        "activation": profile.activation,
        "epoch": profile.epoch,
        "gradient_max_median": profile.median,
        "gradient_max": profile.maxima,
    }


def _plain(value: Any) -> Any:
    """Return the value with arrays as lists and what is not finite as None."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return [_plain(v) for v in value]
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, (float, np.floating)):
        # By way of the text, so that a float32 of 0.1135 is not written as 0.11349999904632568.
        return float(str(value)) if math.isfinite(value) else None
    return value


Row = Sequence[Any]


def _tables(study: Study) -> dict[str, Iterable[Row]]:
    return {
        "outcomes": _outcome_rows(study),
        "nets": _net_rows(study),
        "curves": _curve_rows(study),
        "layers": _layer_rows(study),
    }


def _outcome_rows(study: Study) -> Iterator[Row]:
    spread = ("mean", "std", "low", "high")
    yield (
        *("depth", "activation", "seeds", "trained", "diverged"),
        *("trained_share_low", "trained_share_high"),
        *(f"{name}_{part}" for name in TEST_FIGURES for part in spread),
        *("document_test_loss", "document_test_accuracy", "agreement", "sentence"),
    )
    for o in study.outcomes:
        yield (
            *(o.depth, o.activation, o.seeds, o.trained, o.diverged, *o.trained_interval),
            *(getattr(s, part) for s in (o.test_loss, o.test_accuracy) for part in spread),
            *((o.document.test_loss, o.document.test_accuracy) if o.document else (None, None)),
            *(o.agreement, o.sentence),
        )


def _net_rows(study: Study) -> Iterator[Row]:
    history = study.history
    names = list(history.specs[0].as_dict())
    yield (*names, "status", "diverged_step", *TEST_FIGURES)
    for i, spec in enumerate(history.specs):
        yield (
            *spec.as_dict().values(),
            STATUS_NAMES[history.status[i]],
            history.diverged_step[i],
            *(history.test[name][i] for name in TEST_FIGURES),
        )


def _curve_rows(study: Study) -> Iterator[Row]:
    history = study.history
    yield ("depth", "activation", "seed", "epoch", *CURVES)
    for i, spec in enumerate(history.specs):
        for epoch in range(spec.epochs):
            figures = (history.curves[name][i, epoch] for name in CURVES)
            yield (spec.depth, spec.activation, spec.seed, epoch + 1, *figures)


def _layer_rows(study: Study) -> Iterator[Row]:
    history = study.history
    yield ("depth", "activation", "seed", "after_epochs", "layer", *LAYER_STATISTICS)
    for i, spec in enumerate(history.specs):
        for probe, epoch in enumerate(history.probe_epochs):
            for layer in range(spec.depth + 1):
                figures = (history.layers[name][i, probe, layer] for name in LAYER_STATISTICS)
                yield (spec.depth, spec.activation, spec.seed, epoch, layer + 1, *figures)


def _csv(rows: Iterable[Row]) -> bytes:
    """Return the rows as CSV, nothing standing where there is no figure."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in rows:
        writer.writerow(["" if (v := _plain(value)) is None else v for value in row])
    return text.getvalue().encode()
