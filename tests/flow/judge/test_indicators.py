"""The fits and ratios that verdicts rest on, against made-up layers with known answers."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unmask.flow.judge.indicators import (
    decay,
    factors,
    front_response,
    gradient_norm,
    pace,
    relative_gain,
    sensitivities,
    update_ratios,
    words_answer,
)
from unmask.flow.measure.layers import scattered, spread
from unmask.flow.measure.magnitude import ENTRIES, Magnitude
from unmask.flow.measure.statistics import FlowStats, LayerStats, Slopes


def size(rms: float, count: int = 100) -> Magnitude:
    return Magnitude(maximum=3 * rms, mean=0.8 * rms, rms=rms, zero=0.0, tiny=0.0, count=count)


def layer(gradient: float, width: int = 100, **options) -> LayerStats:
    figures = {"weight": size(0.1), "weight_gradient": size(gradient), **options}
    return LayerStats(
        name="x",
        kind="Linear",
        matrix=True,
        frozen=False,
        fan_in=100,
        output_gradient=size(gradient),
        output_size=width,
        **figures,
    )


def net(*layers: LayerStats, loss: float | None = 2.0) -> FlowStats:
    return FlowStats(0, tuple(layers), loss=loss)


@given(st.floats(-3, 3), st.integers(4, 40))
@settings(max_examples=50, deadline=None)
def test_decay_finds_a_constant_factor(per_layer, depth):
    layers = [layer(10 ** (-2 + per_layer * (depth - i))) for i in range(depth)]
    found = decay(net(*layers, layer(1.0)))
    assert found.per_layer == pytest.approx(per_layer, abs=1e-9)
    assert found.low < found.per_layer < found.high
    assert found.layers == depth - 1
    assert found.total == (found.low * found.layers, found.high * found.layers)


def test_decay_does_not_depend_on_widths():
    # The same gradient a image, spread over more units, has a smaller RMS.
    widths = (400, 100, 25, 100, 900)
    layers = [layer(1 / math.sqrt(w), width=w) for w in widths]
    assert decay(net(*layers, layer(1.0))).per_layer == pytest.approx(0, abs=1e-12)
    assert gradient_norm(layers[0]) == pytest.approx(gradient_norm(layers[-1]))


def test_decay_is_surer_of_deep_networks():
    def width(depth: int) -> float:
        found = decay(net(*[layer(1.0) for _ in range(depth)], layer(1.0)))
        return found.high - found.low

    assert width(40) < width(10) < width(4)


def test_decay_needs_three_layers_that_carry_a_gradient():
    assert decay(net(layer(1.0), layer(1.0), layer(1.0))) is None
    assert decay(net(layer(0.0), layer(0.0), layer(1.0), layer(1.0), layer(1.0))) is None


def test_factors_split_the_step_between_layers():
    slopes = Slopes("tanh", (0.5,) * 5, rms=0.5, supremum=1, saturated=0, dead=0, dead_pictures=9)
    layers = [layer(1.0 * 0.6**i, slopes=slopes) for i in range(5, -1, -1)]
    found = factors(net(*layers, layer(123.0)))
    assert found.derivative == pytest.approx(0.5)
    assert found.weights == pytest.approx(0.6 / 0.5)
    assert found.cause(fading=True).startswith("derivative factor 0.5")
    assert found.cause(fading=False).startswith("weight factor 1.2")


@given(st.floats(1e-6, 1e6))
def test_sensitivities_do_not_depend_on_the_scale_of_the_loss(scale):
    one = sensitivities(net(layer(0.1), layer(0.2), loss=2.0))
    scaled = sensitivities(net(layer(0.1 * scale), layer(0.2 * scale), loss=2.0 * scale))
    assert scaled == pytest.approx(one)
    assert one[0] == pytest.approx(0.1 * 0.1 * 100 / 2)


@pytest.mark.parametrize(("beside", "response"), [("query", 4.0), (None, 0.004)])
def test_layers_that_read_one_tensor_answer_for_each_other(beside, response):
    query = replace(layer(0.0008), name="query")
    value = replace(layer(0.8), name="value", beside=beside)
    found = front_response(net(query, value, layer(0.8), layer(0.8)))
    assert found is not None
    assert found[0] == pytest.approx(response)


@pytest.mark.parametrize(
    ("kind", "gradient", "answers"),
    [("Embedding", 0.8, True), ("Embedding", 0.0008, False), ("Linear", 0.8, False)],
)
def test_a_table_of_words_shows_whether_the_gradient_came_all_the_way(kind, gradient, answers):
    table = replace(layer(gradient), kind=kind)
    assert words_answer(net(table, layer(0.0008), layer(0.8), layer(0.8))) == answers
    # Late in a network it shows nothing.
    assert not words_answer(net(*[layer(0.8)] * 4, table))


def test_without_a_loss_sensitivities_are_unknown():
    assert all(map(math.isnan, sensitivities(net(layer(0.1), layer(0.2), loss=None))))


def test_weights_that_are_nearly_zero_do_not_count_as_hasty():
    grown = layer(1.0, update_to_weight_ratio=1e-3)
    fresh = layer(1.0, weight=size(1e-4), update_to_weight_ratio=0.9)
    assert update_ratios(net(grown, fresh)) == [1e-3]
    assert update_ratios(net(fresh, fresh)) == [0.9, 0.9]
    # 0.9 of 1e-4 is 9e-4 of the usual 1 / sqrt(100).
    assert pace(net(layer(1.0, update_to_weight_ratio=1e-5), fresh)) == pytest.approx(9e-4)


def test_relative_gain_needs_steps_and_a_loss():
    stepped = layer(1.0, expected_gain=0.05)
    assert relative_gain(net(stepped, stepped, loss=2.0)) == pytest.approx(0.05)
    assert relative_gain(net(stepped, loss=None)) is None
    assert relative_gain(net(layer(1.0))) is None


def test_how_images_differ_is_a_fact_of_all_of_them():
    """The first eight of a batch may be alike where normalisation sets a few others apart."""
    images = torch.zeros(64, 3, 64, 64)
    images[8:] = torch.randn(56, 3, 1, 1, generator=torch.Generator().manual_seed(0))
    rows = scattered(images)
    assert rows.numel() < 2 * ENTRIES
    # Spread over all 64 images, of which eight are 0.
    assert spread(rows, 0) == pytest.approx(spread(images, 0), rel=0.1)
    assert scattered(images[:, 0, 0]).shape == (64, 64)
