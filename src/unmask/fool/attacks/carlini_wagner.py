"""Carlini and Wagner's L2 attack: the smallest change, by a search over the weight of the goal."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from unmask.fool.attacks.base import Found, attack
from unmask.fool.goal import Goal
from unmask.fool.norms import Threat, wide
from unmask.fool.outcome import Adversarials
from unmask.fool.victim import Victim

_BETAS, _TINY = (0.9, 0.999), 1e-8
# A pixel of exactly 0 or 1 would have an infinite w.
_INSIDE = 0.999999
_PROGRESS, _CHECKS = 0.9999, 10


@attack("cw", norms=("l2",), bounded=False)
def carlini_wagner(
    victim: Victim,
    pixels: Tensor,
    goal: Goal,
    threat: Threat,
    *,
    generator: torch.Generator,
    searches: int = 9,
    steps: int = 1000,
    rate: float = 0.01,
    first_weight: float = 1e-3,
    stop_early: bool = True,
) -> Adversarials:
    """Minimise the squared change plus c times the margin above 0 (Carlini and Wagner, 2017).

    Each pixel is (1 + tanh w) / 2, and Adam descends in w. The weight c grows tenfold until the
    goal is reached; then it is bisected.

    Args:
        victim: a model with gradients.
        pixels: float32[n, c, h, w] in [0, 1].
        goal: of each image.
        threat: L2; with an eps, an image is done when its change is within it.
        generator: not used.
        searches: descents of each image, each with another c; at most searches * steps gradients.
        steps: gradients of each descent.
        rate: the learning rate of Adam.
        first_weight: the first c.
        stop_early: end an image's descent when a tenth of the steps improved it by less than 0.01
            %.

    Returns:
        The nearest images found, unchanged where none was, and their steps.
    """
    found = Found(pixels, threat)
    weight = pixels.new_full((len(pixels),), first_weight)
    low, high = torch.zeros_like(weight), torch.full_like(weight, math.inf)
    for _ in range(searches):
        rows = found.open()
        good = torch.zeros_like(weight, dtype=torch.bool)
        good[rows] = _descend(
            victim, found, rows, goal[rows], weight[rows], steps, rate, stop_early
        )
        high = torch.where(good, weight, high)
        low = torch.where(good, low, weight)
        weight = torch.where(high.isinf(), weight * 10, (low + high) / 2)
    return found.adversarials()


def _descend(
    victim: Victim,
    found: Found,
    every: Tensor,
    goal: Goal,
    weight: Tensor,
    steps: int,
    rate: float,
    stop_early: bool,
) -> Tensor:
    """Descend with the given weights, float32[k]; return where the goal was reached, bool[k]."""
    good = torch.zeros(len(every), dtype=torch.bool, device=every.device)
    rows = torch.arange(len(every), device=every.device)
    w = ((found.originals[every] * 2 - 1) * _INSIDE).atanh()
    start = _squash(w)[0]
    first, second = torch.zeros_like(w), torch.zeros_like(w)
    before = torch.full_like(weight, math.inf)
    for step in range(steps):
        if not len(rows):
            break
        at, slope = _squash(w)
        logits, missed, gradient = victim.gradient(at, goal, _missed)
        reached = goal.reached(logits)
        good[rows] |= reached
        going = found.offer(every[rows], at, reached)
        change = at - start
        by_pixel = change.mul_(2).addcmul_(gradient, wide(weight, gradient))
        by_w = by_pixel.mul_(slope)
        first.lerp_(by_w, 1 - _BETAS[0])
        second.mul_(_BETAS[1]).addcmul_(by_w, by_w, value=1 - _BETAS[1])
        spread = (second / (1 - _BETAS[1] ** (step + 1))).sqrt_().add_(_TINY)
        w.addcdiv_(first, spread, value=-rate / (1 - _BETAS[0] ** (step + 1)))
        if stop_early and step % math.ceil(steps / _CHECKS) == 0:
            loss = (at - start).square().flatten(1).sum(1) + weight * missed
            going &= loss <= _PROGRESS * before
            before = loss
        if not going.all():
            rows, w, start, first, second = (
                part[going] for part in (rows, w, start, first, second)
            )
            goal, weight, before = goal[going], weight[going], before[going]
    return good


def _missed(logits: Tensor, goal: Goal) -> Tensor:
    return goal.margin(logits).clamp(min=0)


def _squash(w: Tensor) -> tuple[Tensor, Tensor]:
    """Return (1 + tanh w) / 2 and its derivative."""
    bent = w.tanh()
    return (bent + 1) / 2, (1 - bent * bent) / 2
