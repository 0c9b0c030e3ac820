"""The expected profile lies beside the measured one, and is absent where theory does not reach."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from unmask.flow.check import check_flow
from unmask.flow.expected import expected_profile


def chain(phi: type[nn.Module], depth: int, sigma_w2: float, sigma_b2: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i in range(depth):
        linear = nn.Linear(40 if i == 0 else 256, 256)
        nn.init.normal_(linear.weight, 0, math.sqrt(sigma_w2 / linear.in_features))
        nn.init.normal_(linear.bias, 0, math.sqrt(sigma_b2))
        layers += [linear, phi()]
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(256, 5))


def measured_and_expected(model):
    x, y = torch.randn(32, 40), torch.randint(5, (32,))
    check = check_flow(model, functional.cross_entropy, (x, y))
    expected = expected_profile(model, functional.cross_entropy, (x, y), check.history[0])
    return [layer.weight_gradient.rms for layer in check.history[0].matrix_layers], expected


@pytest.mark.parametrize(
    ("phi", "sigma_w2", "sigma_b2"),
    [(nn.Tanh, 1.76, 0.05), (nn.Tanh, 0.5, 0.0), (nn.ReLU, 2.0, 0.0), (nn.Sigmoid, 1.0, 0.1)],
)
def test_measured_profiles_follow_the_expected_one(phi, sigma_w2, sigma_b2):
    torch.manual_seed(0)
    measured, expected = measured_and_expected(chain(phi, 12, sigma_w2, sigma_b2))
    off = np.log10(measured) - np.log10(expected.gradient_rms)
    assert np.abs(off).max() < 0.2
    low, high = expected.gradient_band()
    assert (low < expected.gradient_rms).all()
    assert (expected.gradient_rms < high).all()


def unreached():
    two = [nn.Linear(40, 9), nn.ReLU(), nn.Linear(9, 9), nn.Tanh(), nn.Linear(9, 5)]
    conv = [nn.Unflatten(1, (1, 40)), nn.Conv1d(1, 2, 3), nn.ReLU(), nn.Flatten()]
    return {
        "normalised": [nn.Linear(40, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Linear(9, 5)],
        "two activations": two,
        "no activation": [nn.Linear(40, 9), nn.Linear(9, 5)],
        "convolution": [*conv, nn.Linear(76, 5)],
    }


@pytest.mark.parametrize("name", list(unreached()))
def test_absent_where_theory_does_not_reach(name):
    assert measured_and_expected(nn.Sequential(*unreached()[name]))[1] is None
