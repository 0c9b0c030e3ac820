"""Every attack against classifiers whose smallest change is known in closed form."""

from functools import cache, partial

import numpy as np
import pytest
import torch
from linear import Linear

from unmask.fool.attacks import apgd_ce, apgd_t, carlini_wagner, ddn, fgsm, fmn, pdpgd, pgd, square
from unmask.fool.norms import NORMS, Threat
from unmask.fool.outcome import judge
from unmask.fool.victim import margin

MINIMAL = {
    "ddn": (ddn, "l2", {"steps": 300}),
    "fmn": (fmn, "l2", {"steps": 100}),
    "fmn linf": (fmn, "linf", {"steps": 100}),
    "cw": (
        carlini_wagner,
        "l2",
        {"steps": 300, "rate": 1e-3, "first_weight": 0.1, "searches": 6},
    ),
}
BOUNDED = {
    "pgd": partial(pgd, steps=60, loss=margin),
    "apgd-ce": apgd_ce,
    "apgd-t": apgd_t,
}


def run(attack, linear, goal, threat, **settings):
    victim = linear.victim()
    generator = torch.Generator().manual_seed(0)
    found = attack(victim, linear.pixels, goal, threat, generator=generator, **settings)
    return judge(victim, linear.pixels, found, goal, threat)


@cache
def smallest(name, targeted):
    """What an attack without an eps finds; two tests look at it."""
    attack, norm, settings = MINIMAL[name]
    linear = Linear(2)
    goal = linear.targeted() if targeted else linear.untargeted()
    return run(attack, linear, goal, Threat.parse(norm), **settings)


@pytest.mark.parametrize("name", MINIMAL)
@pytest.mark.parametrize("targeted", [True, False])
def test_the_smallest_change_is_found_within_one_percent(name, targeted):
    norm, linear = MINIMAL[name][1], Linear(2)
    outcome = smallest(name, targeted)
    assert outcome.reached.all()
    size = outcome.l2 if norm == "l2" else outcome.linf
    ratio = size / linear.smallest(NORMS[norm]).numpy()
    assert ratio.min() > 1 - 1e-4
    assert ratio.max() < 1.01


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_primal_dual_descent_comes_near(norm):
    linear = Linear(2)
    outcome = run(pdpgd, linear, linear.untargeted(), Threat.parse(norm), steps=300)
    assert outcome.reached.all()
    ratio = outcome.size / linear.smallest(NORMS[norm]).numpy()
    assert ratio.min() > 1 - 1e-4
    assert np.median(ratio) < 1.02
    assert ratio.max() < 1.1


def split(linear: Linear, norm: str) -> tuple[Threat, np.ndarray]:
    """An eps that about half of the images can be fooled within, and which those are."""
    smallest = linear.smallest(NORMS[norm]).sort().values
    # The widest gap in the middle: none is closer than 1 % to it.
    gaps = smallest[1:] / smallest[:-1]
    middle = slice(len(smallest) // 4, 3 * len(smallest) // 4)
    at = int(gaps[middle].argmax()) + middle.start
    assert gaps[at] > 1.02
    eps = float((smallest[at] * smallest[at + 1]).sqrt())
    return Threat(NORMS[norm], eps), (linear.smallest(NORMS[norm]) < eps).numpy()


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("name", BOUNDED)
@pytest.mark.parametrize("targeted", [True, False])
def test_those_are_fooled_whose_smallest_change_is_within_eps(name, norm, targeted):
    linear = Linear(2)
    goal = linear.targeted() if targeted else linear.untargeted()
    threat, expected = split(linear, norm)
    assert (run(BOUNDED[name], linear, goal, threat).reached == expected).all()


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_one_class_after_another_finds_the_nearest_of_several(norm):
    linear = Linear(5)
    threat, expected = split(linear, norm)
    assert (run(apgd_t, linear, linear.untargeted(), threat).reached == expected).all()


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("targeted", [True, False])
def test_one_step_is_the_best_there_is_where_two_classes_meet_at_a_plane(norm, targeted):
    linear = Linear(2)
    threat, expected = split(linear, norm)
    goal = linear.targeted() if targeted else linear.untargeted()
    assert (run(fgsm, linear, goal, threat).reached == expected).all()


@pytest.mark.parametrize(("norm", "share"), [("linf", 0.95), ("l2", 0.7)])
@pytest.mark.parametrize("targeted", [True, False])
def test_square_comes_near_without_gradients(norm, share, targeted):
    linear = Linear(2)
    threat, possible = split(linear, norm)
    goal = linear.targeted() if targeted else linear.untargeted()
    outcome = run(square, linear, goal, threat, queries=1000)
    assert (outcome.reached <= possible).all()
    easy = linear.smallest(NORMS[norm]).numpy() < share * threat.eps
    assert easy.sum() > 3
    assert outcome.reached[easy].all()


@pytest.mark.parametrize("name", MINIMAL)
def test_with_eps_the_search_ends_for_each_picture_that_is_fooled_within_it(name):
    attack, norm, settings = MINIMAL[name]
    linear = Linear(2)
    threat, expected = split(linear, norm)
    alone = smallest(name, False)
    outcome = run(attack, linear, linear.untargeted(), threat, **settings)
    assert (outcome.reached == expected).all()
    assert (outcome.steps[expected] < alone.steps[expected]).all()
    assert (outcome.steps[~expected] == alone.steps[~expected]).all()
