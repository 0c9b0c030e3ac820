"""An evaluation as one self-contained HTML file, its figures, and its numbers as JSON."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from unmask.data.images import Images
from unmask.models.card import ModelCard
from unmask.report.figures.classifier import evaluation_figures
from unmask.report.figures.style import STYLES, to_png, to_svg
from unmask.report.files import Content, data_uri, to_json, write_files
from unmask.report.html import render, stamp_rows
from unmask.train.evaluation import Evaluation

PAGE = "report.html"
_WORST = 20


def write_evaluation(found: Evaluation, images: Images, card: ModelCard, folder: Path) -> Path:
    """Write report.html, figures/ and evaluation.json into the folder and return the page's path.

    Every file is complete or absent.

    Args:
        found: the evaluation.
        images: those it was made on, for the worst mistakes.
        card: of the classifier.
        folder: where the files go.

    Raises:
        UserError: when the folder can't be written.
    """
    figures = evaluation_figures(found, images, worst=_WORST)
    drawn = {name: to_svg(figure, name) for name, figure in figures.items()}
    files: dict[str, Content] = {
        PAGE: evaluation_page(found, images, card, drawn),
        "evaluation.json": to_json(found.as_dict()),
    }
    for name, figure in figures.items():
        files[f"figures/{name}.svg"] = drawn[name]
        files[f"figures/{name}.png"] = to_png(figure)
    write_files(folder, files)
    return folder / PAGE


def evaluation_page(
    found: Evaluation, images: Images, card: ModelCard, figures: dict[str, str]
) -> str:
    """Return the evaluation's report as HTML.

    Args:
        found: the evaluation.
        images: those it was made on.
        card: of the classifier.
        figures: the figures' SVG by name.
    """
    return render(
        "evaluation.html",
        {"four": _four},
        found=found,
        images=images,
        card=card,
        rows=_rows(found),
        mistakes=int((found.predictions != found.labels).sum()),
        shown=len(found.worst(_WORST)),
        pictures={name: data_uri(svg) for name, svg in figures.items()},
        stamp=stamp_rows(found.stamp),
        palette=STYLES,
    )


def _rows(found: Evaluation) -> list[tuple[str, int, float, float, float, str]]:
    rows = []
    for k, name in enumerate(found.class_names):
        others = found.confusion[k].copy()
        others[k] = 0
        most = int(others.argmax())
        taken = f"{found.class_names[most]} ({others[most]})" if others[most] else "–"
        count = int(found.confusion[k].sum())
        rows.append((name, count, found.recall[k], found.precision[k], found.f1[k], taken))
    return rows


def _four(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.4f}"
