"""Weight averages against their recurrences, by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from unmask.train.averaging import Average
from unmask.train.config import FitConfig


def scalar(value: float) -> nn.Module:
    network = nn.Linear(1, 1, bias=False)
    nn.init.constant_(network.weight, value)
    return network


def weight(network: nn.Module) -> float:
    return float(network.weight.detach())  # type: ignore[arg-type, operator, union-attr]


def put(network: nn.Module, value: float) -> None:
    with torch.no_grad():
        network.weight.fill_(value)  # type: ignore[operator, union-attr]


def test_the_running_average_follows_its_recurrence() -> None:
    network = scalar(0)
    average = Average(network, FitConfig(epochs=1, averaging="ema", averaging_horizon=4))
    expected = 0.0
    for step in range(1, 60):
        put(network, step)
        average.update(step, 60)
        keep = min(0.75, step / (step + 10))
        expected = keep * expected + (1 - keep) * step
    with average.applied():
        assert weight(network) == pytest.approx(expected, rel=1e-5)
    assert weight(network) == 59, "training goes on from its own weights"


def test_the_models_own_weights_come_back_after_an_error() -> None:
    network = scalar(1)
    average = Average(network, FitConfig(epochs=1, averaging="ema"))
    put(network, 5)
    with pytest.raises(KeyboardInterrupt), average.applied():
        raise KeyboardInterrupt
    assert weight(network) == 5


def test_lookahead_sets_the_weights_back_every_five_steps() -> None:
    network = scalar(0)
    average = Average(network, FitConfig(epochs=1, averaging="lookahead"))
    expected, steps = 0.0, 22
    for step in range(1, steps + 1):
        put(network, step)
        average.update(step, steps)
        if step % 5 == 0:
            expected += (1 - 0.95**5 * (step / steps) ** 3) * (step - expected)
        ahead = step if step % 5 and step < steps else expected
        assert weight(network) == pytest.approx(ahead, rel=1e-5)


def test_without_averaging_nothing_is_kept() -> None:
    network = scalar(3)
    average = Average(network, FitConfig(epochs=1))
    average.update(5, 10)
    assert average.state == {}
    with average.applied():
        assert weight(network) == 3
