"""Searches for the smallest change: decoupled direction and norm, and fast minimum-norm."""

from __future__ import annotations

import torch
from torch import Tensor

from unmask.fool.attacks.base import Found, attack, cosine
from unmask.fool.goal import Goal
from unmask.fool.norms import NORMS, Threat, wide
from unmask.fool.outcome import Adversarials
from unmask.fool.victim import Loss, Victim, cross_entropy, margin


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
