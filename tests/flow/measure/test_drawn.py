"""drawn: fresh weights are told from trained ones."""

import pytest
import torch
from torch import nn

from unmask.flow.measure.drawn import drawn

FRESH = [
    lambda: nn.Linear(100, 200),
    lambda: nn.Conv2d(16, 32, 3),
    lambda: nn.Embedding(500, 50),
    lambda: nn.LSTM(20, 30),
    lambda: nn.GRU(20, 40),
    lambda: he(nn.Conv2d(32, 64, 3)),
    lambda: glorot(nn.Linear(300, 100)),
    lambda: fixed(nn.Linear(200, 200)),
]


def he(layer):
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer


def glorot(layer):
    nn.init.xavier_uniform_(layer.weight)
    return layer


def fixed(layer):
    nn.init.trunc_normal_(layer.weight, std=0.02)
    return layer


def parts(layer):
    matrices = [p for p in layer.parameters() if p.ndim > 1]
    return matrices, [p for p in layer.parameters() if p.ndim == 1]


@pytest.mark.parametrize("make", FRESH)
def test_fresh_weights_are_known_in_nearly_every_draw(make):
    found = []
    for seed in range(20):
        torch.manual_seed(seed)
        found.append(drawn(*parts(make())))
    assert sum(f is True for f in found) >= 16


@pytest.mark.parametrize("make", FRESH)
def test_weights_that_were_changed_are_not(make):
    torch.manual_seed(0)
    layer = make()
    weights, rest = parts(layer)
    with torch.no_grad():
        for w in weights:
            # A few large ones, as training makes them.
            w += 0.2 * w.std() * torch.randn_like(w)
            w *= 1 + torch.rand(len(w), *[1] * (w.ndim - 1))
    assert drawn(weights, rest) is False


def test_few_weights_do_not_tell():
    assert drawn(list(nn.Conv2d(1, 8, 3).parameters())[:1]) is None


def test_a_normalisation_is_fresh_until_it_is_trained():
    norm = nn.BatchNorm2d(8)
    assert drawn(list(norm.parameters())) is True
    with torch.no_grad():
        norm.weight[3] = 0.98
    assert drawn(list(norm.parameters())) is False


def test_biases_beyond_their_range_were_trained():
    layer = nn.Linear(100, 200)
    with torch.no_grad():
        layer.bias[0] = 0.2
    assert drawn([layer.weight], [layer.bias]) is False
