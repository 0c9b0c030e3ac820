"""The Square attack: random squares of change, by the logits alone."""

from __future__ import annotations

import torch
from torch import Tensor

from unmask.fool.attacks.found import Found
from unmask.fool.attacks.square_moves import moves
from unmask.fool.goal import Goal
from unmask.fool.norms import Threat, wide
from unmask.fool.outcome import Adversarials
from unmask.fool.victim import Victim, cross_entropy, margin

# After which of 10,000 queries the part of the picture that is tried is halved.
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
_SCHEDULE = 10_000


def square(
    victim: Victim,
    pixels: Tensor,
    goal: Goal,
    threat: Threat,
    *,
    generator: torch.Generator,
    queries: int = 5000,
    first_part: float = 0.8,
) -> Adversarials:
    """Change random squares as far as allowed and keep what lowers the loss.

    pixels: float32[n, c, h, w] in [0, 1]. The loss is the margin, or the cross-entropy of a target
    (Andriushchenko et al., 2020). first_part of the picture is changed at first, less by and by. A
    picture that reaches its goal leaves at once: at most queries forwards a picture, and no
    gradient. Raises UserError without eps.
    """
    loss = margin if goal.targets is None else cross_entropy
    drawn = moves(threat.norm.name, pixels, threat.bound, generator)
    found = Found(pixels, threat)
    rows, tries = found.open(), drawn.start()
    best, lowest = tries, pixels.new_full((len(pixels),), float("inf"))
    for query in range(queries):
        if query:
            tries = drawn.tries(rows, best, first_part * _part(query / queries))
        logits = victim.logits(tries)
        value = loss(logits, goal[rows])
        going = found.offer(rows, tries, goal[rows].reached(logits))
        lower = value < lowest
        lowest = torch.where(lower, value, lowest)
        best = torch.where(wide(lower, best), tries, best)
        if not going.all():
            rows, best, lowest = rows[going], best[going], lowest[going]
        if not len(rows):
            break
    return found.adversarials()


def _part(done: float) -> float:
    """Return what is left of the part changed when done of all queries are spent."""
    halvings: int = sum(int(done * _SCHEDULE) > after for after in _HALVINGS)
    return 0.5**halvings
