from __future__ import annotations

import numpy as np
import pytest

from made_up import diverge, history, largest_gradients, plan, study
from unmask.coursework.study.profiles import FAILS, HOLDS, SOMETIMES, Profile, claims, profiles


def constant(depth: int, activation: str, *seeds: float) -> Profile:
    """A profile whose every layer has one gradient, one a seed."""
    return Profile(depth, activation, 3, np.repeat(np.array(seeds)[:, None], depth + 1, axis=1))


@pytest.mark.parametrize("epoch", [0, 3])
def test_a_profile_holds_every_seed_and_layer(epoch: int) -> None:
    found = profiles(history(plan()), epoch)
    assert len(found) == 12
    for profile in found:
        assert profile.maxima.shape == (3, profile.depth + 1)
        for seed in range(3):
            expected = largest_gradients(profile.depth, profile.activation, seed, epoch)
            assert np.array_equal(profile.maxima[seed], expected)


def test_tiny_gradients_are_not_taken_for_zero() -> None:
    sigmoid = next(p for p in study().profiles_after if (p.depth, p.activation) == (40, "sigmoid"))
    assert sigmoid.median[0] == pytest.approx(5e-42, rel=1e-12)


def test_diverged_seeds_are_left_out_of_the_median() -> None:
    made = history(plan(depths=(5,), activations=("relu",)))
    made.layers["gradient_max"][:, 1, :6] = np.array([[1.0], [2.0], [4.0]])
    assert profiles(made, 3)[0].median == pytest.approx(np.full(6, 2.0))
    diverge(made, 0)
    assert profiles(made, 3)[0].median == pytest.approx(np.full(6, 3.0))
    for row in (1, 2):
        diverge(made, row)
    assert np.isnan(profiles(made, 3)[0].median).all()
    assert claims(profiles(made, 3)) == ()


def test_the_made_up_study_bears_the_document_out_but_for_two_seeds() -> None:
    found = {(c.depth, c.activation): c for c in study().claims}
    assert set(found) == {(d, a) for d in (5, 20, 40) for a in ("relu", "tanh", "sigmoid")}
    assert {found[d, "tanh"].verdict for d in (5, 20, 40)} == {HOLDS}
    assert {found[d, "sigmoid"].verdict for d in (5, 20, 40)} == {HOLDS}
    assert (found[5, "relu"].verdict, found[20, "relu"].verdict) == (HOLDS, HOLDS)
    toss = found[40, "relu"]
    assert (toss.holds, toss.seeds, toss.verdict) == (1, 3, SOMETIMES)
    assert "for 1 of 3 seeds layer 1 has less than 0.01 of the softmax layer's" in toss.sentence
    assert "it has 0 to 1.0 of it" in toss.sentence


def test_each_claim_turns_at_its_stated_bound() -> None:
    near_zero = np.full((2, 6), 0.001)
    near_zero[:, -1] = 1.0
    near_zero[1, 2] = 0.011
    (sigmoid,) = claims((Profile(5, "sigmoid", 3, near_zero),))
    assert (sigmoid.holds, sigmoid.verdict) == (1, SOMETIMES)
    assert "4 to 5 of the 6 layers are under it" in sigmoid.sentence
    uneven = np.full((2, 6), 1.0)
    uneven[:, 3] = [10.0, 10.1]
    (tanh,) = claims((Profile(5, "tanh", 3, uneven),))
    assert (tanh.holds, tanh.seeds) == (1, 2)
    both = (constant(5, "relu", 0.9, 1.1, 99.0, 101.0), constant(5, "tanh", 10.0))
    relu = next(c for c in claims(both) if c.activation == "relu")
    assert relu.holds == 2
    falling = np.ones((2, 41))
    falling[:, 0] = [0.0099, 0.0101]
    (deep,) = claims((Profile(40, "relu", 3, falling),))
    assert deep.holds == 1


def test_a_layer_without_any_gradient_is_not_roughly_constant() -> None:
    dead = np.full((1, 6), 0.5)
    dead[0, 0] = 0.0
    (tanh,) = claims((Profile(5, "tanh", 3, dead),))
    assert tanh.verdict == FAILS
    assert "the factor is ∞" in tanh.sentence


def test_nothing_is_claimed_where_the_document_is_silent() -> None:
    assert claims((constant(7, "tanh", 1.0), constant(5, "lecun", 1.0))) == ()
    assert claims((constant(5, "relu", 1.0),)) == ()
