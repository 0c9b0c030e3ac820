"""Calibration finds what the scores were made with."""

import numpy as np
import pytest

from unmask.mask.evaluate.confidence import Reliability, best_temperature, platt
from unmask.mask.runtime.calibration import (
    FULL_SIDE,
    Calibration,
    sigmoid,
    tempered,
)


def test_platt_finds_the_line_the_answers_were_drawn_with() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(0, 2, 100_000)
    small = np.minimum(0, random.normal(0, 1, 100_000))
    hit = random.random(100_000) < sigmoid(0.7 * logits - 0.5 + 1.5 * small)
    slope, offset, side_slope = platt(logits, small, hit)
    assert slope == pytest.approx(0.7, abs=0.02)
    assert offset == pytest.approx(-0.5, abs=0.04)
    assert side_slope == pytest.approx(1.5, abs=0.06)


def test_a_small_face_is_never_surer_than_a_large_one_of_the_same_score() -> None:
    random = np.random.default_rng(0)
    logits, small = random.normal(0, 2, 50_000), np.minimum(0, random.normal(0, 1, 50_000))
    hit = random.random(50_000) < sigmoid(0.7 * logits - 0.5 - 1.5 * small)
    slope, offset, side_slope = platt(logits, small, hit)
    assert side_slope == 0
    # What is left is the regression on the score alone, whose mean certainty is the part of hits.
    assert sigmoid(slope * logits + offset).mean() == pytest.approx(hit.mean(), abs=1e-6)


def test_certainty_counts_sizes_below_the_full_side_only() -> None:
    facts = Calibration(slope=2.0, offset=-1.0, side_slope=3.0)
    scores = np.full(4, sigmoid(0.3))
    sides = np.array([FULL_SIDE / 2, FULL_SIDE, 2 * FULL_SIDE, 1.0])
    z = 0.6 - 1
    small = [np.log(0.5), 0, 0, -np.log(FULL_SIDE)]
    expected = [sigmoid(z + 3 * s) for s in small]
    np.testing.assert_allclose(facts.confidence(scores, sides), expected)
    # What may count at all is what a large face needs.
    assert facts.uncalibrated(float(sigmoid(z))) == pytest.approx(float(sigmoid(0.3)))


def test_boxes_that_count_come_surest_first() -> None:
    facts = Calibration(side_slope=4.0)
    boxes = np.array([[0, 0, 4, 4], [0, 0, 40, 40], [0, 0, 30, 30]], np.float32)
    scores = np.array([[0.9, 0.0], [0.5, 0.0], [0.0, 0.6]], np.float32)
    said = facts.judge(
        boxes, scores, np.array([4.0, 40, 30]), class_names=("a", "b"), size=(50, 50), threshold=0.4
    )
    assert said.boxes[:, 2].tolist() == [30, 40]
    assert said.names() == ["b", "a"]


def test_platt_stays_finite_where_a_threshold_parts_them() -> None:
    logits, parted = np.array([-2.0, -1, 1, 2]), np.array([False, False, True, True])
    slope, offset, side_slope = platt(logits, np.zeros(4), parted)
    assert np.isfinite([slope, offset, side_slope]).all()
    assert slope > 1


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_the_temperature_undoes_overconfidence(temperature: float) -> None:
    random = np.random.default_rng(1)
    honest = random.dirichlet([1.0, 0.7, 0.4], 20_000)
    truth = (honest.cumsum(1) < random.random((20_000, 1))).sum(1).clip(max=2)
    said = tempered(honest, temperature)
    # Dividing the logits by T is undone by dividing them by 1 / T.
    assert best_temperature(said, truth) == pytest.approx(1 / temperature, rel=0.06)
    sharp = tempered(said, best_temperature(said, truth))
    assert Reliability.of(sharp.max(1), sharp.argmax(1) == truth).largest_gap < 0.05
