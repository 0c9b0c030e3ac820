"""The judge believes images alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from unmask.fool.goal import Goal
from unmask.fool.norms import NORMS, Threat
from unmask.fool.outcome import Adversarials, judge, saved
from unmask.fool.victim import Victim

BAR = 0.5


def brightness(pixels: Tensor) -> Tensor:
    """Say class 1 where the mean pixel exceeds BAR, sure by sigmoid(10 (mean - BAR))."""
    above = 10 * (pixels.flatten(1).mean(1) - BAR)
    return torch.stack([torch.zeros_like(above), above], 1)


def judged(originals: Tensor, tries: Tensor, threat: Threat, targets: Tensor | None = None):
    victim = Victim(brightness, classes=2)
    goal = Goal(torch.zeros(len(originals), dtype=torch.int64), targets)
    steps = torch.arange(len(tries))
    return judge(victim, originals, Adversarials(tries, steps), goal, threat), victim


def flat(*levels: float) -> Tensor:
    return torch.tensor(levels)[:, None, None, None].expand(-1, 1, 4, 4).contiguous()


def test_the_figures_have_closed_forms() -> None:
    outcome, victim = judged(flat(0.4, 0.4), flat(0.6, 0.45), Threat(NORMS["linf"], 0.3))
    assert outcome.predicted.tolist() == [1, 0]
    assert outcome.reached.tolist() == [True, False]
    np.testing.assert_allclose(outcome.l2, [0.2 * 4, 0.05 * 4], rtol=1e-6)
    np.testing.assert_allclose(outcome.linf, [0.2, 0.05], rtol=1e-6)
    np.testing.assert_allclose(outcome.confidence, 1 / (1 + np.exp([-1.0, -0.5])), rtol=1e-5)
    assert outcome.steps.tolist() == [0, 1]
    assert (victim.cost.forwards, victim.cost.backwards) == (4, 0)


@pytest.mark.parametrize(
    ("name", "eps", "within"), [("linf", 0.2, True), ("linf", 0.19, False), ("l2", 0.8, True)]
)
def test_a_change_beyond_the_threat_has_not_reached(name: str, eps: float, within: bool) -> None:
    outcome, _ = judged(flat(0.4), flat(0.6), Threat(NORMS[name], eps))
    assert bool(outcome.reached[0]) is within


def test_pixels_outside_are_clipped_before_they_are_judged() -> None:
    outcome, _ = judged(flat(0.9), flat(7.0), Threat(NORMS["linf"]))
    assert outcome.linf[0] == pytest.approx(0.1, rel=1e-5)


def test_nan_has_not_reached_and_spoils_no_other() -> None:
    tries = flat(0.6, 0.6)
    tries[0, 0, 1, 2] = float("nan")
    outcome, _ = judged(flat(0.4, 0.4), tries, Threat(NORMS["linf"]))
    assert outcome.reached.tolist() == outcome.reached_saved.tolist() == [False, True]
    assert np.isfinite(outcome.l2).all()


def test_what_rounding_to_8_bits_takes_back_is_told() -> None:
    # 0.5002 is above the bar, and 127.55 rounds to 128; 0.5001 * 255 = 127.53 does too; the
    # image just above 127.5 / 255 rounds up, the one at 0.4999 was never above.
    outcome, _ = judged(flat(0.4, 0.4), flat(0.5002, 0.4999), Threat(NORMS["linf"]))
    assert outcome.reached.tolist() == [True, False]
    assert outcome.reached_saved.tolist() == [True, False]
    # With half its pixels a third of a step above and half below a level, rounding moves the mean.
    third = 1 / (3 * 255)
    tries = torch.full((1, 1, 4, 4), 127 / 255 + third)
    tries[..., 2:] = 128 / 255 + third
    # The mean is 127.83 / 255, above the bar; rounded it is 127.5 / 255, at the bar.
    outcome, _ = judged(flat(0.4), tries, Threat(NORMS["linf"]))
    assert outcome.reached.tolist() == [True]
    assert outcome.reached_saved.tolist() == [False]


def test_rounding_itself_is_forgiven_in_the_size() -> None:
    start = flat(0.4)
    change = 0.3001 - 1e-4
    outcome, _ = judged(start, start + change, Threat(NORMS["linf"], 0.3))
    rounded = saved(start + change)
    assert float((rounded - start).abs().max()) > 0.3 + 1e-4
    assert outcome.reached_saved.tolist() == [True]


def test_a_target_must_be_met() -> None:
    victim = Victim(
        lambda x: torch.stack([x.sum((1, 2, 3)) * k for k in (0.0, 1.0, 2.0)], 1), classes=3
    )
    goal = Goal(torch.tensor([0, 0]), torch.tensor([1, 2]))
    found = Adversarials(flat(0.5, 0.5), torch.zeros(2, dtype=torch.int64))
    outcome = judge(victim, flat(0.1, 0.1), found, goal, Threat(NORMS["linf"]))
    assert outcome.reached.tolist() == [False, True]
