"""Theory beside the model: inside the band where it reaches, silent with a reason where not."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from unmask.errors import UserError
from unmask.flow.check import check_flow
from unmask.flow.profile import IMAGES, NoPrediction, Prediction, predicted_flow


def batch(features: int = 40, classes: int = 5, n: int = 32):
    g = torch.Generator().manual_seed(1)
    return torch.randn(n, features, generator=g), torch.randint(classes, (n,), generator=g)


def chain(phi: nn.Module, depth: int, sigma_w2: float, sigma_b2: float, width: int = 256):
    layers: list[nn.Module] = []
    for i in range(depth):
        linear = nn.Linear(40 if i == 0 else width, width)
        nn.init.normal_(linear.weight, 0, math.sqrt(sigma_w2 / linear.in_features))
        nn.init.normal_(linear.bias, 0, math.sqrt(sigma_b2))
        layers += [linear, phi]
    return nn.Sequential(*layers, nn.Linear(width, 5))


def predicted(model: nn.Module, pair=None, loss=functional.cross_entropy):
    pair = pair or batch()
    check = check_flow(model, loss, pair)
    return predicted_flow(model, loss, pair, check.history[0])


@pytest.mark.parametrize(
    ("phi", "name", "sigma_w2", "sigma_b2"),
    [
        (nn.Tanh(), "tanh", 1.76, 0.05),
        (nn.ReLU(), "relu", 2.0, 0.0),
        (nn.Sigmoid(), "sigmoid", 1.0, 0.1),
        (nn.Softsign(), "softsign", 2.0, 0.05),
    ],
)
def test_wide_networks_at_their_start_lie_in_the_band(phi, name, sigma_w2, sigma_b2):
    layers = inside = 0
    for seed in range(3):
        torch.manual_seed(seed)
        found = predicted(chain(phi, 8, sigma_w2, sigma_b2))
        assert isinstance(found, Prediction)
        assert found.activation == name
        layers, inside = layers + len(found.names), inside + found.within(3)
        off = np.log10(found.activation_rms[:-1] / found.expected.activation_rms[:-1])
        assert np.abs(off).max() < 0.1
        # Three deviations hold nearly all, and are no wider than a factor of two.
        assert 3 * found.expected.gradient_spread.max() < math.log10(2)
    assert inside >= 0.95 * layers


def test_the_measured_profile_is_that_of_autograd_and_the_layers_that_of_the_weights():
    torch.manual_seed(0)
    model, (x, y) = chain(nn.Tanh(), 3, 1.5, 0.1), batch()
    found = predicted(model, (x, y))
    model.double()
    functional.cross_entropy(model(x[:IMAGES].double()), y[:IMAGES]).backward()
    linears = [m for m in model if isinstance(m, nn.Linear)]
    gradients = [m.weight.grad.square().mean().sqrt().item() for m in linears]
    np.testing.assert_allclose(found.gradient_rms, gradients, rtol=1e-4)
    activation = model[:4](x[:IMAGES].double()).square().mean().sqrt().item()
    assert found.activation_rms[1] == pytest.approx(activation, rel=1e-4)
    assert math.isnan(found.activation_rms[-1])
    for layer, linear in zip(found.layers, linears, strict=True):
        assert (layer.fan_in, layer.fan_out) == (linear.in_features, linear.out_features)
        assert layer.sigma_w2 == pytest.approx(linear.weight.var().item() * layer.fan_in, rel=1e-3)
    assert found.pictures == IMAGES


def test_any_loss_will_do_and_frozen_layers_too():
    torch.manual_seed(0)
    model = chain(nn.ReLU(), 4, 2.0, 0.0)
    model[0].requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    x, _ = batch()
    found = predicted(model, (x, torch.randn(len(x), 5)), functional.mse_loss)
    assert isinstance(found, Prediction)
    assert found.within(3) >= 4
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert not model[0].weight.requires_grad
    assert all(p.grad is None for p in model.parameters())


def test_activations_applied_as_functions_are_found():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(40, 300), nn.Linear(300, 5)

        def forward(self, x):
            return self.last(torch.tanh(self.first(x.view(len(x), -1))))

    found = predicted(Net())
    assert isinstance(found, Prediction)
    assert found.names == ("first", "last")


class Skip(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.inner, self.last = nn.Linear(40, 40), nn.Linear(40, 40), nn.Linear(40, 5)

    def forward(self, x):
        x = torch.relu(self.first(x))
        return self.last(x + torch.relu(self.inner(x)))


def off_centre():
    model = chain(nn.Tanh(), 2, 1.0, 0.0)
    nn.init.constant_(model[2].bias, 0.5)
    return model


def mixed():
    return nn.Sequential(
        nn.Linear(40, 9), nn.ReLU(), nn.Linear(9, 9), nn.Tanh(), nn.Linear(9, 5)
    )  # fmt: skip


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (Skip, "does more than pass on"),
        (lambda: nn.Sequential(nn.Linear(40, 9), nn.BatchNorm1d(9), nn.Linear(9, 5)), "BatchNorm"),
        (lambda: nn.Sequential(nn.Linear(40, 9), nn.Dropout(), nn.Linear(9, 5)), "does more than"),
        (lambda: nn.Sequential(nn.Linear(40, 9), nn.LeakyReLU(0.3), nn.Linear(9, 5)), "does more"),
        (lambda: nn.Sequential(nn.Linear(40, 9), nn.PReLU(), nn.Linear(9, 5)), "PReLU"),
        (lambda: nn.Linear(40, 5), "fewer than two linear layers"),
        (mixed, "all have the same activation"),
        (off_centre, "2 were not drawn about zero"),
        (lambda: nn.Sequential(chain(nn.Tanh(), 2, 1.0, 0.0), nn.ReLU()), "same activation"),
    ],
)
def test_says_why_it_predicts_nothing(make, reason):
    torch.manual_seed(0)
    found = predicted(make())
    assert isinstance(found, NoPrediction)
    assert reason in found.reason


def test_an_activation_that_theory_refuses_is_no_mistake_of_the_users(monkeypatch):
    def refuse(phi):
        raise UserError("no activation")

    monkeypatch.setattr("unmask.flow.profile.nonlinearity", refuse)
    assert "theory can't take tanh" in predicted(chain(nn.Tanh(), 2, 1.0, 0.0)).reason


def test_a_batch_that_is_no_pair_of_tensors_gets_no_prediction():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = chain(nn.Tanh(), 2, 1.0, 0.0)

        def forward(self, x):
            return self.body(x)

    x, y = batch()
    assert "batch" in predicted(Named(), ({"x": x}, y)).reason
