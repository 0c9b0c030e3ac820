"""Schedules against PyTorch's own and their end points."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unmask.train.schedules import SCHEDULES, linear, one_cycle


def test_one_cycle_is_that_of_pytorch() -> None:
    steps, warmup, end = 200, 0.3, 0.01
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1)
    # PyTorch's last step is at the end and its peak a step early; ours ends one step after it.
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=1.0,
        total_steps=steps + 1,
        pct_start=(warmup * steps + 1) / (steps + 1),
        div_factor=25,
        final_div_factor=1 / (25 * end),
    )
    for step in range(steps):
        assert one_cycle(step, steps, warmup, end) == pytest.approx(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()


def test_linear_is_two_straight_lines() -> None:
    got = [linear(step, 10, 0.4, 0.1) for step in range(11)]
    assert got[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert got[4:] == pytest.approx([1.0, 0.85, 0.7, 0.55, 0.4, 0.25, 0.1])


@given(
    name=st.sampled_from(sorted(SCHEDULES)),
    steps=st.integers(1, 1000),
    warmup=st.sampled_from([0.0, 0.23, 0.5, 1.0]),
    end=st.floats(0, 1),
    part=st.floats(0, 1, exclude_max=True),
)
def test_every_step_has_a_rate_up_to_the_peak(
    name: str, steps: int, warmup: float, end: float, part: float
) -> None:
    height = SCHEDULES[name](int(part * steps), steps, warmup, end)
    assert 0 <= height <= 1 + 1e-12
