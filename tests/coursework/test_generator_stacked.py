from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from unmask.coursework.generator.stacked import Generators


def made(count: int, size: int = 12, hidden: int = 5, seed: int = 0) -> Generators:
    like = torch.empty(0, dtype=torch.float64)
    drawn = torch.Generator().manual_seed(seed)
    generators = Generators(count, size, hidden=hidden, generator=drawn, like=like)
    # Biases of zero and equal weights would hide mistakes.
    for layer in generators.layers:
        layer.weight += 0.1 * torch.randn(layer.weight.shape, generator=drawn, dtype=torch.float64)
        layer.bias += 0.3 * torch.randn(layer.bias.shape, generator=drawn, dtype=torch.float64)
    return generators


def by_hand(generators: Generators, i: int, parameters: list[Tensor]) -> Tensor:
    w1, b1, w2, b2, w3, b3 = parameters
    first = (w1[0] + b1).relu()
    return (first @ w2 + b2).relu() @ w3 + b3


def weights(generators: Generators, i: int) -> list[Tensor]:
    return [t[i].clone() for layer in generators.layers for t in (layer.weight, layer.bias)]


def test_each_is_a_network_of_two_hidden_relu_layers_fed_with_1() -> None:
    generators = made(3)
    found = generators()
    for i in range(3):
        expected = by_hand(generators, i, weights(generators, i))
        torch.testing.assert_close(found[i], expected, rtol=1e-12, atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 5))
def test_the_start_reproduces_the_picture_exactly(seed: int, count: int) -> None:
    generators = made(count, seed=seed)
    values = torch.rand(count, 12, dtype=torch.float64)
    generators.start_at(values)
    torch.testing.assert_close(generators(), values, rtol=0, atol=1e-14)


def test_gradients_equal_autograd() -> None:
    generators = made(3)
    error = torch.randn(3, 12, dtype=torch.float64)
    generators()
    errors = generators.errors(error)
    for i in range(3):
        parameters = [p.requires_grad_() for p in weights(generators, i)]
        output = by_hand(generators, i, parameters)
        expected = torch.autograd.grad((output * error[i]).sum(), parameters)
        found = [g for x, e in errors for g in (torch.outer(x[i], e[i]), e[i])]
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_a_step_moves_the_output_by_about_the_error() -> None:
    generators = made(4, hidden=30)
    before = generators().clone()
    error = 1e-4 * torch.randn(4, 12, dtype=torch.float64)
    generators.descend(error)
    moved = before - generators()
    # The last layer moves it by the error, the hidden ones only ever further down.
    assert bool(((moved * error).sum(1) >= (error * error).sum(1) * (1 - 1e-3)).all())
    assert float((moved - error).norm() / error.norm()) < 3


def test_stacked_ones_equal_those_trained_alone() -> None:
    together, alone = made(4), [made(4) for _ in range(4)]
    targets = torch.rand(4, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for i, one in enumerate(alone):
        one.keep(torch.arange(4) == i)
    for _ in range(20):
        together.descend(together() - targets)
        for i, one in enumerate(alone):
            one.descend(one() - targets[i : i + 1])
    expected = torch.cat([one() for one in alone])
    torch.testing.assert_close(together(), expected, rtol=1e-12, atol=1e-12)
    assert float((together() - targets).norm()) < 1e-3


def test_all_start_alike_within_glorot_limits() -> None:
    like = torch.empty(0)
    generators = Generators(
        3, 784, hidden=16, generator=torch.Generator().manual_seed(1), like=like
    )
    last = generators.layers[-1].weight
    assert bool((last == last[:1]).all())
    limit = math.sqrt(6 / (16 + 784))
    assert float(last.abs().max()) <= limit
    assert float(last.std()) == pytest.approx(limit / math.sqrt(3), rel=0.05)
