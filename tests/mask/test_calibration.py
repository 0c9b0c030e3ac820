"""Calibration finds what the scores were made with."""

import numpy as np
import pytest

from unmask.mask.calibration import best_temperature, platt
from unmask.mask.judging import sigmoid, tempered
from unmask.mask.reliability import Reliability


def test_platt_finds_the_line_the_answers_were_drawn_with() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(0, 2, 100_000)
    hit = random.random(100_000) < sigmoid(0.7 * logits - 0.5)
    slope, offset = platt(logits, hit)
    assert slope == pytest.approx(0.7, abs=0.02)
    assert offset == pytest.approx(-0.5, abs=0.03)


def test_platt_stays_finite_where_a_threshold_parts_them() -> None:
    slope, offset = platt(np.array([-2.0, -1, 1, 2]), np.array([False, False, True, True]))
    assert np.isfinite([slope, offset]).all()
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
