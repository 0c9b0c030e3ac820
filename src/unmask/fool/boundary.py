"""The way back from an adversarial picture to where the classifier changes its mind."""

from __future__ import annotations

import torch
from torch import Tensor

from unmask.fool.goal import Goal
from unmask.fool.norms import wide
from unmask.fool.victim import Victim

_HALVINGS = 8


def to_boundary(victim: Victim, originals: Tensor, found: Tensor, goal: Goal) -> Tensor:
    """Return each found picture moved towards its original for as long as it reaches its goal.

    found: pictures that do reach it. The boundary is bisected on the line between the two.
    """
    change = found - originals
    low, high = originals.new_zeros(len(found)), originals.new_ones(len(found))
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        reached = goal.reached(victim.logits(originals + wide(middle, change) * change))
        low, high = torch.where(reached, low, middle), torch.where(reached, middle, high)
    return torch.where(wide(high, change) < 1, originals + wide(high, change) * change, found)
