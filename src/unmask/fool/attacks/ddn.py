"""Decoupled direction and norm: the smallest L2 change within few gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from unmask.fool.attacks.found import Found, cosine
from unmask.fool.goal import Goal
from unmask.fool.norms import Threat, wide
from unmask.fool.outcome import Adversarials
from unmask.fool.victim import Loss, Victim, cross_entropy


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
    """Turn on a sphere that shrinks where the goal is reached and grows where it isn't.

    pixels: float32[n, c, h, w] in [0, 1]. The radius, first_radius pixels at the start, changes by
    the factor 1 - gamma or 1 + gamma a step; the step along the loss falls from 1 to 0.01 (Rony et
    al., 2019). steps gradients a picture; with an eps, fewer where a change within it is found.
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
            # Without a gradient any direction is as good; the radius then still grows.
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
