"""Branch and bound over the signs of unstable units, until a difference of logits is proved."""

from __future__ import annotations

import heapq
import time
from dataclasses import dataclass, field

import torch
from torch import Tensor

from unmask.fool.certify.bounds import Relaxed, Splits, at_bends
from unmask.fool.certify.operations import Elementwise, Interval
from unmask.fool.certify.slopes import optimised


@dataclass(order=True)
class _Domain:
    """A part of the region, where some units have assumed signs."""

    bound: float
    number: int
    signs: dict[int, Tensor] = field(compare=False)


@dataclass(frozen=True)
class Branching:
    """The result of branch and bound on one linear function of the logits.

    Args:
        bound: a lower bound over the region, from all domains.
        domains: how many were bounded.
        finished: whether the bound is above the goal, or no unit was left to split.
    """

    bound: float
    domains: int
    finished: bool


def branch(
    relaxed: Relaxed,
    coefficients: Tensor,
    *,
    until: float,
    goal: float = 0.0,
    steps: int = 12,
    together: int = 32,
    most: int = 100_000,
) -> Branching:
    """Bound a linear function of one image's logits by splitting units with a kink in two.

    The domain with the lowest bound is split first, at the unit whose relaxation costs most: the
    size of its coefficient times the height of its triangle. The assumed signs have multipliers
    (beta-CROWN, Wang et al., 2021).

    Args:
        relaxed: boxes of one image.
        coefficients: float[1, 1, classes].
        until: time.perf_counter() to stop at.
        goal: the bound that is enough.
        steps: of the slopes' optimisation for each domain.
        together: domains bounded at a time.
        most: domains at most.
    """
    places = _splittable(relaxed)
    bound, _ = optimised(relaxed, coefficients, steps=steps, goal=goal, until=until)
    start = float(bound[0, 0])
    if start > goal or not places:
        return Branching(start, 1, finished=start > goal)
    # Filters stored with channels last give such boxes, of which there is no flat view.
    flat = torch.contiguous_format
    zero = {p: torch.zeros_like(relaxed.inputs[p].lower, memory_format=flat) for p in places}
    domains = [_Domain(start, 0, zero)]
    count, stuck = 1, float("inf")
    while domains and time.perf_counter() < until and count < most:
        taken = [heapq.heappop(domains) for _ in range(min(together // 2, len(domains)))]
        splits = {p: torch.cat([d.signs[p] for d in taken]) for p in places}
        where = _where(_taken(relaxed, splits), coefficients, splits)
        parts: list[dict[int, Tensor]] = []
        parents: list[float] = []
        for domain, (place, unit, score) in zip(taken, where, strict=True):
            if score <= 0:
                # Nothing is left to split: only the multipliers' search keeps the bound loose.
                stuck = min(stuck, domain.bound)
                continue
            for sign in (1.0, -1.0):
                signs = dict(domain.signs)
                signs[place] = signs[place].clone()
                signs[place].view(-1)[unit] = sign
                parts.append(signs)
                parents.append(domain.bound)
        if not parts:
            continue
        splits = {p: torch.cat([s[p] for s in parts]) for p in places}
        children = _taken(relaxed, splits)
        wide = coefficients.expand(len(parts), 1, coefficients.shape[2])
        found, _ = optimised(children, wide, steps=steps, splits=splits, goal=goal, until=until)
        for signs, value, before in zip(parts, found[:, 0].tolist(), parents, strict=True):
            count += 1
            value = max(value, before)
            if value <= goal:
                heapq.heappush(domains, _Domain(value, count, signs))
    lowest = min([stuck, *(d.bound for d in domains)])
    if lowest == float("inf"):
        # Every domain's bound is above the goal, and so is the lowest.
        return Branching(goal + 1e-12, count, finished=True)
    return Branching(lowest, count, finished=not domains)


def _splittable(relaxed: Relaxed) -> list[int]:
    found = []
    for place in relaxed.network.bent:
        operation = relaxed.network.nodes[place].operation
        if isinstance(operation, Elementwise) and operation.curve.kink is not None:
            found.append(place)
    return found


def _taken(relaxed: Relaxed, splits: Splits) -> Relaxed:
    """Return the boxes of one image for each domain, cut by the assumed signs."""
    count = len(next(iter(splits.values())))

    def spread(box: Interval) -> Interval:
        return Interval(*(v.expand(count, *v.shape[1:]) for v in (box.lower, box.upper)))

    inputs = {place: spread(box) for place, box in relaxed.inputs.items()}
    for place, sign in splits.items():
        box = inputs[place]
        inputs[place] = Interval(
            torch.where(sign > 0, box.lower.clamp(min=0), box.lower),
            torch.where(sign < 0, box.upper.clamp(max=0), box.upper),
        )
    rows = torch.zeros(count, dtype=torch.int64, device=relaxed.region.images.device)
    boxes = [spread(box) for box in relaxed.boxes]
    return Relaxed(relaxed.network, relaxed.region[rows], inputs, boxes)


def _where(relaxed: Relaxed, coefficients: Tensor, splits: Splits) -> list[tuple[int, int, float]]:
    """Return for each domain the place and unit to split, and its score, 0 when none is left."""
    count = len(relaxed.region)
    wide = coefficients.expand(count, 1, coefficients.shape[2])
    seen = at_bends(relaxed, wide)
    best = [(-1, -1, 0.0)] * count
    for place in splits:
        box = relaxed.inputs[place]
        free = relaxed.unstable(place) & (splits[place] == 0)
        height = -box.lower * box.upper / (box.upper - box.lower).clamp(min=1e-12)
        # A unit without a coefficient still counts a little, since others may need its sign.
        score = torch.where(free, (seen[place][:, 0].abs() + 1e-9) * height, 0.0).flatten(1)
        values, units = score.max(1)
        for i, (value, unit) in enumerate(zip(values.tolist(), units.tolist(), strict=True)):
            if value > best[i][2]:
                best[i] = (place, unit, value)
    return best
