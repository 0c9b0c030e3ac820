"""Audits as files: one self-contained page, figures, and every number."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from unmask.data.images import Images
from unmask.fool.audit.result import Audit, Share
from unmask.report.figures.audit import curve_figure, examples_figure, pairs_figure
from unmask.report.figures.style import STYLES, to_png, to_svg
from unmask.report.files import Content, data_uri, to_csv, to_json, write_files
from unmask.report.html import drawing, render, stamp_rows
from unmask.report.notation import NORMS

PAGE = "report.html"
QUANTILES = {
    "p5": "smallest change: 5 % of images need less",
    "median": "smallest change: half of images need less",
    "p95": "smallest change: 95 % of images need less",
}
_COLUMNS = (
    *("picture", "class", "said", "smallest_change", "said_then", "certainty", "l2", "linf"),
    *("similarity", "fools_as_8_bit", "attack"),
)


def write_audit(audits: Sequence[Audit], images: Images, folder: Path) -> Path:
    """Write report.html, figures/ and data/ into the folder and return the page's path.

    Args:
        audits: of the same images and plan; the first is the one that is judged.
        images: those that were attacked.
        folder: where the files go.

    Raises:
        UserError: when the folder can't be written.
    """
    curve = curve_figure(audits)
    svg = to_svg(curve, "curve")
    narrow = to_svg(curve_figure(audits, narrow=True), "curve-narrow")
    drawn: dict[str, list[str]] = {"examples": [], "pairs": []}
    files: dict[str, Content] = {
        "figures/curve.svg": svg,
        "figures/curve.png": to_png(curve),
    }
    for i, found in enumerate(audits, 1):
        for name, figure in (
            ("examples", examples_figure(found, images) if len(found.examples) else None),
            ("pairs", pairs_figure(found) if found.pairs is not None else None),
        ):
            if figure is None:
                drawn[name].append("")
                continue
            text = to_svg(figure, f"{name}-{i}")
            drawn[name].append(data_uri(text))
            files[f"figures/{name}-{i}.svg"] = text
            files[f"figures/{name}-{i}.png"] = to_png(figure)
        files[f"data/pictures-{i}.csv"] = _csv(found)
    files["data/audit.json"] = audits_as_json(audits, gate=None)
    files[PAGE] = _page(audits, drawing(svg, narrow), drawn)
    write_files(folder, files)
    for i, found in enumerate(audits, 1):
        found.save(folder / "data" / f"audit-{i}.npz")
    return folder / PAGE


def audits_as_json(audits: Sequence[Audit], *, gate: tuple[str, bool] | None) -> str:
    """Return the audits as JSON.

    Args:
        audits: of the same images and plan.
        gate: the condition of --fail-if and whether it failed, None without one.
    """
    told: dict[str, Any] = {"audits": [a.as_dict() for a in audits]}
    if gate is not None:
        told["gate"] = {"fail_if": gate[0], "failed": gate[1]}
    return to_json(told)


def percent(share: Share) -> str:
    """Return a fraction in per cent with its 95 % interval, or a dash where there are no images."""
    if not share.of:
        return "–"
    low, high = share.interval
    return f"{share.value:.1%} ({low:.1%} to {high:.1%})".replace("%", " %")


def change(size: float) -> str:
    """Return the size of a change to three digits, in units of pixels in [0, 1]."""
    return f"{size:.3g}"


def _page(audits: Sequence[Audit], curve: Markup, drawn: dict[str, list[str]]) -> str:
    first = audits[0]
    largest = max(first.plan.eps)
    return render(
        "audit.html",
        {"percent": percent, "change": change, "count": "{:,}".format, "part": _part},
        audits=audits,
        first=first,
        largest=largest,
        eps=sorted(first.plan.eps),
        norm=NORMS[first.plan.norm],
        quantiles=QUANTILES,
        curve=curve,
        drawn=drawn,
        stamps=[stamp_rows({k: v for k, v in a.stamp.items() if k != "settings"}) for a in audits],
        settings=stamp_rows(first.plan.as_dict()),
        palette=STYLES,
    )


def _part(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}".replace("%", " %")


def _csv(found: Audit) -> str:
    rows: list[list[Any]] = [list(_COLUMNS)]
    w, names = found.worst, found.class_names
    for i in range(len(w)):
        whole = [int(w.rows[i]), names[w.labels[i]], _name(names, w.clean[i]), _number(w.size[i])]
        if w.by[i] < 0:
            rows.append([*whole, *[None] * (len(_COLUMNS) - len(whole))])
            continue
        sizes = [_number(v[i]) for v in (w.confidence, w.l2, w.linf, w.similarity)]
        attack = found.records[w.by[i]].name
        rows.append([*whole, _name(names, w.predicted[i]), *sizes, bool(w.saved[i]), attack])
    return to_csv(rows)


def _name(names: tuple[str, ...], index: int) -> str:
    """Return a class's name, or a text for logits that were not finite."""
    return names[index] if index >= 0 else "not finite"


def _number(value: float) -> str:
    return f"{value:.6g}" if np.isfinite(value) else ""
