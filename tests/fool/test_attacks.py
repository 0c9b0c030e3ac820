"""What holds for every attack, whatever it is run on."""

from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from unmask.data.mnist import load_mnist
from unmask.errors import UserError
from unmask.fool.attacks import ATTACKS, carlini_wagner, ddn, square
from unmask.fool.attacks.apgd import checkpoints, ratio
from unmask.fool.attacks.square import L2Moves, LinfMoves
from unmask.fool.goal import Goal, every_target
from unmask.fool.norms import NORMS, Threat
from unmask.fool.outcome import judge
from unmask.fool.victim import Victim, margin
from unmask.models.classifier import Classifier

FEW = {
    "fgsm": {},
    "pgd": {"steps": 5, "restarts": 2},
    "ddn": {"steps": 20},
    "fmn": {"steps": 20},
    "cw": {"steps": 30, "searches": 4, "rate": 0.05, "first_weight": 0.1},
    "apgd-ce": {"steps": 20, "restarts": 2},
    "apgd-t": {"steps": 10, "classes_tried": 2},
    "apgd-dlr": {"steps": 20},
    "apgd-minimal": {"steps": 10, "searches": 4},
    "sigma-zero": {"steps": 20},
    "pdpgd": {"steps": 20},
    "square": {"queries": 30},
    "rays": {"queries": 60},
    "hopskipjump": {"queries": 200, "first_samples": 20},
}
# One answer that rounds otherwise leads a bisection elsewhere.
BISECTED = ("apgd-minimal", "rays", "hopskipjump")
CASES = [(name, norm) for name, spec in ATTACKS.items() for norm in spec.norms]


def threat_of(name, norm):
    if ATTACKS[name].minimal:
        return Threat(NORMS[norm])
    return Threat(NORMS[norm], 0.05 if norm == "linf" else 0.3)


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 25, 4)
    ).requires_grad_(False)


def subject(**settings):
    model = network()
    pixels = torch.rand((9, 2, 7, 7), generator=torch.Generator().manual_seed(2))
    victim = Victim(model, classes=4, **settings)
    return victim, pixels, Goal(victim.logits(pixels).argmax(1))


def run(name, norm, victim, pixels, goal, seed=0):
    generator = torch.Generator().manual_seed(seed)
    threat = threat_of(name, norm)
    return ATTACKS[name].function(
        victim, pixels, goal, threat, generator=generator, **FEW[name]
    ), threat


@cache
def usual(name, norm):
    """What an attack finds with the usual seed, the threat, and the cost; several tests look."""
    victim, pixels, goal = subject()
    before = victim.cost
    found, threat = run(name, norm, victim, pixels, goal)
    return found, threat, victim.cost - before


def test_every_attack_is_tried_here():
    assert FEW.keys() == ATTACKS.keys()
    assert all(spec.name == name for name, spec in ATTACKS.items())


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_what_is_given_back_lies_in_the_box_and_within_eps(name, norm):
    victim, pixels, goal = subject()
    found, threat, _ = usual(name, norm)
    assert found.pixels.shape == pixels.shape
    assert found.pixels.min() >= 0
    assert found.pixels.max() <= 1
    assert threat.allows(found.pixels - pixels).all()
    assert judge(victim, pixels, found, goal, threat).reached.any()


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_the_same_seed_gives_the_same_bits_and_the_batch_changes_no_finding(name, norm):
    victim, pixels, goal = subject()
    once, threat, _ = usual(name, norm)
    again, _ = run(name, norm, victim, pixels, goal)
    assert torch.equal(once.pixels, again.pixels)
    assert torch.equal(once.steps, again.steps)
    # A convolution of fewer images may round otherwise; the draws are the same.
    split, _ = run(name, norm, subject(batch=2)[0], pixels, goal)
    a, b = (judge(victim, pixels, found, goal, threat) for found in (once, split))
    assert (a.reached == b.reached).all()
    if name not in BISECTED:
        torch.testing.assert_close(split.pixels, once.pixels, rtol=0, atol=2e-3)


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_what_one_picture_gets_does_not_depend_on_which_others_are_fooled(name, norm):
    victim, pixels, goal = subject()
    first, _, _ = usual(name, norm)
    # Here all images but the first are fooled before the attack begins.
    wrong = Goal(torch.where(torch.arange(9) == 0, goal.labels, (goal.labels + 1) % 4))
    alone, threat = run(name, norm, victim, pixels, wrong)
    if name not in BISECTED:
        torch.testing.assert_close(alone.pixels[0], first.pixels[0], rtol=0, atol=2e-3)
    if name not in ("pgd", "apgd-ce", "apgd-dlr", "apgd-t", "square"):
        assert threat.norm.size(alone.pixels - pixels)[1:].max() < 1e-5


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_costs_are_the_steps(name, norm):
    found, _, spent = usual(name, norm)
    # One class after another is ordered by one more forward.
    assert spent.forwards == found.steps.sum() + (len(found.pixels) if name == "apgd-t" else 0)
    if not ATTACKS[name].needs_gradient:
        assert spent.backwards == 0


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_no_pictures_and_no_gradient_are_no_error(name, norm):
    victim, pixels, goal = subject()
    found, _ = run(name, norm, victim, pixels[:0], goal[:0])
    assert found.pixels.shape == (0, 2, 7, 7)
    flat = Victim(lambda x: torch.eye(4)[:1].expand(len(x), 4), classes=4)
    stuck = Goal(torch.zeros(9, dtype=torch.int64))
    found, threat = run(name, norm, flat, pixels, stuck)
    assert not judge(flat, pixels, found, stuck, threat).reached.any()
    assert found.pixels.isfinite().all()


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_a_model_that_gives_no_number_has_failed_and_no_target_is_reached(name, norm):
    _, pixels, goal = subject()
    broken = Victim(lambda x: x.flatten(1)[:, :4] * float("nan"), classes=4)
    found, threat = run(name, norm, broken, pixels, goal)
    assert judge(broken, pixels, found, goal, threat).reached.all()
    aimed = Goal(goal.labels, (goal.labels + 1) % 4)
    found, threat = run(name, norm, broken, pixels, aimed)
    assert not judge(broken, pixels, found, aimed, threat).reached.any()
    assert found.pixels.isfinite().all()


@pytest.mark.parametrize("name", [n for n, spec in ATTACKS.items() if spec.bounded])
def test_an_attack_within_bounds_needs_them(name):
    victim, pixels, goal = subject()
    with pytest.raises(UserError, match="how large"):
        ATTACKS[name].check(victim, Threat.parse("linf"))
    with pytest.raises(UserError, match="how large"):
        ATTACKS[name].function(
            victim, pixels, goal, Threat.parse("linf"), generator=torch.Generator()
        )


def test_an_attack_is_refused_where_it_cannot_run():
    victim = subject(differentiable=True)[0]
    with pytest.raises(UserError, match="ddn knows no linf"):
        ATTACKS["ddn"].check(victim, Threat.parse("linf"))
    box = Victim(network(), classes=4, differentiable=False)
    with pytest.raises(UserError, match="pgd needs gradients"):
        ATTACKS["pgd"].check(box, Threat.parse("linf:0.1"))
    ATTACKS["square"].check(box, Threat.parse("linf:0.1"))


def test_square_needs_logits_alone():
    victim, pixels, goal = subject(differentiable=False)
    found = square(
        victim, pixels, goal, Threat.parse("linf:0.3"), generator=torch.Generator(), queries=200
    )
    assert judge(victim, pixels, found, goal, Threat.parse("linf:0.3")).reached.all()


@given(st.integers(0, 1000), st.floats(0.01, 100), st.floats(-10, 10))
@settings(deadline=None, max_examples=50)
def test_the_ratio_is_blind_to_scale_and_shift(seed, scale, shift):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn((5, 6), generator=generator, dtype=torch.float64)
    labels = torch.randint(6, (5,), generator=generator)
    for goal in (Goal(labels), Goal(labels, (labels + 1) % 6)):
        torch.testing.assert_close(ratio(logits * scale + shift, goal), ratio(logits, goal))
        assert torch.equal(ratio(logits, goal).sign(), margin(logits, goal).sign())


def test_the_ratio_of_logits_worked_by_hand():
    logits = torch.tensor([[5.0, 1.0, 3.0, 2.0]])
    own, target = torch.tensor([0]), torch.tensor([1])
    assert ratio(logits, Goal(own)).item() == pytest.approx((5 - 3) / (5 - 2))
    assert ratio(logits, Goal(own, target)).item() == pytest.approx((5 - 1) / (5 - (2 + 1) / 2))


def test_the_checkpoints_are_those_published():
    assert checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert checkpoints(1000)[:3] == [220, 410, 570]
    assert checkpoints(3) == [1, 2, 3]


@pytest.mark.parametrize("shape", [(3, 1, 28, 28), (2, 3, 9, 12), (2, 1, 3, 3), (2, 2, 5, 4)])
@pytest.mark.parametrize("part", [0.8, 0.1, 1e-4])
def test_square_moves_go_as_far_as_allowed_and_change_a_part(shape, part):
    pixels = torch.full(shape, 0.5)
    rows = torch.arange(shape[0])
    eps = 0.1
    for kind, norm in ((LinfMoves, "linf"), (L2Moves, "l2")):
        drawn = kind(pixels, eps, torch.Generator().manual_seed(0))
        start = drawn.start()
        torch.testing.assert_close(
            NORMS[norm].size(start - pixels), torch.full((shape[0],), eps), atol=1e-6, rtol=1e-5
        )
        tries = drawn.tries(rows, start, part)
        torch.testing.assert_close(
            NORMS[norm].size(tries - pixels), torch.full((shape[0],), eps), atol=1e-6, rtol=1e-5
        )
        # The smallest square of L2 covers all of three by three values.
        assert shape[2:] == (3, 3) or not torch.equal(tries, start)


def test_a_square_of_one_sign_is_all_that_changes():
    pixels = torch.full((4, 3, 20, 20), 0.5)
    drawn = LinfMoves(pixels, 0.1, torch.Generator().manual_seed(0))
    change = drawn.tries(torch.arange(4), pixels, 0.09) - pixels
    for picture in change:
        ys, xs = picture.abs().amax(0).nonzero(as_tuple=True)
        assert (int(ys.max() - ys.min()), int(xs.max() - xs.min())) == (5, 5)
        assert len(ys) == 36
        assert all(len(channel[channel != 0].unique()) == 1 for channel in picture)


@pytest.mark.slow
def test_ddn_comes_near_carlini_and_wagner_on_the_shipped_model():
    model = Classifier.load("mnist")
    _, test = load_mnist()
    pixels = torch.from_numpy(test.pixels[:1]).float() / 255
    rows, goal = every_target(torch.from_numpy(test.labels[:1]), 10)
    rows, goal = rows[::3], goal[::3]
    sizes, spent = [], []
    for attack, much in (
        (carlini_wagner, {"steps": 200, "rate": 0.05, "searches": 5, "first_weight": 0.1}),
        (ddn, {"steps": 90}),
    ):
        victim = Victim(model, classes=10, batch=64)
        threat = Threat.parse("l2")
        found = attack(victim, pixels[rows], goal, threat, generator=torch.Generator(), **much)
        spent.append(victim.cost.backwards)
        outcome = judge(victim, pixels[rows], found, goal, threat)
        assert outcome.reached.all()
        sizes.append(outcome.l2.mean())
    assert sizes[1] <= 1.05 * sizes[0]
    assert spent[1] < spent[0] / 10


def test_square_spends_no_more_on_what_is_hopeless() -> None:
    def bright(pixels):
        above = 20 * (pixels.flatten(1).mean(1) - 0.5)
        return torch.stack([-above, above], 1)

    # The smallest changes are 0.05, 0.1 and 0.4.
    pixels = torch.tensor([0.45, 0.4, 0.1])[:, None, None, None].expand(3, 1, 6, 6).clone()
    goal, threat = Goal(torch.zeros(3, dtype=torch.int64)), Threat(NORMS["linf"], 0.12)
    spent = {}
    for patience in (3.0, float("inf")):
        victim = Victim(bright, classes=2, differentiable=False)
        found = square(
            victim,
            pixels,
            goal,
            threat,
            generator=torch.Generator().manual_seed(0),
            queries=1000,
            patience=patience,
        )
        spent[patience] = victim.cost.forwards
        assert goal.reached(bright(found.pixels)).tolist() == [True, True, False]
    assert 1000 <= spent[float("inf")] <= 1200
    assert spent[3.0] <= 0.45 * spent[float("inf")]


@pytest.mark.parametrize("name", ["apgd-ce", "apgd-dlr", "apgd-t"])
def test_a_descent_leaves_what_is_hopeless(name: str) -> None:
    class Bright(nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            above = 20 * (pixels.flatten(1).mean(1) - 0.5)
            return torch.stack([-above, above, above - 4], 1)

    # The smallest changes are 0.05, 0.1 and 0.4; the last image alone gets the patience given.
    pixels = torch.tensor([0.45, 0.4, 0.1])[:, None, None, None].expand(3, 1, 6, 6).clone()
    goal, threat = Goal(torch.zeros(3, dtype=torch.int64)), Threat(NORMS["linf"], 0.12)
    spent = {}
    for last in (3.0, float("inf")):
        victim = Victim(Bright(), classes=3)
        found = ATTACKS[name].function(
            victim,
            pixels,
            goal,
            threat,
            generator=torch.Generator().manual_seed(0),
            steps=100,
            patience=torch.tensor([float("inf"), float("inf"), last]),
        )
        spent[last] = victim.cost.backwards
        assert goal.reached(Bright()(found.pixels)).tolist() == [True, True, False]
    runs = 2 if name == "apgd-t" else 1
    assert spent[float("inf")] >= 101 * runs
    assert spent[float("inf")] - spent[3.0] >= 70 * runs
