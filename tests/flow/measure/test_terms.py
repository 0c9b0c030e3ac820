"""terms: losses written by hand are what torch's own are, and where terms of a loss lead."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from unmask.flow.measure.calls import loss_call
from unmask.flow.measure.terms import FOLLOWED, Fed, Terms, calls_by_hand

X = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
Y = torch.randn(16, 3, generator=torch.Generator().manual_seed(1))
LAYER = nn.Linear(4, 3)


@pytest.mark.parametrize(
    ("by_hand", "own"),
    [
        (lambda z: ((z - Y) ** 2).mean(), lambda z: functional.mse_loss(z, Y)),
        (lambda z: torch.mean(torch.pow(Y - z, 2)), lambda z: functional.mse_loss(z, Y)),
        (lambda z: (z - Y).square().mean() / 2, lambda z: functional.mse_loss(z, Y) / 2),
        (lambda z: (d := z - Y).mul(d).mean(), lambda z: functional.mse_loss(z, Y)),
        (lambda z: (z - Y).abs().mean(), lambda z: functional.l1_loss(z, Y)),
        (
            lambda z: 0.5 * (z - Y).square().sum(),
            lambda z: 0.5 * functional.mse_loss(z, Y, reduction="sum"),
        ),
        (
            lambda z: (z - Y).square().sum(dim=-1).mean(),
            lambda z: functional.mse_loss(z, Y, reduction="sum") / 16,
        ),
        (
            lambda z: ((z - Y).square().mean(1) + LAYER.bias.square().sum()).mean(),
            lambda z: functional.mse_loss(z, Y),
        ),
        (lambda z: (z.view(48) - Y.view(48)).square().mean(), lambda z: functional.mse_loss(z, Y)),
    ],
)
def test_an_error_by_hand_is_the_loss_that_torch_has(by_hand, own):
    z = LAYER(X)
    loss = by_hand(z)
    (call,) = calls_by_hand(loss, z, ())
    expected = own(z)
    name = "l1_loss" if "Abs" in str(loss.grad_fn.next_functions) else "mse_loss"
    known = loss_call(name, z, Y, {}, expected)
    assert call.name == name
    assert call.value == pytest.approx(float(expected), rel=1e-5)
    assert call.explained == pytest.approx(known.explained, rel=1e-4)
    assert call.target_high == pytest.approx(known.target_high, rel=1e-5)
    assert (call.shape, call.target_shape, call.operation) == ((16, 3), (16, 3), "scores")


def test_a_scaled_loss_is_told_as_it_was():
    z = LAYER(X)
    (call,) = calls_by_hand((z - Y).square().mean() * torch.tensor(1024.0), z, (), 1024.0)
    assert call.value == pytest.approx(float(functional.mse_loss(z, Y)), rel=1e-5)


def test_whole_targets_come_back_whole():
    z, y = nn.Linear(4, 1)(X)[:, 0], torch.arange(16.0)
    (call,) = calls_by_hand((y - z).square().mean(), z, ())
    assert call.classes == dict.fromkeys(range(16), 1)


@pytest.mark.parametrize(
    "made",
    [
        # Both sides carry a gradient; the network's own features; no difference.
        lambda z: (z - LAYER(X + 1)).square().mean(),
        lambda z: (z.T - Y.T).square().mean(),
        lambda z: (z[:, 0] - Y[:, 0]).square().mean(),
        lambda z: z.square().mean(),
        lambda z: (z.relu() - Y).square().mean(),
        lambda z: functional.mse_loss(z, Y),
    ],
)
def test_what_is_no_error_of_the_outputs(made):
    z = LAYER(X)
    assert calls_by_hand(made(z), z, ()) == []


def test_a_loss_is_left_out_if_nothing_leads_to_its_outputs():
    fed, z = Fed(), nn.Linear(4, 6)(X)
    first, second = z.split([3, 3], 1)
    kept = functional.mse_loss(first, Y)
    left = functional.mse_loss(second, Y)
    calls = [loss_call("mse_loss", o, Y, {}, r) for o, r in ((first, kept), (second, left))]
    for i, (output, result) in enumerate(((first, kept), (second, left))):
        fed.add(i, output, result)
    # Before any backward pass nothing is known.
    assert [c.left_out for c in fed.marked(calls)] == [False, False]
    fed.sent_back(kept)
    assert [c.left_out for c in fed.marked(calls)] == [False, True]
    # A measure of outputs that another loss trains is no loss that was forgotten.
    fed.sent_back(2 * second.sum())
    assert [c.left_out for c in fed.marked(calls)] == [False, False]


def alternately(detach: bool, together: bool = False):
    """Train a generator and a critic in turn, and return the terms without effect."""
    maker, critic = nn.Linear(4, 3), nn.Linear(3, 1)
    terms = Terms()
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.1) for m in (maker, critic)]

    def step(loss, line, *which):
        for o in optimizers:
            o.zero_grad()
        terms.sent_back(loss, line)
        loss.backward()
        for i in which:
            terms.stepped(p for g in optimizers[i].param_groups for p in g["params"])
            optimizers[i].step()

    for _ in range(10):
        made = maker(X)
        step(0.5 * (critic(made.detach()).mean() - critic(Y).mean()), "critic", 1)
        fooled = critic(made.detach() if detach else made).mean()
        near = functional.l1_loss(made, Y)
        step(fooled + 0.1 * near, "maker", *((0, 1) if together else (0,)))
    return [(term, count) for term, count in terms.without_effect() if count > 1]


def test_a_term_that_reaches_only_weights_of_another_turn():
    ((term, count),) = alternately(detach=True)
    assert (term.location, term.number) == ("maker", 0)
    assert 8 <= count <= FOLLOWED
    assert not alternately(detach=False)
    # Where both step, the term trains the critic.
    assert not alternately(detach=True, together=True)
