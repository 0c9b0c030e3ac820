"""The fast gradient method: one step of the largest change allowed."""

from __future__ import annotations

import torch
from torch import Tensor

from unmask.fool.attacks.found import Found
from unmask.fool.goal import Goal
from unmask.fool.norms import Threat
from unmask.fool.outcome import Adversarials
from unmask.fool.victim import Loss, Victim, cross_entropy


def fgsm(
    victim: Victim,
    pixels: Tensor,
    goal: Goal,
    threat: Threat,
    *,
    generator: torch.Generator,
    loss: Loss = cross_entropy,
) -> Adversarials:
    """Go once from each picture as far as allowed against the gradient (Goodfellow et al., 2015).

    pixels: float32[n, c, h, w] in [0, 1]. The step is returned whether or not it reaches the goal;
    a picture that has reached it already stays. generator is not drawn from. One gradient a
    picture. Raises UserError without eps.
    """
    eps = threat.bound
    logits, _, gradient = victim.gradient(pixels, goal, loss)
    found = Found(pixels, threat)
    found.offer(found.open(), pixels, goal.reached(logits))
    rows = found.open()
    step = eps * threat.norm.direction(gradient[rows])
    found.pixels[rows] = (pixels[rows] - step).clamp(0, 1)
    return found.adversarials()
