"""The Square attack: random square changes, using the logits alone."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from unmask.fool.attacks.base import Found, attack
from unmask.fool.goal import Goal
from unmask.fool.norms import NORMS, Threat, wide
from unmask.fool.outcome import Adversarials
from unmask.fool.victim import Victim, cross_entropy, margin

# The queries, of 10,000, after which the changed fraction of the image is halved.
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
_SCHEDULE = 10_000
_TILES, _SMALLEST = 5, 3
_TINY = 1e-12
# The fractions of the queries after which a margin is checked, from the third on against the one
# before; the fraction of the first margin below which an image is never given up; and the least
# queries of a search in which images are.
_CHECKS, _NEAR, _LONG = (0.02, 0.05, 0.1, 0.2, 0.4), 0.25, 1000


@attack("square", needs_gradient=False, budget="queries", hints=("patience",))
def square(
    victim: Victim,
    pixels: Tensor,
    goal: Goal,
    threat: Threat,
    *,
    generator: torch.Generator,
    queries: int = 5000,
    first_part: float = 0.8,
    patience: Tensor | float = 3.0,
) -> Adversarials:
    """Change random squares by eps and keep the changes that lower the loss.

    The loss is the margin, or the cross-entropy of a target (Andriushchenko et al., 2020). An image
    that reaches its goal is done at once. It needs no gradients.

    Args:
        victim: a model, which may be a black box.
        pixels: float32[n, c, h, w] in [0, 1].
        goal: of each image.
        threat: the norm and eps.
        generator: of the squares.
        queries: the most forward passes an image.
        first_part: the fraction of the image that is changed at first, in (0, 1]; it decreases.
        patience: an untargeted image is given up when its margin would stay above 0 even if it
            fell, in each doubling of the queries that is left, by patience times its last fall.
            Infinity gives none up. A float, or float[n].

    Returns:
        The images, unchanged where the attack failed, and their queries.

    Raises:
        UserError: without eps.
    """
    loss = margin if goal.targets is None else cross_entropy
    drawn = moves(threat.norm.name, pixels, threat.bound, generator)
    found = Found(pixels, threat)
    rows, tries = found.open(), drawn.start()
    best, lowest = tries, pixels.new_full((len(pixels),), float("inf"))
    watched = goal.targets is None and queries >= _LONG
    checks = [round(part * queries) for part in _CHECKS] if watched else []
    patient = torch.as_tensor(patience, device=pixels.device).expand(len(pixels))
    first = before = lowest
    for query in range(queries):
        if query:
            tries = drawn.tries(rows, best, first_part * _part(query / queries))
        logits = victim.logits(tries)
        value = loss(logits, goal[rows])
        going = found.offer(rows, tries, goal[rows].reached(logits))
        lower = value < lowest
        lowest = torch.where(lower, value, lowest)
        best = torch.where(wide(lower, best), tries, best)
        if query in checks:
            if query == checks[0]:
                first = lowest
            elif query > checks[1]:
                still = patient[rows] * (before - lowest) * math.log2(queries / query)
                # Infinite patience times no fall is NaN, and nothing is more than that.
                going = going & (~(lowest > still) | (lowest < _NEAR * first))
            before = lowest
        if not going.all():
            rows, best, lowest = rows[going], best[going], lowest[going]
            first, before = first[going], before[going]
        if not len(rows):
            break
    return found.adversarials()


def _part(done: float) -> float:
    """Return the factor on the changed fraction when done of all queries are spent."""
    halvings: int = sum(int(done * _SCHEDULE) > after for after in _HALVINGS)
    return 0.5**halvings


class Moves(Protocol):
    """The start of the search and its next tries, for n images and one norm."""

    def start(self) -> Tensor:
        """Return the first tries, float32[n, c, h, w] in [0, 1], at distance eps."""

    def tries(self, rows: Tensor, best: Tensor, part: float) -> Tensor:
        """Return the next tries, float32[k, c, h, w].

        Args:
            rows: the images, int64[k].
            best: their best images so far, float32[k, c, h, w].
            part: the fraction of an image to change, in (0, 1].
        """


class _Drawn:
    """Draws for all n images at once, so that none depends on which others are left."""

    def __init__(self, pixels: Tensor, eps: float, generator: torch.Generator) -> None:
        self.pixels, self.eps, self.generator = pixels, eps, generator
        self.n, self.c, self.h, self.w = pixels.shape

    def signs(self, *shape: int) -> Tensor:
        drawn = torch.randint(2, (self.n, *shape), generator=self.generator)
        return (drawn * 2 - 1).to(self.pixels)

    def places(self, side: int) -> tuple[Tensor, Tensor]:
        """Return the rows [n, side] and columns [n, side] of a square in each image."""
        span = torch.arange(side)
        top = torch.randint(self.h - side + 1, (self.n, 1), generator=self.generator)
        left = torch.randint(self.w - side + 1, (self.n, 1), generator=self.generator)
        device = self.pixels.device
        return (top + span).to(device), (left + span).to(device)


class LinfMoves(_Drawn):
    """Vertical stripes at first, then squares of one sign a channel."""

    def start(self) -> Tensor:
        """Return the images with stripes one pixel wide, each eps up or down."""
        return (self.pixels + self.eps * self.signs(self.c, 1, self.w)).clamp(0, 1)

    def tries(self, rows: Tensor, best: Tensor, part: float) -> Tensor:
        """Return best with one square of each image eps above or below the original."""
        side = min(max(round(math.sqrt(part * self.h * self.w)), 1), self.h, self.w)
        ys, xs = (places[rows] for places in self.places(side))
        signs = self.signs(self.c, 1, 1)[rows]
        at = _index(ys, xs, self.c)
        moved = best.clone()
        moved[at] = (self.pixels[rows][at] + self.eps * signs).clamp(0, 1)
        return moved


class L2Moves(_Drawn):
    """Two-sided bumps in a grid at first, then the change of one square moved into another."""

    def start(self) -> Tensor:
        """Return the images with a grid of bumps of random sign, at distance eps in all."""
        side = max(min(self.h, self.w) // _TILES, 1)
        change = torch.zeros_like(self.pixels)
        # The tiles leave a margin on every side where they don't fit.
        for top in range(self.h % side // 2, self.h - side + 1, side):
            for left in range(self.w % side // 2, self.w - side + 1, side):
                change[:, :, top : top + side, left : left + side] = self._bumps(side)
        return self._scaled(self.pixels, change)

    def tries(self, rows: Tensor, best: Tensor, part: float) -> Tensor:
        """Return best with the change inside one square moved to a bump in another."""
        side = self._side(part)
        ys, xs = (places[rows] for places in self.places(side))
        into = _index(ys, xs, self.c)
        ys, xs = (places[rows] for places in self.places(side))
        out = _index(ys, xs, self.c)
        start = self.pixels[rows]
        change = best - start
        left = change.clone()
        left[into] = 0
        left[out] = 0
        freed = change.square().sum((2, 3)) - left.square().sum((2, 3))
        unused = (self.eps**2 - change.square().sum((1, 2, 3))).clamp(min=0)
        budget = (freed.clamp(min=0) + unused[:, None] / self.c).sqrt()[:, :, None, None]
        bump = self._bumps(side)[rows] + _unit(change[into])
        left[into] = _unit(bump) * budget
        return self._scaled(start, left)

    def _scaled(self, start: Tensor, change: Tensor) -> Tensor:
        return (start + self.eps * NORMS["l2"].direction(change)).clamp(0, 1)

    def _side(self, part: float) -> int:
        side = max(round(math.sqrt(part * self.h * self.w)), _SMALLEST) | 1
        largest = min(self.h, self.w)
        return side if side <= largest else largest - (1 - largest % 2)

    def _bumps(self, side: int) -> Tensor:
        """Return bumps float32[n, c, side, side] of norm 1 a channel, vertical or horizontal."""
        bump = _bump(side).to(self.pixels)
        lying = torch.rand((self.n, 1, 1, 1), generator=self.generator) < 0.5
        turned = torch.where(lying.to(bump.device), bump.T, bump)
        return turned * self.signs(self.c, 1, 1)


def moves(norm: str, pixels: Tensor, eps: float, generator: torch.Generator) -> Moves:
    """Return the moves of a norm.

    Args:
        norm: "linf" or "l2".
        pixels: float32[n, c, h, w] in [0, 1].
        eps: the size of the changes, in units of pixels.
        generator: of the squares.
    """
    kinds: dict[str, type[LinfMoves] | type[L2Moves]] = {"linf": LinfMoves, "l2": L2Moves}
    return kinds[norm](pixels, eps, generator)


def _bump(side: int) -> Tensor:
    """Return a bump up above a bump down, float32[side, side], of norm 1."""
    upper = side // 2
    bump = torch.cat([_half(upper, side), -_half(side - upper, side)])
    return NORMS["l2"].direction(bump[None])[0]


def _half(height: int, width: int) -> Tensor:
    """Return the sum of squares around the middle, the k-th of weight 1 / k**2, of norm 1."""
    if not height:
        return torch.zeros(0, width)
    y = (torch.arange(height) - height // 2).abs()
    x = (torch.arange(width) - width // 2).abs()
    away = torch.maximum(y[:, None], x)
    weights = 1 / torch.arange(1, max(height, width) // 2 + 2) ** 2
    # A place lies in every square whose half width is at least its distance from the middle.
    bump = weights.flip(0).cumsum(0).flip(0)[away]
    return NORMS["l2"].direction(bump[None])[0]


def _index(ys: Tensor, xs: Tensor, channels: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the index of one square an image, in all channels, into [k, c, h, w]."""
    picture = torch.arange(len(ys), device=ys.device)[:, None, None, None]
    channel = torch.arange(channels, device=ys.device)[None, :, None, None]
    return picture, channel, ys[:, None, :, None], xs[:, None, None, :]


def _unit(window: Tensor) -> Tensor:
    """Return the windows with norm 1 in each channel; 0 where they are 0."""
    return window / (window.square().sum((2, 3), keepdim=True).sqrt() + _TINY)
