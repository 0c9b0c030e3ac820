"""A network's structure against counts by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from unmask.errors import UserError
from unmask.models.summary import summarised


def test_layers_are_counted_by_hand() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1, groups=1),
        nn.BatchNorm2d(8),
        nn.Sequential(nn.ReLU(), nn.Flatten()),
        nn.Linear(8 * 16, 5, bias=False),
    )
    conv, norm, relu, flatten, linear = summarised(network, (3, 8, 8))
    assert [layer.name for layer in (conv, norm, relu, flatten, linear)] == [
        *("0", "1", "2.0", "2.1", "3")
    ]
    assert conv.output == (8, 4, 4)
    assert conv.parameters == 8 * 27 + 8
    assert conv.multiply_adds == 8 * 16 * 27
    assert (norm.parameters, norm.multiply_adds) == (16, 0)
    assert relu.kind == "ReLU"
    assert flatten.output == (128,)
    assert (linear.parameters, linear.multiply_adds) == (640, 640)


def test_grouped_and_pointwise_convolutions_are_counted_by_hand() -> None:
    grouped = nn.Conv2d(4, 8, 3, groups=4, bias=False)
    (layer,) = summarised(nn.Sequential(grouped), (4, 6, 6))
    assert layer.multiply_adds == 8 * (4 // 4) * 9 * 16


def test_the_network_is_left_as_it_was() -> None:
    network = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(4, 2)).train()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    summarised(network, (1, 2, 2))
    assert network.training
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())
    assert not any(m._forward_hooks for m in network.modules())


def test_a_shape_that_does_not_fit_is_refused() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(UserError, match=r"images of shape \[1, 3, 3\]"):
        summarised(network, (1, 3, 3))
    assert not any(m._forward_hooks for m in network.modules())
