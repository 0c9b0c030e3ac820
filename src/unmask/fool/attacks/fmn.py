"""Fast minimum-norm: the smallest change in any norm within few gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from unmask.fool.attacks.found import Found, cosine
from unmask.fool.goal import Goal
from unmask.fool.norms import NORMS, Threat
from unmask.fool.outcome import Adversarials
from unmask.fool.victim import Victim, margin


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

    pixels: float32[n, c, h, w] in [0, 1]. Until the first success the ball is as large as the
    margin's slope says is needed, and grows by gamma at least; then its radius changes by gamma a
    step, which falls to 0.001.
    length: the L2 norm of the first step, which falls to a hundredth. generator is not drawn from.
    steps gradients a picture; with an eps, fewer where a change within it is found.
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
        # Clipping to [0, 1] can shorten the step for ever below the linear estimate.
        wider = torch.maximum(norm.size(change) + needed, radius * (1 + rate))
        grown = torch.where(nearest.isinf(), wider, radius * (1 + rate))
        radius = torch.where(reached, torch.minimum(radius * (1 - rate), nearest), grown)
        radius = torch.minimum(radius, farthest)
        change = change - cosine(length, length / 100, step, steps) * euclidean.direction(gradient)
        change = (start + norm.project(change, radius)).clamp(0, 1) - start
        if not going.all():
            rows, start, wish, change = rows[going], start[going], wish[going], change[going]
            radius, farthest = radius[going], farthest[going]
    return found.adversarials()
