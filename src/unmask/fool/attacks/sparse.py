"""The search for the fewest changed values: a smooth count of them, and a greedy reduction."""

from __future__ import annotations

import torch
from torch import Tensor

from unmask.fool.attacks.base import Found, attack, cosine
from unmask.fool.goal import Goal
from unmask.fool.norms import Threat, wide
from unmask.fool.outcome import Adversarials
from unmask.fool.victim import Victim, margin

# sigma of the smooth count d^2 / (d^2 + sigma), and the threshold's change in a step of length 1.
_SIGMA, _THRESHOLD_STEP = 1e-3, 0.01
_HALVINGS = 12


@attack("sigma-zero", norms=("l0",), bounded=False, budget="steps")
def sigma_zero(
    victim: Victim,
    pixels: Tensor,
    goal: Goal,
    threat: Threat,
    *,
    generator: torch.Generator,
    steps: int = 300,
    threshold: float = 0.3,
    greedy: bool = True,
) -> Adversarials:
    """Search for the fewest changed values by a smooth count (sigma-zero, Cina et al., 2025).

    Each step descends the margin, where the goal is missed, and the smooth count; changes below a
    threshold, which rises while the goal is reached and falls otherwise, become 0. Before that, the
    values with the largest gain by the first gradient are changed by their whole range; at the end,
    those with the least gain are restored for as long as the goal is reached.

    Args:
        victim: a model with gradients.
        pixels: float32[n, c, h, w] in [0, 1].
        goal: of each image.
        threat: L0; with an eps, an image is done when at most that many values are changed.
        generator: not used.
        steps: gradients; restoring values takes three more, and some tens of forward passes.
        threshold: the first.
        greedy: whether to begin with the values of the largest gain.

    Returns:
        The images with the fewest changed values, unchanged where none was found, and their steps.
    """
    found = Found(pixels, threat)
    rows = found.open()
    logits, _, gradient = victim.gradient(pixels, goal, margin)
    found.offer(rows, pixels, goal.reached(logits))
    rows = found.open()
    rows = rows[found.size[rows] > 0]
    if greedy:
        whole = torch.where(gradient > 0, -pixels, torch.where(gradient < 0, 1 - pixels, 0))
        _take_back(victim, found, goal, rows, whole[rows], gradient[rows])
    change = torch.zeros_like(pixels)
    limit = pixels.new_full((len(pixels),), threshold)
    size = max(pixels[0].numel(), 1) if len(pixels) else 1
    for step in range(steps):
        rows = found.open()
        rows = rows[found.size[rows] > 0]
        if not len(rows):
            break
        start, here = pixels[rows], change[rows]
        logits, _, gradient = victim.gradient(start + here, goal[rows], margin)
        reached = goal[rows].reached(logits)
        found.offer(rows, start + here, reached)
        gradient = torch.where(wide(reached, here), 0, gradient)
        gradient = gradient + 2 * _SIGMA * here / (here.square() + _SIGMA).square() / size
        largest = gradient.flatten(1).abs().amax(1).clamp(min=1e-30)
        length = cosine(1.0, 0.1, step, steps)
        here = (start + here - length * gradient / wide(largest, here)).clamp(0, 1) - start
        moved = _THRESHOLD_STEP * length
        limit[rows] = (limit[rows] + torch.where(reached, moved, -moved)).clamp(min=0)
        change[rows] = torch.where(here.abs() < wide(limit[rows], here), 0, here)
    for _ in range(2):
        rows = found.open()
        rows = rows[(found.size[rows] > 1) & found.size[rows].isfinite()]
        if len(rows):
            best = found.pixels[rows]
            _, _, gradient = victim.gradient(best, goal[rows], margin)
            found.steps[rows] += 1
            _take_back(victim, found, goal, rows, best - pixels[rows], gradient)
    return found.adversarials()


def _take_back(
    victim: Victim, found: Found, goal: Goal, rows: Tensor, change: Tensor, gradient: Tensor
) -> None:
    """Offer the changes of the rows with as many values restored as the goal allows.

    Values whose change gains least by the gradient are restored first; their number is bisected.
    """
    gain = torch.where(change != 0, -(gradient * change), -torch.inf).flatten(1)
    # 0 for the value that gains most.
    rank = gain.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    low = torch.zeros(len(rows), dtype=torch.int64, device=rows.device)
    high = (change != 0).flatten(1).sum(1)
    start = found.originals[rows]

    def tried(count: Tensor) -> Tensor:
        kept = torch.where((rank < count[:, None]).view_as(change), change, 0)
        reached = goal[rows].reached(victim.logits(start + kept))
        found.offer(rows, start + kept, reached)
        return reached

    if not len(rows):
        return
    reached = tried(high)
    for _ in range(_HALVINGS):
        middle = (low + high) // 2
        good = tried(middle) & reached
        low, high = torch.where(good, low, middle), torch.where(good, middle, high)
