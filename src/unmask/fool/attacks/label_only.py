"""Attacks that use only the predicted class: RayS for Linf, HopSkipJump for L2."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from unmask.fool.attacks.base import Found, attack
from unmask.fool.goal import Goal
from unmask.fool.norms import NORMS, Threat, wide
from unmask.fool.outcome import Adversarials
from unmask.fool.victim import Victim

# The precision of a distance along a ray, as a fraction of the largest possible change.
_EXACT = 1e-3
_HALVINGS = 12
_STARTS = 100
# Samples drawn at once, the same for any batch.
_TOGETHER = 16


@attack("rays", norms=("linf",), needs_gradient=False, bounded=False, budget="queries")
def rays(
    victim: Victim,
    pixels: Tensor,
    goal: Goal,
    threat: Threat,
    *,
    generator: torch.Generator,
    queries: int = 5000,
) -> Adversarials:
    """Search for the smallest Linf change along directions of signs, block by block (RayS).

    The signs of smaller and smaller blocks of the image are flipped. A flip is kept where the class
    changes at a shorter distance along the new direction, which one query tells; then the distance
    is bisected (Chen and Gu, 2020). Every image has its own direction, block and budget.

    Args:
        victim: a model that needs to return no more than the class.
        pixels: float32[n, c, h, w] in [0, 1].
        goal: untargeted goals; a target is tried in the same way and rarely reached.
        threat: Linf; with an eps, an image is done when its change is within it.
        generator: not used.
        queries: forward passes an image.

    Returns:
        The nearest images found, unchanged where none was, and their queries.
    """
    found = Found(pixels, threat)
    n, size = len(pixels), pixels[0].numel() if len(pixels) else 0
    signs = torch.ones(n, size, device=pixels.device)
    radius = pixels.new_full((n,), math.inf)
    block = torch.zeros(n, dtype=torch.int64, device=pixels.device)
    level = torch.zeros_like(block)
    # The image itself may have reached its goal.
    _ask(victim, found, goal, found.open(), pixels)
    flipped = signs
    first = True
    while True:
        rows = found.open()
        rows = rows[(found.steps[rows] < queries) & (size > 0)]
        if not len(rows):
            return found.adversarials()
        if not first:
            flipped = signs[rows].clone()
            flipped *= torch.where(_block(size, level[rows], block[rows]), -1.0, 1.0)
        else:
            flipped = signs[rows]
        reach = torch.where(radius[rows].isinf(), 1.0, radius[rows] * (1 - _EXACT))
        better = _ask(victim, found, goal, rows, _along(pixels[rows], flipped, reach))
        kept = rows[better]
        signs[kept] = flipped[better]
        radius[kept] = _nearest(victim, found, goal, kept, signs[kept], reach[better], queries)
        if not first:
            block[rows] += 1
            done = block[rows] >= 2 ** level[rows]
            level[rows[done]] += 1
            block[rows[done]] = 0
            # Blocks of single values come last; then the search starts again.
            level[rows] %= max(math.ceil(math.log2(max(size, 2))) + 1, 1)
        first = False


@attack("hopskipjump", norms=("l2",), needs_gradient=False, bounded=False, budget="queries")
def hopskipjump(
    victim: Victim,
    pixels: Tensor,
    goal: Goal,
    threat: Threat,
    *,
    generator: torch.Generator,
    queries: int = 5000,
    first_samples: int = 60,
) -> Adversarials:
    """Move along the boundary by gradients estimated from classes alone (HopSkipJump).

    From noise of another class the boundary is bisected towards the image, its normal is estimated
    from samples around it, and a step of geometrically decreasing length is taken along the normal
    (Chen, Jordan and Wainwright, 2020). Half of the samples change slowly over the image, as
    normals do (Li et al., 2020, "QEBA"), and rounds are shorter than theirs: first_samples times
    the fourth root of the round, and a bisection no finer than the samples' spread asks for.

    Args:
        victim: a model that needs to return no more than the class.
        pixels: float32[n, c, h, w] in [0, 1].
        goal: untargeted goals; a target is reached where noise happens to be of its class.
        threat: L2; with an eps, an image is done when its change is within it.
        generator: of the starts and samples.
        queries: forward passes an image.
        first_samples: samples of the first estimate.

    Returns:
        The nearest images found, unchanged where none was, and their queries.
    """
    found = Found(pixels, threat)
    _ask(victim, found, goal, found.open(), pixels)
    at = pixels.clone()
    started = torch.zeros(len(pixels), dtype=torch.bool, device=pixels.device)
    for _ in range(_STARTS):
        rows = found.open()
        rows = rows[~started[rows] & (found.steps[rows] < queries)]
        noise = torch.rand(pixels.shape, generator=generator).to(pixels)
        if not len(rows):
            continue
        good = _ask(victim, found, goal, rows, noise[rows])
        at[rows[good]] = noise[rows[good]]
        started[rows[good]] = True
    dimensions = pixels[0].numel() if len(pixels) else 1
    # The error of the bisection over the distance: a small part of the samples' spread below.
    exact = 1 / (64 * math.sqrt(dimensions))
    rows = found.open()
    rows = rows[started[rows]]
    at[rows] = _bisected(victim, found, goal, rows, at[rows], exact)
    step = 0
    while True:
        rows = found.open()
        rows = rows[started[rows] & (found.steps[rows] < queries)]
        if not len(rows):
            return found.adversarials()
        step += 1
        here, start = at[rows], pixels[rows]
        away = NORMS["l2"].size(here - start)
        spread = away / math.sqrt(dimensions) if step > 1 else torch.full_like(away, 0.1)
        count = int(min(first_samples * step**0.25, 10_000))
        normal = _normal(victim, found, goal, rows, here, spread, count, generator)
        length = away / math.sqrt(step)
        todo = torch.arange(len(rows), device=rows.device)
        for _ in range(_HALVINGS):
            tries = (here[todo] + wide(length[todo], here) * normal[todo]).clamp(0, 1)
            good = _ask(victim, found, goal, rows[todo], tries)
            here[todo[good]] = tries[good]
            todo = todo[~good]
            length[todo] /= 2
            if not len(todo):
                break
        at[rows] = _bisected(victim, found, goal, rows, here, exact)


def _ask(victim: Victim, found: Found, goal: Goal, rows: Tensor, tries: Tensor) -> Tensor:
    """Return which tries reach their goals, bool[k], offered to found at the cost of one each."""
    if not len(rows):
        return torch.zeros(0, dtype=torch.bool, device=rows.device)
    reached = goal[rows].reached(victim.logits(tries))
    found.offer(rows, tries, reached)
    return reached


def _along(start: Tensor, signs: Tensor, radius: Tensor) -> Tensor:
    return (start + wide(radius, start) * signs.view_as(start)).clamp(0, 1)


def _nearest(
    victim: Victim,
    found: Found,
    goal: Goal,
    rows: Tensor,
    signs: Tensor,
    high: Tensor,
    queries: int,
) -> Tensor:
    """Return the distance along each direction at which the class changes, bisected below high."""
    start = found.originals[rows]
    low, high = torch.zeros_like(high), high.clone()
    going = torch.arange(len(rows), device=rows.device)
    while True:
        going = going[(high[going] - low[going] > _EXACT) & (found.steps[rows[going]] < queries)]
        if not len(going):
            return high
        middle = (low[going] + high[going]) / 2
        tries = _along(start[going], signs[going], middle)
        reached = _ask(victim, found, goal, rows[going], tries)
        high[going] = torch.where(reached, middle, high[going])
        low[going] = torch.where(reached, low[going], middle)


def _block(size: int, level: Tensor, block: Tensor) -> Tensor:
    """Return which values lie in that block of 2**level equal ones, bool[k, size]."""
    length = torch.ceil(size / 2.0**level).long()[:, None]
    place = torch.arange(size, device=level.device)[None]
    return torch.div(place, length, rounding_mode="floor") == block[:, None]


def _bisected(
    victim: Victim, found: Found, goal: Goal, rows: Tensor, there: Tensor, exact: float
) -> Tensor:
    """Return each image moved towards its original as far as it still reaches its goal."""
    start = found.originals[rows]
    low, high = there.new_zeros(len(rows)), there.new_ones(len(rows))
    halvings = min(max(math.ceil(-math.log2(exact)), 1), 16)
    for _ in range(halvings):
        middle = (low + high) / 2
        reached = _ask(victim, found, goal, rows, start + wide(middle, start) * (there - start))
        high, low = torch.where(reached, middle, high), torch.where(reached, low, middle)
    return torch.where(wide(high, there) < 1, start + wide(high, start) * (there - start), there)


def _noise(count: int, shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Return samples of normal noise, every second one of half the resolution, enlarged."""
    noise = torch.randn((count, *shape), generator=generator)
    sides = [max(side // 2, 1) for side in shape[1:]]
    coarse = torch.randn((len(noise[1::2]), shape[0], *sides), generator=generator)
    noise[1::2] = nn.functional.interpolate(coarse, size=shape[1:], mode="bilinear")
    return noise


def _normal(
    victim: Victim,
    found: Found,
    goal: Goal,
    rows: Tensor,
    here: Tensor,
    spread: Tensor,
    count: int,
    generator: torch.Generator,
) -> Tensor:
    """Return the estimated unit normal of the boundary at each image, towards the goal's side."""
    total = torch.zeros_like(here)
    drawn = torch.zeros_like(here)
    hits = here.new_zeros(len(rows))
    for first in range(0, count, _TOGETHER):
        k = min(_TOGETHER, count - first)
        # One draw for all images, so that none depends on which others are left.
        noise = NORMS["l2"].direction(_noise(k, here.shape[1:], generator).to(here))
        tries = (here[:, None] + spread[:, None, None, None, None] * noise[None]).clamp(0, 1)
        # Only what clipping left of the sample was tried.
        moved = (tries - here[:, None]) / spread[:, None, None, None, None]
        flat = tries.flatten(0, 1)
        reached = goal[rows.repeat_interleave(k)].reached(victim.logits(flat)).view(len(rows), k)
        sign = reached.to(here) * 2 - 1
        total += (sign[..., None, None, None] * moved).sum(1)
        drawn += moved.sum(1)
        hits += sign.sum(1)
    found.steps[rows] += count
    mean = hits / count
    normal = total / count - wide(mean, here) * drawn / count
    # Where all samples lie on one side, their mean points there, or away from it.
    normal = torch.where(wide(mean.abs() >= 1, here), wide(mean, here) * drawn, normal)
    return NORMS["l2"].direction(normal)
