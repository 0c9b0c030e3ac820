"""The search for the smallest change: the weight of the distance adapts as a pair trains."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from unmask.coursework.generator.stacked import Generators
from unmask.fool.goal import Goal
from unmask.fool.norms import Threat, wide
from unmask.fool.outcome import Adversarials
from unmask.fool.victim import Victim

# The first step as a multiple of the radius, and the last as a fraction of the first: in L2 the
# long first steps find better basins, in Linf, where a step moves every pixel, they only overshoot.
_FIRST_STEP = {"l2": 2.0, "linf": 0.5}
_LAST_STEP = 0.05
# The longest step, as a multiple of the distance to the boundary by the first gradient.
_FAR = 2.0
# A given eps must leave room for the rounding to 8 bits.
_INSIDE = 0.99
# A misclassified image may be predicted as its target class without any change; a generator
# reproduces it to the last bit or two, far below a step of 1/255.
_NOTHING = 1e-3
# How sharply the largest other class stands out, over the range of the logits.
_SHARPNESS = 20.0
# The fraction by which the radius shrinks after a success and grows after a failure, first and
# last.
_PACE, _LAST_PACE = 0.1, 0.01


def soft_margin(logits: Tensor, goal: Goal) -> Tensor:
    """Return a smooth Goal.margin, which grows with the logits as that does.

    The largest other logit is softened over a twentieth of the range of the image's logits: the
    descent then turns to the next class before it overtakes, and, unlike with cross-entropy, small
    logits (a flat softmax) don't make it push every class down alike.

    Args:
        logits: float[n, classes].
        goal: the label and, where targeted, the target class of each image.

    Returns:
        float[n], below 0 roughly where the goal is reached.
    """
    sharpness = _SHARPNESS / (logits.amax(1) - logits.amin(1)).clamp(min=1e-12).detach()
    wanted = goal.labels if goal.targets is None else goal.targets
    own = logits.gather(1, wanted[:, None]).squeeze(1)
    others = logits.scatter(1, wanted[:, None], float("-inf")) * sharpness[:, None]
    largest = others.logsumexp(1) / sharpness
    return own - largest if goal.targets is None else largest - own


def smallest_change(
    victim: Victim,
    pixels: Tensor,
    goal: Goal,
    threat: Threat,
    generators: Generators,
    *,
    steps: int,
) -> tuple[Adversarials, Tensor]:
    """Return the nearest images found that reach their goal, and whether they do.

    With an eps the first image within it counts and the pair is done. Otherwise each step trains a
    generator on its class and, weighted, on its distance: the weight is the one at which the step
    would end on the pair's radius, which shrinks while the target class is predicted and grows
    while it is not (the radius after Rony et al., 2019, DDN; its start, the distance to the
    boundary of the linearised classifier, after Pintor et al., 2021, FMN).

    Args:
        victim: the classifier.
        pixels: float[n, c, h, w] in [0, 1].
        goal: the label and the target class of each pair.
        threat: the norm, and the largest change or None.
        generators: n of them, trained in place.
        steps: the most gradient evaluations for each pair.

    Returns:
        The images with the steps that each took, and bool[n], whether the goal was reached.
    """
    norm, count = threat.norm, len(pixels)
    generators.start_at(pixels.flatten(1))
    found, taken = pixels.clone(), torch.zeros(count, dtype=torch.int64, device=pixels.device)
    best = pixels.new_full((count,), float("inf"))
    rows = torch.arange(count, device=pixels.device)
    radius = unit = pixels.new_empty(0)
    for step in range(steps):
        values = generators()
        aim, originals = goal[rows], pixels[rows]
        pictures = values.clamp(0, 1).view_as(originals)
        logits, missed, gradient = victim.gradient(pictures, aim, soft_margin)
        taken[rows] += 1
        change = pictures - originals
        size, reached = norm.size(change), aim.reached(logits)
        nearer = reached & (size < best[rows])
        best[rows[nearer]] = size[nearer]
        # Until the goal is reached, the last image is kept.
        shown = nearer | best[rows].isinf()
        found[rows[shown]] = pictures[shown]
        part = step / max(steps - 1, 1)
        if step == 0:
            unit = _to_boundary(missed, norm.dual(gradient))
            radius = unit if threat.eps is None else torch.full_like(unit, threat.eps)
        else:
            pace = _PACE * (_LAST_PACE / _PACE) ** part
            shrunk = torch.minimum(radius, size) * (1 - pace)
            radius = torch.where(reached, shrunk, radius * (1 + pace))
        going = ~reached | (size > max(_INSIDE * (threat.eps or 0), _NOTHING))
        if step == steps - 1 or not going.any():
            break
        # A large eps allows a large change but is no reason for large steps.
        stride = _stride(norm.name, part) * torch.minimum(radius, _FAR * unit)
        wanted = change - wide(stride, change) * norm.direction(gradient)
        target = (originals + norm.project(wanted, radius)).clamp(0, 1)
        error = values - target.flatten(1)
        if not going.all():
            rows, unit, radius, error = rows[going], unit[going], radius[going], error[going]
            generators.keep(going)
        generators.descend(error)
    return Adversarials(found, taken), best.isfinite()


def _to_boundary(missed: Tensor, slope: Tensor) -> Tensor:
    """Return the distance to the boundary of the linearised classifier, 1 where it is flat."""
    distance = missed / slope
    usable = distance.isfinite() & (distance > 0)
    return torch.where(usable, distance, torch.ones_like(distance))


def _stride(norm: str, part: float) -> float:
    """Return the step as a multiple of the radius when that fraction of all steps is done."""
    falling = (1 + math.cos(math.pi * part)) / 2
    return _FIRST_STEP[norm] * (_LAST_STEP + (1 - _LAST_STEP) * falling)
