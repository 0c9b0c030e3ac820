"""The last refinements of an adversarial image: back to the boundary, and to 8-bit values."""

from __future__ import annotations

import torch
from torch import Tensor

from unmask.fool.goal import Goal
from unmask.fool.norms import Norm, Threat, wide
from unmask.fool.outcome import saved
from unmask.fool.victim import Victim, margin

HALVINGS = 8

_ROUNDS = 12
_LEVELS = 255
_ROUNDING = 1e-6


def refined(
    victim: Victim,
    originals: Tensor,
    found: Tensor,
    goal: Goal,
    threat: Threat,
    reached: Tensor,
) -> Tensor:
    """Return an attack's images near the boundary, and on values k / 255 where those succeed too.

    Args:
        victim: the classifier.
        originals: the images before the attack, float32[n, c, h, w] in [0, 1].
        found: the attack's images, likewise.
        goal: of each image.
        threat: without eps, images move back to the boundary; with it they must stay within.
        reached: which of found reach their goal, bool[n]; the others stay as they are.
    """
    rows, changed = reached.nonzero().flatten(), found.clone()
    start, near, aim = originals[rows], found[rows], goal[rows]
    if threat.eps is None:
        near = to_boundary(victim, start, near, aim)
    rounded, good = to_eight_bits(victim, start, near, aim, threat)
    changed[rows] = torch.where(good[:, None, None, None], rounded, near)
    return changed


def to_boundary(victim: Victim, originals: Tensor, found: Tensor, goal: Goal) -> Tensor:
    """Return images moved towards their originals for as long as they reach their goal.

    The boundary is bisected on the line between the two.

    Args:
        victim: the classifier.
        originals: the images before the attack, float32[n, c, h, w] in [0, 1].
        found: images that reach their goal, likewise.
        goal: of each image.
    """
    change = found - originals
    low, high = originals.new_zeros(len(found)), originals.new_ones(len(found))
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        reached = goal.reached(victim.logits(originals + wide(middle, change) * change))
        low, high = torch.where(reached, low, middle), torch.where(reached, middle, high)
    return torch.where(wide(high, change) < 1, originals + wide(high, change) * change, found)


def to_eight_bits(
    victim: Victim, originals: Tensor, found: Tensor, goal: Goal, threat: Threat
) -> tuple[Tensor, Tensor]:
    """Return images on values k / 255 that reach their goal as near the originals as possible.

    found is rounded; then values move by single steps of 1/255, in the order of the gradient's gain
    per added distance: outwards while the goal is missed, and back towards the original while the
    margin allows it.

    Args:
        victim: the classifier.
        originals: the images before the attack, float32[n, c, h, w] in [0, 1].
        found: images near the boundary, likewise.
        goal: of each image.
        threat: the norm to keep small; with eps, the first success within it is enough.

    Returns:
        The images, float32[n, c, h, w], and whether any on the way reached the goal, bool[n].
    """
    norm = threat.norm
    current, kept = saved(found), saved(found)
    best = found.new_full((len(found),), float("inf"))
    caution = torch.ones_like(best)
    rows = torch.arange(len(found), device=found.device)
    for _ in range(_ROUNDS):
        pictures, aim, start = current[rows], goal[rows], originals[rows]
        logits, missed, gradient = victim.gradient(pictures, aim, margin)
        reached, size = aim.reached(logits), norm.size(pictures - start)
        good = reached & (size < best[rows])
        if threat.eps is not None:
            good &= size <= threat.eps + _ROUNDING
        best[rows[good]], kept[rows[good]] = size[good], pictures[good]
        moved = torch.where(
            wide(reached, pictures),
            _inwards(pictures, start, gradient, -missed / caution[rows], norm),
            _outwards(pictures, start, gradient, missed * caution[rows], norm),
        )
        caution[rows] *= torch.where(reached, 1, 2)
        current[rows] = moved
        # An image is done when it succeeds but is no nearer than the best, when nothing moves it,
        # or when it is within a given eps.
        going = ~reached | (good & (threat.eps is None))
        rows = rows[going & (moved != pictures).flatten(1).any(1)]
        if not len(rows):
            break
    return kept, best.isfinite()


def _outwards(
    pictures: Tensor, originals: Tensor, gradient: Tensor, missing: Tensor, norm: Norm
) -> Tensor:
    """Return images with the cheapest single steps, which should lower the margin by missing."""
    step = -gradient.sign()
    change = (pictures - originals) * _LEVELS
    levels = pictures * _LEVELS + step
    gain = torch.where((levels > -0.5) & (levels < _LEVELS + 0.5), gradient.abs() / _LEVELS, 0)
    if norm.name == "l2":
        cost = (change + step) ** 2 - change**2
    else:
        # Values that stay below the largest change cost nothing; exceeding it is the last resort.
        largest = wide(norm.size(change), change)
        cost = torch.where((change + step).abs() < largest + 0.01, 0, (change + step).abs()) + 1e-3
    order = torch.where(gain > 0, cost / gain, float("inf")).flatten(1).argsort(1)
    chosen = _until(gain.flatten(1), order, missing, least=True)
    return saved(pictures + step * chosen.view_as(pictures) / _LEVELS)


def _inwards(
    pictures: Tensor, originals: Tensor, gradient: Tensor, room: Tensor, norm: Norm
) -> Tensor:
    """Return images with the best single steps back, which should raise the margin by room."""
    change = (pictures - originals) * _LEVELS
    step = -change.sign()
    if norm.name != "l2":
        # Changing one value alone can't reduce the largest change.
        return pictures
    saving = torch.where(change.abs() > 0.5, change**2 - (change + step) ** 2, 0)
    lost = (gradient * step / _LEVELS).clamp(min=1e-9)
    order = torch.where(saving > 0, lost / saving, float("inf")).flatten(1).argsort(1)
    lost = torch.where(saving > 0, lost, float("inf"))
    chosen = _until(lost.flatten(1), order, room, least=False)
    return saved(pictures + step * chosen.view_as(pictures) / _LEVELS)


def _until(amounts: Tensor, order: Tensor, limit: Tensor, *, least: bool) -> Tensor:
    """Return which amounts [n, k], taken in order, add up to at least or at most limit [n]."""
    ordered = amounts.gather(1, order)
    total = ordered.cumsum(1)
    inside = (total - ordered if least else total) < limit[:, None]
    return torch.zeros_like(inside).scatter(1, order, inside & ordered.isfinite())
