"""Verdicts as a pure, scale-free function of statistics."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

from unmask.flow.check import check_flow
from unmask.flow.probe import GradientProbe
from unmask.flow.statistics import FlowStats
from unmask.flow.verdict import KINDS, SEVERITIES
from unmask.flow.verdicts import verdicts


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def tanh_net(depth: int, gain: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(depth):
        linear = nn.Linear(50, 50)
        nn.init.normal_(linear.weight, 0, gain / 50**0.5)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.Tanh()]
    return nn.Sequential(*layers, nn.Linear(50, 5))


def collected(gain: float, scale: float = 1.0, depth: int = 15) -> tuple[FlowStats, ...]:
    x, y = torch.randn(64, 50), torch.randint(5, (64,))

    def loss(output, targets):
        return scale * functional.cross_entropy(output, targets)

    model = tanh_net(depth, gain)
    make = lambda p: torch.optim.SGD(p, lr=0.05 / scale)  # noqa: E731
    return check_flow(model, loss, (x, y), optimizer=make).history


def test_nothing_in_nothing_out():
    assert verdicts([]) == []


@pytest.mark.parametrize(("gain", "kind"), [(0.5, "vanishing"), (3.0, "exploding")])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_kinds_do_not_depend_on_the_scale_of_the_loss(gain, kind, scale):
    torch.manual_seed(1)
    assert kind in {v.kind for v in verdicts(collected(gain, scale)) if v.severity == "error"}
    torch.manual_seed(1)
    assert not [v for v in verdicts(collected(1.0, scale)) if v.severity == "error"]


@pytest.mark.parametrize("gain", [0.5, 1.0, 3.0])
def test_verdicts_are_pure(gain):
    history = collected(gain)
    before = copy.deepcopy(history)
    assert verdicts(history) == verdicts(list(history))
    assert history == before


def test_one_step_is_enough_and_may_stand_alone():
    history = collected(0.5)
    assert "vanishing" in {v.kind for v in verdicts(history[0])}
    assert verdicts(history[0]) == verdicts([history[0]])


def test_worst_first_with_all_they_need():
    found = verdicts(collected(0.3))
    ranks = [SEVERITIES.index(v.severity) for v in found]
    assert ranks == sorted(ranks, reverse=True)
    for v in found:
        assert v.kind in KINDS
        assert v.message
        assert v.fix
        assert v.evidence


def test_a_loop_of_the_users_needs_no_loss():
    model = tanh_net(15, 0.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with GradientProbe(model) as probe:
        for _ in range(3):
            optimizer.zero_grad()
            x, y = torch.randn(64, 50), torch.randint(5, (64,))
            functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    found = {v.kind: v for v in verdicts(probe.history)}
    assert "vanishing" in found
    assert found["vanishing"].fix.startswith("initialise for tanh with sigma_w2 = 1.76")


def test_a_converged_network_is_not_taken_for_a_dead_one():
    model = tanh_net(3, 1.0)
    x, y = torch.randn(64, 50), torch.randint(5, (64,))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    with GradientProbe(model, every=100) as probe:
        for _ in range(401):
            optimizer.zero_grad()
            functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    late = [s for s in probe.history if s.step >= 100]
    assert late[-1].matrix_layers[0].weight_gradient.rms < 1e-3
    assert [v.kind for v in verdicts(late) if v.severity == "error"] == []


def test_divergence_is_the_first_thing_said():
    history = list(collected(1.0))
    history[4] = replace(history[4], loss=float("nan"))
    found = verdicts(history)
    assert found[0].kind == "diverged"
    assert found[0].step == 4
