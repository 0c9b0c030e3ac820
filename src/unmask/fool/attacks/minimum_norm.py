"""Searches for the smallest change: DDN, fast minimum-norm, and primal-dual descent."""

from __future__ import annotations

import torch
from torch import Tensor

from unmask.fool.attacks.base import Found, attack, cosine
from unmask.fool.goal import Goal
from unmask.fool.norms import NORMS, Threat, wide
from unmask.fool.outcome import Adversarials
from unmask.fool.victim import Loss, Victim, cross_entropy, margin

# Of the proximal step of the norm, in those at which it would undo the first step of the margin.
_FIRST_WEIGHT = 0.1


@attack("ddn", norms=("l2",), bounded=False, budget="steps")
def ddn(
    victim: Victim,
    pixels: Tensor,
    goal: Goal,
    threat: Threat,
    *,
    generator: torch.Generator,
    steps: int = 300,
    first_radius: float = 1.0,
    gamma: float = 0.05,
    loss: Loss = cross_entropy,
) -> Adversarials:
    """Descend on a sphere that shrinks where the goal is reached and grows elsewhere (DDN).

    The radius changes by the factor 1 - gamma or 1 + gamma at each step; the length of the step
    against the gradient falls from 1 to 0.01 (Rony et al., 2019).

    Args:
        victim: a model with gradients.
        pixels: float32[n, c, h, w] in [0, 1].
        goal: of each image.
        threat: the norm; with an eps, an image is done when its change is within it.
        generator: of directions where there is no gradient.
        steps: gradients an image.
        first_radius: in units of pixels.
        gamma: the relative change of the radius in a step, in (0, 1).
        loss: of the logits and the goal, to descend.

    Returns:
        The nearest images found, unchanged where none was, and their steps.
    """
    norm = threat.norm
    found = Found(pixels, threat)
    rows, start, wish = found.open(), pixels, goal
    change = torch.zeros_like(pixels)
    radius = pixels.new_full((len(pixels),), first_radius)
    farthest = norm.size(torch.maximum(pixels, 1 - pixels))
    for step in range(steps):
        at = start + change
        logits, _, gradient = victim.gradient(at, wish, loss)
        reached = wish.reached(logits)
        going = found.offer(rows, at, reached)
        direction = norm.direction(gradient)
        flat = norm.size(direction) == 0
        if flat.any():
            # Without a gradient any direction will do, while the radius still grows.
            anyhow = norm.direction(torch.randn(pixels.shape, generator=generator).to(pixels))
            direction[flat] = anyhow[rows[flat]]
        change = change - cosine(1.0, 0.01, step, steps) * direction
        radius = torch.minimum(radius * torch.where(reached, 1 - gamma, 1 + gamma), farthest)
        change = norm.direction(change) * wide(radius, change)
        change = (start + change).clamp(0, 1) - start
        if not going.all():
            rows, start, wish, change = rows[going], start[going], wish[going], change[going]
            radius, farthest = radius[going], farthest[going]
    return found.adversarials()


@attack("fmn", norms=("l2", "linf", "l1", "l0"), bounded=False, budget="steps")
def fmn(
    victim: Victim,
    pixels: Tensor,
    goal: Goal,
    threat: Threat,
    *,
    generator: torch.Generator,
    steps: int = 300,
    length: float = 1.0,
    gamma: float = 0.05,
) -> Adversarials:
    """Descend the margin within a ball that closes in on the nearest success (Pintor et al., 2021).

    Until the first success the ball is as large as the margin and its slope require, and grows by
    at least gamma; then its radius changes by gamma at each step, which falls to 0.001, and in L0
    by at least one value.

    Args:
        victim: a model with gradients.
        pixels: float32[n, c, h, w] in [0, 1].
        goal: of each image.
        threat: the norm; with an eps, an image is done when its change is within it.
        generator: not used.
        steps: gradients an image.
        length: the L2 norm of the first step, in units of pixels, which falls to a hundredth.
        gamma: the first relative change of the radius in a step, in (0, 1).

    Returns:
        The nearest images found, unchanged where none was, and their steps.
    """
    norm, euclidean = threat.norm, NORMS["l2"]
    found = Found(pixels, threat)
    rows, start, wish = found.open(), pixels, goal
    change = torch.zeros_like(pixels)
    radius = pixels.new_zeros(len(pixels))
    farthest = norm.size(torch.maximum(pixels, 1 - pixels))
    for step in range(steps):
        at = start + change
        logits, missed, gradient = victim.gradient(at, wish, margin)
        reached = wish.reached(logits)
        going = found.offer(rows, at, reached)
        rate = cosine(gamma, 0.001, step, steps)
        nearest = found.size[rows]
        slope = norm.dual(gradient)
        needed = torch.where(slope > 0, missed.abs() / slope, float("inf"))
        # Clipping to [0, 1] can keep the step below the linear estimate forever.
        larger = torch.maximum(radius * (1 + rate), radius + norm.unit)
        wider = torch.maximum(norm.size(change) + needed, larger)
        grown = torch.where(nearest.isinf(), wider, larger)
        shorter = torch.minimum(radius * (1 - rate), nearest - norm.unit)
        radius = torch.where(reached, shorter.clamp(min=0), grown)
        radius = torch.minimum(radius, farthest)
        change = change - cosine(length, length / 100, step, steps) * euclidean.direction(gradient)
        change = (start + norm.project(change, radius)).clamp(0, 1) - start
        if not going.all():
            rows, start, wish, change = rows[going], start[going], wish[going], change[going]
            radius, farthest = radius[going], farthest[going]
    return found.adversarials()


@attack("pdpgd", norms=("l2", "linf", "l1"), bounded=False, budget="steps")
def pdpgd(
    victim: Victim,
    pixels: Tensor,
    goal: Goal,
    threat: Threat,
    *,
    generator: torch.Generator,
    steps: int = 200,
    length: float = 3.0,
    gamma: float = 0.1,
) -> Adversarials:
    """Descend margin and norm together, their balance set by what is reached.

    After the primal-dual proximal gradient descent of Matyasko and Chau (2021): a step along the
    margin's gradient, of L2 norm 1 times a length, is followed by the proximal step of the norm.
    The weight of that grows by gamma where the goal is reached, and shrinks where it is missed;
    gamma falls to a twentieth.

    Args:
        victim: a model with gradients.
        pixels: float32[n, c, h, w] in [0, 1].
        goal: what is to be predicted.
        threat: the norm; with an eps an image is done within it.
        generator: is not drawn from.
        steps: gradients an image; with an eps, fewer where a change within it is found.
        length: of the first step, in sizes of the smallest change so far, or of the one that the
            first slope says is needed; it falls to a hundredth.
        gamma: of the first step.

    Returns:
        The nearest images found.
    """
    norm, euclidean = threat.norm, NORMS["l2"]
    found = Found(pixels, threat)
    rows, start, wish = found.open(), pixels, goal
    change = torch.zeros_like(pixels)
    # The L2 norm of the longest change of norm 1.
    longest = pixels[0].numel() ** 0.5 if len(pixels) and norm.name == "linf" else 1.0
    farthest = norm.size(torch.maximum(pixels, 1 - pixels))
    weight = guess = farthest
    for step in range(steps):
        at = start + change
        logits, missed, gradient = victim.gradient(at, wish, margin)
        reached = wish.reached(logits)
        going = found.offer(rows, at, reached)
        direction = euclidean.direction(gradient)
        if step == 0:
            weight = _FIRST_WEIGHT * norm.dual(direction)
            needed = missed / norm.dual(gradient)
            guess = torch.where(needed > 0, torch.minimum(needed, farthest), farthest)
        rate = cosine(gamma, gamma / 20, step, steps)
        weight = torch.where(reached, weight * (1 + rate), weight / (1 + rate))
        nearest = found.size[rows]
        size = torch.where(nearest.isfinite(), nearest, guess)
        moved = length * longest * size * 0.01 ** (step / steps)
        change = norm.shrunk(change - wide(moved, change) * direction, moved * weight)
        change = (start + change).clamp(0, 1) - start
        if not going.all():
            rows, start, wish, change = rows[going], start[going], wish[going], change[going]
            weight, guess, farthest = weight[going], guess[going], farthest[going]
    return found.adversarials()
