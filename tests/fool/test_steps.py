"""Steps pass gradients on, and give the very values that they give without it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from unmask.fool.steps import ThroughSteps

STEPS: dict[str, tuple[Callable[[Tensor], Tensor], float]] = {
    "round": (lambda x: (x * 7).round() / 7, 1.0),
    "floor": (lambda x: torch.floor(x * 8) / 8, 1.0),
    "sign": (lambda x: torch.sign(x - 0.5), 1.0),
    "heaviside": (lambda x: torch.heaviside(2 * x - 1, torch.tensor(0.0)), 2.0),
    "above": (lambda x: (x > 0.5).float(), 1.0),
    "below": (lambda x: (x <= 0.3).to(torch.float32), -1.0),
    "above, times": (lambda x: (x > 0.5) * 3.0, 3.0),
    "above, as int": (lambda x: (x > 0.5).int().float(), 1.0),
    "where": (lambda x: torch.where(x > 0.5, 1.0, -1.0), 2.0),
    "8 bits": (lambda x: (x * 255).to(torch.uint8).float() / 255, 1.0),
    "bins": (lambda x: torch.bucketize(x, torch.linspace(0, 1, 9)).float(), 1.0),
    "a clamp by hand": (lambda x: torch.where(x > 0.5, x, 0.5 * x.detach()), float("nan")),
    "no step": (lambda x: x.square(), float("nan")),
}


@pytest.mark.parametrize("name", STEPS)
def test_a_step_gives_what_it_gave_and_passes_the_gradient_on(name: str) -> None:
    step, slope = STEPS[name]
    x = torch.rand(5, 7, generator=torch.Generator().manual_seed(0)).requires_grad_()
    with ThroughSteps():
        y = step(x)
    assert torch.equal(y, step(x.detach()))
    (gradient,) = torch.autograd.grad(y.sum(), x)
    # What has a gradient keeps its own.
    own = {"no step": 2 * x.detach(), "a clamp by hand": (x > 0.5).float()}
    expected = own.get(name, torch.full_like(x, slope))
    torch.testing.assert_close(gradient, expected)


def test_outside_there_is_no_gradient_and_constants_get_none() -> None:
    x = torch.rand(3, requires_grad=True)
    assert not torch.autograd.grad(x.round().sum(), x)[0].any()
    with ThroughSteps():
        assert not (torch.rand(3) > 0.5).float().requires_grad
        assert not x.detach().round().requires_grad


def test_a_comparison_with_another_shape() -> None:
    x = torch.rand(4, 1, requires_grad=True)
    with ThroughSteps():
        y = (x > torch.rand(1, 3)).float()
    (gradient,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(gradient, torch.full((4, 1), 3.0))
