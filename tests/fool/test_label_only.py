"""RayS and HopSkipJump see classes alone, and come near the closed form of a linear model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

import unmask
from unmask.errors import UserError
from unmask.fool.attacks import ATTACKS
from unmask.fool.goal import Goal
from unmask.fool.norms import Threat
from unmask.fool.outcome import judge
from unmask.fool.victim import Cost, Victim

CLOSED = {"linf": 1.0, "l2": 6.0}


def bright(pixels: Tensor) -> np.ndarray:
    """Give the class alone: 1 where the mean pixel exceeds 1/2."""
    return (pixels.flatten(1).mean(1) > 0.5).long().numpy()


IMAGES = torch.tensor([0.40, 0.45, 0.60])[:, None, None, None].expand(3, 1, 6, 6).contiguous()
LABELS = torch.tensor([0, 0, 1])
AWAY = torch.tensor([0.1, 0.05, 0.1])


@pytest.mark.parametrize(("name", "norm"), [("rays", "linf"), ("hopskipjump", "l2")])
def test_the_distance_to_a_plane_is_found(name: str, norm: str) -> None:
    victim = Victim(bright, classes=2, differentiable=False)
    goal, threat = Goal(LABELS), Threat.of(norm)
    found = ATTACKS[name].function(
        victim, IMAGES, goal, threat, generator=torch.Generator().manual_seed(0), queries=1000
    )
    assert victim.labels_only
    # Every query is counted, for each image; a round begun within the budget is ended.
    assert victim.cost == Cost(int(found.steps.sum()), 0)
    assert int(found.steps.max()) < 1000 + 2000
    outcome = judge(victim, IMAGES, found, goal, threat)
    assert outcome.reached.all()
    size = getattr(outcome, norm) / CLOSED[norm]
    assert (size >= AWAY.numpy() * 0.999).all()
    np.testing.assert_allclose(size, AWAY.numpy(), rtol=0.1, atol=2e-3)


@pytest.mark.parametrize("name", ["rays", "hopskipjump"])
def test_within_an_eps_it_ends_early(name: str) -> None:
    victim = Victim(bright, classes=2, differentiable=False)
    norm = ATTACKS[name].norms[0]
    threat = Threat.of(norm, 0.15 * CLOSED[norm])
    ATTACKS[name].function(
        victim, IMAGES, Goal(LABELS), threat, generator=torch.Generator().manual_seed(0)
    )
    assert victim.cost.forwards < 3 * 1500


def test_an_audit_of_classes_alone_runs_what_can_be_run() -> None:
    done = unmask.audit(bright, (IMAGES, LABELS), eps=0.07, pairs=0, queries=300)
    assert [r.name for r in done.records] == ["rays"]
    assert (done.clean.count, done.robust(0.07).count) == (3, 2)


@pytest.mark.parametrize("name", ["rays", "hopskipjump"])
def test_a_function_of_classes_alone_is_attacked_once_their_number_is_known(name: str) -> None:
    attack = getattr(unmask.attacks, name)
    found = attack(bright, IMAGES, LABELS, queries=300, classes=2)
    assert (bright(found) != LABELS.numpy()).all()
    with pytest.raises(UserError, match="say how many classes there are"):
        attack(bright, IMAGES, LABELS, queries=300)
