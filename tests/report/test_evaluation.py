"""The evaluation's figures show its numbers, and its page needs nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from unmask.data.images import Images
from unmask.models.card import ModelCard
from unmask.models.summary import LayerSummary
from unmask.report.evaluation import write_evaluation
from unmask.report.figures.classifier import (
    calibration_figure,
    confusion_figure,
    mistakes_figure,
    network_figure,
)
from unmask.report.figures.style import to_svg
from unmask.stats import wilson
from unmask.train.evaluation import Evaluation

NAMES = ("cat", "dog", "<b>hen")
CARD = ModelCard("block_cnn", {}, (3, 4, 4), (0.5,) * 3, (0.5,) * 3, NAMES, {})


def found(*, wrong: int = 6, count: int = 30) -> tuple[Evaluation, Images]:
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, count)
    predictions = labels.copy()
    predictions[:wrong] = (labels[:wrong] + 1) % 3
    confusion = np.zeros((3, 3), np.int64)
    np.add.at(confusion, (labels, predictions), 1)
    confidence = random.uniform(0.4, 1, count)
    pixels = random.integers(0, 256, (count, 3, 4, 4), np.uint8)
    stamp = {"command": "unmask evaluate a b", "libraries": {"torch": "2"}}
    evaluation = Evaluation(NAMES, confusion, 0.5, predictions, confidence, labels, 0.9, stamp)
    return evaluation, Images(pixels, labels, NAMES, "made-up images")


def test_the_confusion_figure_shows_every_count() -> None:
    evaluation, _ = found()
    (ax,) = confusion_figure(evaluation).axes
    shown = {tuple(map(int, t.get_position())): int(t.get_text()) for t in ax.texts}
    expected = {
        (column, row): int(n) for (row, column), n in np.ndenumerate(evaluation.confusion) if n
    }
    assert shown == expected


def test_the_calibration_figure_shows_its_bins() -> None:
    evaluation, _ = found()
    top, bottom = calibration_figure(evaluation).axes
    curve = top.lines[1].get_xydata()
    np.testing.assert_allclose(curve, [(s, r) for s, r, _ in evaluation.calibration])
    intervals = [line[:, 1] for line in top.collections[0].get_segments()]
    expected = [wilson(round(r * n), n) for _, r, n in evaluation.calibration]
    np.testing.assert_allclose(intervals, expected)
    assert sum(bar.get_height() for bar in bottom.patches) == 30


@pytest.mark.parametrize("count", [1, 6, 30, 20_000])
def test_its_ticks_are_plain_numbers_for_few_images_and_many(count: int) -> None:
    figure = calibration_figure(found(wrong=count // 3, count=count)[0])
    to_svg(figure, "x")
    axis = figure.axes[1].yaxis
    labels = [t.get_text() for t in axis.get_ticklabels(which="both")]
    assert any(labels)
    assert all(re.fullmatch(r"[0-9,]*", label) for label in labels)


def test_the_worst_mistakes_are_shown_with_both_names() -> None:
    evaluation, images = found()
    axes = mistakes_figure(evaluation, images, count=4).axes
    first = evaluation.worst(1)[0]
    titles = [ax.get_title() for ax in axes if ax.get_title()]
    assert len(titles) == 4
    true, wrong = NAMES[evaluation.labels[first]], NAMES[evaluation.predictions[first]]
    assert titles[0].startswith(
        f"{true}, predicted {wrong}\nconfidence {evaluation.confidence[first]:.1%}"
    )
    np.testing.assert_array_equal(
        axes[0].images[0].get_array(), images.pixels[first].transpose(1, 2, 0)
    )


def test_the_network_figure_has_a_bar_for_every_layer_that_counts() -> None:
    layers = [
        LayerSummary("0", "Conv2d", "", (8, 4, 4), 30, 600),
        LayerSummary("1", "ReLU", "", (8, 4, 4), 0, 0),
        LayerSummary("2", "Flatten", "", (128,), 0, 0),
        LayerSummary("3", "Linear", "", (5,), 70, 400),
    ]
    _, bottom = network_figure(layers, (3, 4, 4)).axes
    labels = [t.get_text() for t in bottom.get_xticklabels()]
    assert labels == ["input", "Conv2d", "Flatten", "Linear"]
    heights = [bar.get_height() for bar in bottom.patches]
    assert heights == pytest.approx([0.3, 0, 0.7, 0.6, 0, 0.4])


def test_the_page_needs_nothing_else_and_escapes_names(tmp_path: Path) -> None:
    evaluation, images = found()
    page = write_evaluation(evaluation, images, CARD, tmp_path).read_text()
    assert f"{evaluation.accuracy:.4f}" in page
    assert "&lt;b&gt;hen" in page
    assert "<b>hen" not in page
    assert "unmask evaluate a b" in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert "<script" not in page
    numbers = json.loads((tmp_path / "evaluation.json").read_text())
    assert numbers["confusion"] == evaluation.confusion.tolist()
    written = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.*")}
    figures = {
        f"figures/{n}.{e}" for n in ("confusion", "calibration", "mistakes") for e in ("svg", "png")
    }
    assert written == {"report.html", "evaluation.json"} | figures


@pytest.mark.usefixtures("undrawn")
def test_a_model_without_mistakes_has_no_figure_of_them(tmp_path: Path) -> None:
    evaluation, images = found(wrong=0)
    page = write_evaluation(evaluation, images, CARD, tmp_path).read_text()
    assert "worst mistakes" not in page
    assert not (tmp_path / "figures" / "mistakes.svg").exists()
