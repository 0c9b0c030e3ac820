"""The gradient step and projected gradient descent: the two simplest attacks within an eps."""

from __future__ import annotations

import torch
from torch import Tensor

from unmask.fool.attacks.base import Found, attack
from unmask.fool.goal import Goal
from unmask.fool.norms import Threat
from unmask.fool.outcome import Adversarials
from unmask.fool.victim import Loss, Victim, cross_entropy


@attack("fgsm")
def fgsm(
    victim: Victim,
    pixels: Tensor,
    goal: Goal,
    threat: Threat,
    *,
    generator: torch.Generator,
    loss: Loss = cross_entropy,
) -> Adversarials:
    """Move each image once, by eps, against the gradient (Goodfellow et al., 2015).

    The result is returned whether or not it reaches the goal; an image that reaches it already
    stays.

    Args:
        victim: a model with gradients.
        pixels: float32[n, c, h, w] in [0, 1].
        goal: of each image.
        threat: the norm and eps.
        generator: not used.
        loss: of the logits and the goal, to descend.

    Returns:
        The images; one gradient each.

    Raises:
        UserError: without eps.
    """
    eps = threat.bound
    logits, _, gradient = victim.gradient(pixels, goal, loss)
    found = Found(pixels, threat)
    found.offer(found.open(), pixels, goal.reached(logits))
    rows = found.open()
    step = eps * threat.norm.direction(gradient[rows])
    found.pixels[rows] = (pixels[rows] - step).clamp(0, 1)
    return found.adversarials()


@attack("pgd", budget="steps")
def pgd(
    victim: Victim,
    pixels: Tensor,
    goal: Goal,
    threat: Threat,
    *,
    generator: torch.Generator,
    steps: int = 40,
    step: float | None = None,
    restarts: int = 1,
    random_start: bool = True,
    loss: Loss = cross_entropy,
) -> Adversarials:
    """Descend the loss, projected into the ball of eps after every step (Madry et al., 2018).

    An image that reaches its goal is done at once.

    Args:
        victim: a model with gradients.
        pixels: float32[n, c, h, w] in [0, 1].
        goal: of each image.
        threat: the norm and eps.
        generator: of the starts.
        steps: gradients of each descent.
        step: the norm of one step, in units of pixels; None takes 2.5 eps / steps.
        restarts: descents of each image; at most restarts * steps gradients and restarts forward
            passes.
        random_start: start uniformly in the ball rather than at the image.
        loss: of the logits and the goal, to descend.

    Returns:
        The images, unchanged where the attack failed, and their steps.

    Raises:
        UserError: without eps.
    """
    eps, norm = threat.bound, threat.norm
    length = 2.5 * eps / steps if step is None else step
    found = Found(pixels, threat)
    for _ in range(restarts):
        # Drawn for all, so that an image's noise doesn't depend on which others are left.
        noise = norm.noise(pixels, eps, generator)
        rows = found.open()
        start, wish = pixels[rows], goal[rows]
        at = (start + noise[rows]).clamp(0, 1) if random_start else start
        for _ in range(steps):
            logits, _, gradient = victim.gradient(at, wish, loss)
            going = found.offer(rows, at, wish.reached(logits))
            if not going.all():
                rows, start, at, gradient = rows[going], start[going], at[going], gradient[going]
                wish = wish[going]
            moved = at - length * norm.direction(gradient)
            at = (start + norm.project(moved - start, eps)).clamp(0, 1)
        found.offer(rows, at, wish.reached(victim.logits(at)))
    return found.adversarials()
