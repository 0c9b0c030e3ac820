from __future__ import annotations

import numpy as np
import pytest

from made_up import diverge, history, plan, study
from unmask.coursework.study.comparison import compare, learning_curves, median_curve, throughout
from unmask.coursework.study.profiles import profiles


def test_layers_are_counted_where_tanh_is_smaller() -> None:
    found = study().comparison
    assert [c.depth for c in found] == [5, 20, 40]
    start, after = found[2].counts
    assert (start.epoch, start.smaller, start.layers) == (0, 41, 41)
    assert (after.epoch, after.smaller, after.layers) == (3, 40, 41)
    assert (start.ratio_low, start.ratio_high) == pytest.approx((0.5, 0.5))
    assert (after.ratio_low, after.ratio_high) == pytest.approx((0.5, 2.0))


def test_whether_tanh_is_smaller_throughout_is_said_by_moment() -> None:
    assert throughout(study().comparison).endswith(
        "at the start it is, in all 68 layers, after 3 epochs it is in 67 of 68 layers "
        "(medians over seeds, all depths)."
    )


def test_curves_are_similar_when_they_end_within_a_hundredth() -> None:
    made = history(plan(depths=(5,), activations=("tanh", "lecun")))
    probed = profiles(made, 0), profiles(made, 3)
    (alike,) = compare(made, probed)
    assert (alike.accuracy_left, alike.accuracy_right) == pytest.approx((0.961, 0.961), abs=1e-6)
    assert alike.largest_gap == 0
    assert "curves are similar" in alike.sentence
    made.curves["validation_accuracy"][3:, -1] += 0.011
    (apart,) = compare(made, probed)
    assert apart.largest_gap == pytest.approx(0.011, abs=1e-6)
    assert "curves are not similar" in apart.sentence


def test_there_is_nothing_to_compare_without_both() -> None:
    assert study(activations=("relu", "tanh")).comparison == ()


def test_medians_pass_over_what_had_diverged() -> None:
    made = history(plan(depths=(5,), activations=("tanh", "lecun")))
    diverge(made, 0)
    curves = learning_curves(made, 5, "tanh")["validation_accuracy"]
    assert curves.shape == (3, 4)
    assert median_curve(curves)[-1] == pytest.approx(0.9615, abs=1e-6)
    for row in (1, 2):
        diverge(made, row)
    (pair,) = compare(made, (profiles(made, 0), profiles(made, 3)))
    assert np.isnan(pair.accuracy_left)
    assert pair.counts[1].smaller == 0
    assert "every seed of tanh diverged" in pair.sentence
