"""What is certified is the model itself: its operations give its logits, on every call."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.fool.certify.nets import branched
from torch import Tensor, nn
from torch.nn import functional

import unmask
from unmask.errors import UserError
from unmask.fool.certify.network import Network

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 1, 4, 4)).astype(np.uint8)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 2))
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class Counts(Small):
    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x) + self.calls % 2


class Drops(Small):
    def forward(self, x: Tensor) -> Tensor:
        return functional.dropout(super().forward(x))


class Draws(Small):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + float(np.random.default_rng().random())


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh, nn.Sigmoid, nn.LeakyReLU])
def test_the_operations_of_a_network_give_its_logits(activation: type[nn.Module]) -> None:
    net = branched(0, activation).double()
    x = torch.rand(5, 2, 6, 6, dtype=torch.float64)
    torch.testing.assert_close(Network.of(net, (2, 6, 6)).logits(x), net(x))


@pytest.mark.parametrize("model", [Counts, Drops, Draws])
def test_a_model_that_is_more_than_its_trace_is_refused(model: type[Small]) -> None:
    data = PIXELS, np.zeros(6, np.int64)
    assert len(unmask.certify(Small().eval(), data, eps=0.01, minutes=0.01)) == 6
    with pytest.raises(UserError, match="not those of its layers and operations alone"):
        unmask.certify(model().eval(), data, eps=0.01, minutes=0.01)
