"""repair: what it tries, that its code does what its trial did, and that it says when it fails."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

from unmask.errors import UserError
from unmask.flow import changes
from unmask.flow.check import check_flow
from unmask.flow.judge.indicators import decay
from unmask.flow.repair import Mended, repair

loss_fn = functional.cross_entropy


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def batches(n: int = 20):
    g = torch.Generator().manual_seed(0)
    centres = 2 * torch.randn(4, 20, generator=g)
    pairs = []
    for _ in range(n):
        y = torch.randint(4, (32,), generator=g)
        pairs.append(((centres[y] + torch.randn(32, 20, generator=g)) / 5**0.5, y))
    return pairs


def net(depth: int, phi: type[nn.Module] = nn.Tanh, gain: float = 1.0) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i in range(depth):
        linear = nn.Linear(20 if i == 0 else 24, 24)
        nn.init.normal_(linear.weight, 0, gain / linear.in_features**0.5)
        nn.init.zeros_(linear.bias)
        layers += [linear, phi()]
    return nn.Sequential(*layers, nn.Linear(24, 4))


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.05)


def stats_of(model):
    return check_flow(model, loss_fn, batches(1)[0]).history[0]


@pytest.mark.parametrize(
    ("model", "optimizer", "fix"),
    [
        (lambda: net(12, gain=0.4), sgd, "critical initialisation"),
        (lambda: net(12, nn.Sigmoid), sgd, "critical initialisation + activation"),
        (lambda: net(3), lambda p: torch.optim.SGD(p, lr=1e-7), "learning rate"),
        (lambda: net(3), lambda p: torch.optim.SGD(p, lr=1e4), "learning rate"),
    ],
)
def test_repairs_what_is_broken(model, optimizer, fix):
    outcome = repair(model(), loss_fn, batches(), optimizer, steps=60)
    assert outcome.best.name.startswith(fix)
    assert outcome.best.loss < 0.75 * min(outcome.before.loss, math.log(4))
    assert len(outcome.best.losses) == 2
    assert sum(outcome.best.accuracies) / 2 > 0.75
    assert list(outcome.trials) == sorted(outcome.trials, key=lambda t: t.loss)
    json.dumps(outcome.as_dict())


def test_inputs_are_mended_as_inputs():
    pairs = [(1000 * x + 300, y) for x, y in batches()]
    outcome = repair(net(2, nn.ReLU), loss_fn, pairs, sgd, steps=40)
    assert "inputs" in outcome.best.name
    assert outcome.best.code.startswith("x = (x - ") or "\nx = (x - " in outcome.best.code


def test_an_activation_on_the_output_is_taken_away():
    class Shut(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = net(2)
            nn.init.constant_(self.body[-1].bias, -30)

        def forward(self, x):
            return functional.relu(self.body(x))

    outcome = repair(Shut(), loss_fn, batches(), sgd, steps=40)
    assert "no activation on the output layer" in outcome.best.name


@pytest.mark.parametrize("depth", [9, 14])
def test_a_fault_of_the_step_is_mended_beside_one_of_the_network(depth):
    """A softmax before the loss stays a fault once the deep network's initialisation is mended."""
    model = nn.Sequential(*net(depth, nn.Sigmoid, gain=0.6), nn.Softmax(1))
    result = repair(model, loss_fn, batches(), sgd, steps=60)
    assert result.best is not None
    assert "no activation on the output layer" in result.best.name
    assert " + " in result.best.name
    fixed = result.mended.model(model, 0)(batches(1)[0][0])
    assert not torch.allclose(fixed.sum(1), torch.ones(32))


def test_a_healthy_network_has_nothing_to_repair():
    with pytest.raises(UserError, match="nothing to repair"):
        repair(net(2), loss_fn, batches(), sgd)


def test_nothing_is_claimed_where_nothing_worked():
    # Labels without any relation to the inputs can't be learnt, whatever is changed.
    noise = [(torch.randn(32, 20), torch.randint(4, (32,))) for _ in range(200)]
    outcome = repair(net(12, gain=0.4), loss_fn, noise, sgd, steps=40)
    assert outcome.best is None
    assert outcome.mended is None
    assert outcome.trials


def test_the_users_network_is_left_alone():
    model = net(12, gain=0.4)
    before = copy.deepcopy(model.state_dict())
    generator = torch.get_rng_state()
    pairs = batches()
    repair(model, loss_fn, pairs, sgd, steps=10, seeds=(0,))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator)


def test_pasted_code_initialises_as_the_trial_did():
    model = net(12, gain=0.4)
    fix = changes.critical_initialisation(stats_of(model))
    assert fix.sets == "sigma_w2 = 1.76, sigma_b2 = 0.05"
    pasted, applied = copy.deepcopy(model), copy.deepcopy(model)
    exec(compile(fix.code, "pasted", "exec"), {"torch": torch, "model": pasted})
    fix.apply(applied)
    for a, b in zip(pasted.parameters(), applied.parameters(), strict=True):
        assert a.std().item() == pytest.approx(b.std().item(), rel=0.8, abs=1e-6)
    weights = torch.cat([p.flatten() for p in pasted[2:-1].parameters() if p.ndim == 2])
    assert weights.var().item() * 24 == pytest.approx(1.76, rel=0.05)
    assert abs(decay(stats_of(pasted)).per_layer) < 0.03


def test_every_change_keeps_the_shapes():
    model, x = net(4), batches(1)[0][0]
    stats = stats_of(model)
    for fix in (
        changes.critical_initialisation(stats),
        changes.normalisation(stats),
        changes.residual(stats),
        changes.standardised_inputs(stats),
        changes.bare_output(stats),
        changes.other_activation("tanh", "leaky_relu"),
    ):
        assert Mended((fix,)).model(model, seed=0)(x).shape == (32, 4)
        assert fix.code
        assert fix.sets


def test_what_the_changes_compute():
    model = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3), nn.ReLU())
    x = torch.randn(5, 3)
    stats = stats_for = check_flow(model, loss_fn, (x, torch.randint(3, (5,)))).history[0]

    def mended(fix):
        return Mended((fix,)).model(model, seed=0)(x)

    first, _, last, _ = model
    swapped = functional.leaky_relu(first(x))
    assert torch.allclose(
        mended(changes.other_activation("tanh", "leaky_relu")), last(swapped).relu()
    )
    assert torch.allclose(mended(changes.bare_output(stats)), last(first(x).tanh()))
    around = (x + first(x)).tanh()
    assert torch.allclose(mended(changes.residual(stats)), last(around).relu())
    shifted = replace(stats_for, input=replace(stats.input, mean=2.0, std=4.0))
    expected = model((x - 2) / 4)
    assert torch.allclose(mended(changes.standardised_inputs(shifted)), expected)


def test_training_changes():
    model = net(2)
    fixes = (changes.learning_rate(0.3), changes.clipping(0.5))
    optimizer = Mended(fixes).optimizer(sgd, model)
    assert [g["lr"] for g in optimizer.param_groups] == [0.3]
    x, y = batches(1)[0]
    (100 * loss_fn(model(x), y)).backward()
    Mended(fixes).clip(model)
    norm = math.sqrt(sum(float(p.grad.square().sum()) for p in model.parameters()))
    assert norm == pytest.approx(0.5, rel=1e-4)


def plain(*after: nn.Module, outputs: int = 4) -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(20, 24), nn.ReLU(), nn.Linear(24, outputs), *after)


def first_layer(parameters):
    return torch.optim.Adam(list(parameters)[:2], 3e-3)


@pytest.mark.parametrize(
    ("model", "loss", "optimizer", "name"),
    [
        (lambda: plain(nn.Softmax(1)), loss_fn, None, "output"),
        (plain, functional.nll_loss, None, "cross-entropy"),
        (plain, lambda o, y: -loss_fn(o, y), None, "sign of the loss"),
        (
            lambda: plain(outputs=1),
            lambda o, y: functional.mse_loss(o[:, 0], y.float()),
            None,
            "cross-entropy",
        ),
        (plain, loss_fn, first_layer, "optimiser"),
        (plain, loss_fn, lambda p: torch.optim.SGD(p, 0.05, weight_decay=20.0), "weight decay"),
        (plain, loss_fn, lambda p: torch.optim.SGD(p, 0.0), "learning rate"),
    ],
)
def test_faults_of_the_step_are_mended(model, loss, optimizer, name):
    make = optimizer or (lambda p: torch.optim.Adam(p, 3e-3))
    pairs = batches(12)
    outcome = repair(model(), loss, pairs, make, steps=36, seeds=(0,))
    assert name in outcome.best.name
    mended = outcome.mended.model(model(), seed=0)
    stepper, better = outcome.mended.optimizer(make, mended), outcome.mended.loss(loss)
    for x, y in 3 * pairs:
        stepper.zero_grad()
        better(mended(x), y).backward()
        stepper.step()
    x, y = pairs[0]
    assert float((mended(x).argmax(1) == y).float().mean()) > 0.7
