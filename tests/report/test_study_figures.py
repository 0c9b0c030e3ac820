from __future__ import annotations

import itertools
import xml.etree.ElementTree as ET
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from made_up import CHANCE, diverge, history, plan, study
from unmask.coursework.study.run import Study
from unmask.models.activations import ACTIVATIONS
from unmask.report.figures.study import (
    accuracy_figure,
    curves_figure,
    gradient_figure,
    study_figures,
)
from unmask.report.figures.style import INK, MUTED, STYLES, styled_figure, to_png, to_svg

WHITE, DARK = "#fffffe", "#14181c"


def luminance(colour: str) -> float:
    """The relative luminance of WCAG 2."""
    channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(a: str, b: str) -> float:
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def overlaps(figure: Figure) -> list[tuple[str, str]]:
    """The texts drawn on one another; a text outside its axes is known to matplotlib, not drawn."""
    canvas = FigureCanvasAgg(figure)
    renderer = canvas.get_renderer()
    drawn: dict[int, Text] = {}

    def draw_text(*args: Any, mtext: Text, **kwargs: Any) -> None:
        drawn[id(mtext)] = mtext

    renderer.draw_text = draw_text  # type: ignore[method-assign]
    # The layout is made before anything is drawn; only the texts matter.
    for shape in ("draw_path", "draw_markers", "draw_path_collection"):
        setattr(renderer, shape, lambda *args, **kwargs: None)
    figure.draw(renderer)
    assert len(drawn) > 5
    boxes = [(t.get_text(), t.get_window_extent(renderer).padded(-1)) for t in drawn.values()]
    return [
        (text, other)
        for (text, box), (other, other_box) in itertools.combinations(boxes, 2)
        if box.overlaps(other_box)
    ]


def test_every_activation_is_told_by_more_than_its_colour() -> None:
    assert set(STYLES) == set(ACTIVATIONS)
    for kind in ("light", "dark", "line", "marker"):
        assert len({getattr(s, kind) for s in STYLES.values()}) == len(STYLES)


@pytest.mark.parametrize("name", STYLES)
def test_every_curve_stands_out_on_light_and_dark_pages(name: str) -> None:
    assert contrast(STYLES[name].light, WHITE) >= 4.5
    assert contrast(STYLES[name].dark, DARK) >= 4.5


def test_text_is_readable_on_paper() -> None:
    assert contrast(INK, WHITE) >= 7
    assert contrast(MUTED, WHITE) >= 4.5


@pytest.mark.slow
@pytest.mark.parametrize("columns", [1, 3])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"depths": (1,), "seeds": 1},
        {"depths": (2, 7, 13, 100), "activations": tuple(ACTIVATIONS), "epochs": 150},
    ],
)
def test_no_text_lies_on_another(settings: dict[str, object], columns: int) -> None:
    for name, figure in study_figures(study(**settings), columns=columns).items():
        assert overlaps(figure) == [], name


def test_the_gradient_figure_draws_the_medians() -> None:
    made = study()
    figure = gradient_figure(made.profiles_after)
    assert [ax.get_title() for ax in figure.axes] == [f"{d} hidden layers" for d in (5, 20, 40)]
    medians = {(p.depth, p.activation): p.median for p in made.profiles_after}
    for depth, ax in zip((5, 20, 40), figure.axes, strict=True):
        assert ax.get_yscale() == "log"
        assert ax.get_xlabel() == "layer (1 at the input, last: softmax)"
        for name in ("tanh", "sigmoid", "lecun"):
            (line,) = (
                drawn
                for drawn in ax.lines
                if drawn.get_color() == STYLES[name].light and drawn.get_linewidth() > 1
            )
            assert np.array_equal(line.get_xdata(), np.arange(1, depth + 2))
            assert np.array_equal(line.get_ydata(), medians[depth, name])
    assert figure.axes[0].get_ylabel() == "largest |dE/dw|"


def test_an_exact_zero_has_a_line_of_its_own() -> None:
    made = study()
    labels = [t.get_text() for t in gradient_figure(made.profiles_after).axes[0].get_yticklabels()]
    assert labels[-1] == "exactly 0"
    without = study(activations=("tanh", "sigmoid"))
    labels = [
        t.get_text() for t in gradient_figure(without.profiles_after).axes[0].get_yticklabels()
    ]
    assert "exactly 0" not in labels


def test_the_axis_holds_every_gradient() -> None:
    for profiles in (study().profiles_after, study(activations=("tanh", "lecun")).profiles_after):
        for ax in gradient_figure(profiles).axes:
            low, high = ax.get_ylim()
            for line in ax.lines:
                values = np.asarray(line.get_ydata())
                assert ((values > low) & (values < high)).all()


def test_the_accuracy_figure_draws_every_seed_and_the_documents_run() -> None:
    figure = accuracy_figure(study())
    ax = figure.axes[2]
    relu = next(drawn for drawn in ax.lines if drawn.get_color() == STYLES["relu"].light)
    assert np.asarray(relu.get_ydata()) == pytest.approx([CHANCE, 0.961, 0.962], abs=1e-6)
    bars = [list(line.get_ydata()) for line in ax.lines if line.get_color() == INK]
    assert bars == [[0.1135] * 2, [0.9615] * 2, [0.1135] * 2]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["ReLU", "tanh", "Sigmoid", "LeCun"]


def test_the_curves_are_medians_by_epoch() -> None:
    figure = curves_figure(study())
    assert len(figure.axes) == 6
    accuracy, loss = figure.axes[0], figure.axes[3]
    validation = accuracy.lines[1]
    assert np.asarray(validation.get_ydata()) == pytest.approx(
        0.961 / np.arange(4, 0, -1), abs=1e-6
    )
    assert (accuracy.get_ylabel(), loss.get_ylabel()) == ("accuracy", "loss (nats)")
    halves = curves_figure(study(loss="half_squared"))
    assert halves.axes[3].get_ylabel() == "loss (half the sum of squares)"


def test_figures_without_a_single_figure_can_be_drawn() -> None:
    of = plan(depths=(3,), activations=("tanh", "lecun"), seeds=1)
    made = history(of)
    diverge(made, 0)
    diverge(made, 1)
    for name, figure in study_figures(Study.of(of, made, CHANCE)).items():
        assert to_png(figure).startswith(b"\x89PNG"), name


@pytest.mark.parametrize("least", [1e-21, 2e-4, 0.5])
def test_a_logarithmic_axis_is_labelled_in_plain_text(least: float) -> None:
    @styled_figure
    def drawn() -> Figure:
        figure = Figure()
        axes = figure.subplots()
        axes.plot([1, 10, 1000], [least, 1, 2])
        axes.set(xscale="log", yscale="log")
        return figure

    svg = to_svg(drawn(), "logarithmic")
    assert "$" not in svg
    assert "10²" in svg


def test_the_same_figure_is_the_same_text() -> None:
    made = study(depths=(2,), activations=("tanh", "lecun"))
    texts = [
        {name: to_svg(figure, name) for name, figure in study_figures(made).items()}
        for _ in range(2)
    ]
    assert texts[0] == texts[1]
    for text in texts[0].values():
        root = ET.fromstring(text)
        assert root.tag.endswith("svg")
        words = "".join(root.itertext())
        assert "2 hidden layers" in words
