import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from unmask.fool.goal import Goal
from unmask.fool.victim import Cost, Victim, cross_entropy, margin

LABELS = torch.tensor([0, 1, 2, 3, 4, 0, 1])
GOALS = {"untargeted": Goal(LABELS), "targeted": Goal(LABELS, (LABELS + 2) % 5)}


def smooth(double: bool = False) -> nn.Module:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(48, 16), nn.Tanh(), nn.Linear(16, 5)
    )
    return network.double() if double else network


def pictures() -> torch.Tensor:
    return torch.rand((7, 1, 6, 6), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("loss", [cross_entropy, margin])
@pytest.mark.parametrize("goal", GOALS.values(), ids=GOALS)
def test_the_gradient_equals_that_in_float64(loss, goal):
    victim = Victim(smooth(), classes=5, batch=3)
    logits, values, gradient = victim.gradient(pictures(), goal, loss)
    x = pictures().double().requires_grad_()
    said = smooth(double=True)(x)
    expected = loss(said, goal)
    expected.sum().backward()
    torch.testing.assert_close(logits.double(), said.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(values.double(), expected.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient.double(), x.grad, rtol=1e-4, atol=1e-6)
    assert not gradient.requires_grad


@given(st.integers(1, 9))
@settings(max_examples=9, deadline=None)
def test_chunks_change_nothing_and_every_picture_is_counted(batch):
    whole, parts = Victim(smooth(), classes=5), Victim(smooth(), classes=5, batch=batch)
    torch.testing.assert_close(parts.logits(pictures()), whole.logits(pictures()))
    assert parts.cost == Cost(7, 0)
    ours = parts.gradient(pictures(), GOALS["targeted"], margin)
    for a, b in zip(ours, whole.gradient(pictures(), GOALS["targeted"], margin), strict=True):
        torch.testing.assert_close(a, b)
    assert parts.cost == Cost(14, 7)
    assert parts.cost - Cost(7, 0) == Cost(7, 7)


def test_no_more_than_a_batch_goes_through_at_a_time():
    sizes = []

    def function(x: torch.Tensor) -> torch.Tensor:
        sizes.append(len(x))
        return x.flatten(1)[:, :5]

    victim = Victim(function, classes=5, batch=3)
    victim.logits(pictures())
    victim.gradient(pictures(), GOALS["untargeted"], margin)
    assert sizes == [3, 3, 1] * 2


def test_a_model_whose_logits_depend_on_nothing_has_a_gradient_of_zero():
    for function in (lambda x: torch.ones(len(x), 5), lambda x: x.round().detach().flatten(1)):
        victim = Victim(function)
        gradient = victim.gradient(pictures(), GOALS["untargeted"], cross_entropy)[2]
        assert torch.equal(gradient, torch.zeros_like(pictures()))


def test_the_victim_is_left_as_it_was():
    network = smooth().train()
    Victim(network, classes=5).gradient(pictures(), GOALS["untargeted"], margin)
    assert network.training
    assert all(p.grad is None and p.requires_grad for p in network.parameters())


def test_a_gradient_can_be_had_where_gradients_are_switched_off():
    with torch.no_grad():
        gradient = Victim(smooth(), classes=5).gradient(pictures(), GOALS["untargeted"], margin)[2]
    assert gradient.abs().sum() > 0


def test_no_pictures():
    victim = Victim(smooth(), classes=5)
    none = pictures()[:0]
    assert victim.logits(none).shape == (0, 5)
    logits, values, gradient = victim.gradient(none, GOALS["untargeted"][:0], margin)
    assert (logits.shape, values.shape, gradient.shape) == ((0, 5), (0,), none.shape)


def test_a_black_box_has_no_gradient():
    with pytest.raises(AssertionError):
        Victim(smooth(), classes=5, differentiable=False).gradient(
            pictures(), GOALS["untargeted"], margin
        )


def test_the_loss_is_small_where_the_goal_is_reached():
    logits = torch.tensor([[4.0, 0.0, 0.0], [0.0, 4.0, 0.0]])
    untargeted, targeted = (
        Goal(torch.tensor([0, 0])),
        Goal(torch.tensor([0, 0]), torch.tensor([1, 1])),
    )
    for loss in (cross_entropy, margin):
        for goal in (untargeted, targeted):
            missed, reached = loss(logits, goal)
            assert reached < missed


class Behind(nn.Module):
    """Logits of pixels behind a ramp from low to high, flat beyond."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.low, self.high = low, high
        generator = torch.Generator().manual_seed(2)
        self.weights = nn.Parameter(torch.randn((36, 5), generator=generator))

    def ramp(self, x: torch.Tensor) -> torch.Tensor:
        return ((x - self.low) / (self.high - self.low)).clamp(0, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.ramp(x).flatten(1) @ self.weights


@pytest.mark.parametrize(("low", "high"), [(0.45, 0.55), (0.1, 0.9), (0.0, 0.7), (0.3, 1.0)])
def test_the_range_that_a_model_sees_is_found(low: float, high: float) -> None:
    victim = Victim(Behind(low, high), classes=5)
    victim.look(pictures())
    assert victim.visible == pytest.approx((low, high), abs=2e-4 * (high - low))


@pytest.mark.parametrize(
    "function",
    [
        smooth(),
        nn.Sequential(nn.Flatten(), nn.Linear(36, 5)),
        lambda x: (x > 0.5).float().flatten(1)[:, :5],
        lambda x: torch.ones(len(x), 5),
        lambda x: x.flatten(1)[:, :5] + torch.rand(len(x), 5),
        lambda x: (x * 7).round().flatten(1)[:, :5],
    ],
    ids=["smooth", "linear", "a step", "constant", "random", "rounded"],
)
def test_a_model_without_a_ramp_is_seen_whole(function) -> None:
    victim = Victim(function, classes=5)
    victim.look(pictures())
    assert victim.visible is None


def test_a_black_box_is_not_looked_at() -> None:
    victim = Victim(Behind(0.4, 0.6), classes=5, differentiable=False)
    victim.look(pictures())
    assert victim.visible is None
    assert victim.cost == Cost(0, 0)


def test_beyond_the_range_the_gradient_is_that_of_its_end() -> None:
    model = Behind(0.45, 0.55)
    victim, goal = Victim(model, classes=5), Goal(torch.tensor([3]))
    black = torch.full((1, 1, 6, 6), 0.2)

    def second(logits: torch.Tensor, goal: Goal) -> torch.Tensor:
        return logits[:, 1]

    assert not victim.gradient(black, goal, second)[2].any()
    victim.look(pictures())
    logits, _, gradient = victim.gradient(black, goal, second)
    torch.testing.assert_close(logits, model(black).detach(), rtol=0, atol=0.01)
    # The slope of the ramp times the weights.
    expected = model.weights[:, 1].detach() / (0.55 - 0.45)
    torch.testing.assert_close(gradient.flatten(), expected, rtol=1e-4, atol=1e-5)
    # A copy has learnt it too.
    assert victim.fresh().visible == victim.visible
