"""Auto-PGD: projected gradient descent that halves its own step size, on two losses."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from unmask.fool.attacks.base import Found, attack
from unmask.fool.goal import Goal
from unmask.fool.norms import Threat, wide
from unmask.fool.outcome import Adversarials
from unmask.fool.refinement import HALVINGS, to_boundary
from unmask.fool.victim import Loss, Victim, cross_entropy, margin

_INERTIA, _OSCILLATING = 0.75, 0.75
# In per cent of the steps: the first stretch, by how much each is shorter, and the shortest.
_FIRST, _SHORTER, _SHORTEST = 22, 3, 6
_TINY = 1e-12
_NORMS = ("l2", "linf", "l1")
# The fractions of the steps after which a margin is compared with the one before, and the least
# steps of a descent that may be given up.
_LOOKS, _LONG = (0.12, 0.25, 0.5), 50
_CLOSE = 1e-3
# Of a size that is known to suffice: the first that is tried, and where nothing is left to gain.
_BELOW, _HARDLY = 0.95, 0.99


@attack("apgd-ce", norms=_NORMS, budget="steps", hints=("patience",))
def apgd_ce(
    victim: Victim,
    pixels: Tensor,
    goal: Goal,
    threat: Threat,
    *,
    generator: torch.Generator,
    steps: int = 100,
    restarts: int = 1,
    patience: Tensor | float = math.inf,
) -> Adversarials:
    """Descend the cross-entropy (Croce and Hein, 2020, APGD-CE).

    The step starts at 2 eps and is halved at checkpoints where the loss fell in fewer than three
    quarters of the steps since the last, or where neither step nor best loss changed; the search
    then continues from the best point. An image that reaches its goal is done at once.

    Args:
        victim: a model with gradients.
        pixels: float32[n, c, h, w] in [0, 1].
        goal: of each image.
        threat: the norm and eps.
        generator: of the starts.
        steps: gradient steps of each descent.
        restarts: descents of each image; at most restarts * (steps + 1) gradients an image.
        patience: a number, or float[n]. An image is given up when its margin would stay above 0
            even if it fell, in each doubling of the steps that is left, by patience times its last
            fall. Infinity gives none up.

    Returns:
        The images, unchanged where the attack failed, and their steps.

    Raises:
        UserError: without eps.
    """
    found = Found(pixels, threat)
    for _ in range(restarts):
        _descend(victim, found, goal, goal, cross_entropy, steps, generator, patience)
    return found.adversarials()


@attack("apgd-dlr", norms=_NORMS, budget="steps", hints=("patience",))
def apgd_dlr(
    victim: Victim,
    pixels: Tensor,
    goal: Goal,
    threat: Threat,
    *,
    generator: torch.Generator,
    steps: int = 100,
    restarts: int = 1,
    patience: Tensor | float = math.inf,
) -> Adversarials:
    """Descend the difference of logits ratio, which ignores their scale (APGD-DLR).

    As apgd_ce, with the loss ratio (Croce and Hein, 2020).

    Args:
        victim: a model with gradients.
        pixels: float32[n, c, h, w] in [0, 1].
        goal: of each image.
        threat: the norm and eps.
        generator: of the starts.
        steps: gradient steps of each descent.
        restarts: descents of each image.
        patience: a number, or float[n], see apgd_ce.

    Returns:
        The images, unchanged where the attack failed, and their steps.

    Raises:
        UserError: without eps.
    """
    found = Found(pixels, threat)
    for _ in range(restarts):
        _descend(victim, found, goal, goal, ratio, steps, generator, patience)
    return found.adversarials()


@attack("apgd-t", norms=_NORMS, budget="steps", hints=("patience",))
def apgd_t(
    victim: Victim,
    pixels: Tensor,
    goal: Goal,
    threat: Threat,
    *,
    generator: torch.Generator,
    steps: int = 100,
    restarts: int = 1,
    classes_tried: int = 9,
    patience: Tensor | float = math.inf,
) -> Adversarials:
    """Descend the difference of logits ratio towards one class after another (APGD-T).

    As apgd_ce, with the targeted loss ratio (Croce and Hein, 2020). Without a target, the most
    likely wrong classes are tried in turn, and any of them ends the search; that costs one more
    forward pass an image.

    Args:
        victim: a model with gradients.
        pixels: float32[n, c, h, w] in [0, 1].
        goal: of each image.
        threat: the norm and eps.
        generator: of the starts.
        steps: gradient steps of each descent.
        restarts: descents of each image and class.
        classes_tried: the most classes without a target; at most as many times the gradients of
            apgd_ce.
        patience: a number, or float[n], see apgd_ce.

    Returns:
        The images, unchanged where the attack failed, and their steps.

    Raises:
        UserError: without eps.
    """
    found = Found(pixels, threat)
    if goal.targets is not None:
        wishes = [goal]
    else:
        own = goal.labels[:, None]
        logits = victim.logits(pixels).scatter(1, own, float("-inf"))
        order = logits.sort(dim=1, descending=True, stable=True).indices[:, : victim.classes - 1]
        wishes = [Goal(goal.labels, column) for column in order[:, :classes_tried].T]
    for _ in range(restarts):
        for wish in wishes:
            _descend(victim, found, goal, wish, ratio, steps, generator, patience)
    return found.adversarials()


@attack("apgd-minimal", bounded=False, budget="steps", hints=("below",))
def apgd_minimal(
    victim: Victim,
    pixels: Tensor,
    goal: Goal,
    threat: Threat,
    *,
    generator: torch.Generator,
    steps: int = 50,
    searches: int = 10,
    below: Tensor | None = None,
) -> Adversarials:
    """Search for the smallest change by bisection of each image's eps, with Auto-PGD at each.

    A descent starts from the nearest adversarial image so far, projected into the ball, or from
    noise; where it succeeds the boundary is bisected towards the original. Cross-entropy and the
    difference of logits ratio alternate as the loss.

    Args:
        victim: a model with gradients.
        pixels: float32[n, c, h, w] in [0, 1].
        goal: of each image.
        threat: the norm; with an eps, an image is done when its change is within it.
        generator: of the starts.
        steps: gradients a descent.
        searches: sizes tried for each image.
        below: float[n], sizes that are known to suffice: smaller changes alone are sought, from
            just below them.

    Returns:
        The nearest images found, unchanged where none was, and their steps.
    """
    norm, found = threat.norm, Found(pixels, threat)
    rows = found.open()
    logits, missed, gradient = victim.gradient(pixels, goal, margin)
    found.offer(rows, pixels, goal.reached(logits))
    farthest = norm.size(torch.maximum(pixels, 1 - pixels))
    low, needed = torch.zeros_like(farthest), missed / norm.dual(gradient)
    sloped = needed.isfinite() & (needed > 0)
    guess = torch.where(sloped, torch.minimum(2 * needed, farthest / 2), farthest / 4)
    if victim.visible is not None:
        # The slope there doesn't tell how far away the visible range is.
        guess = torch.maximum(guess, farthest / 16)
    ceiling = torch.full_like(guess, math.inf) if below is None else below.to(guess)
    for search in range(searches):
        noise = norm.noise(pixels, guess, generator)
        rows = found.open()
        # An image whose bounds are within a thousandth of each other isn't worth a descent.
        rows = rows[found.size[rows] - low[rows] > _CLOSE * found.size[rows].clamp(max=1e9)]
        rows = rows[(found.size[rows] > 0) & (low[rows] < _HARDLY * ceiling[rows])]
        if not len(rows):
            break
        reached = found.size[rows].isfinite()
        top = torch.minimum(found.size[rows], ceiling[rows])
        middle = torch.where(reached | (low[rows] > 0), (low[rows] + top) / 2, _BELOW * top)
        eps = torch.where(top.isfinite(), middle, guess[rows])
        near = norm.project(found.pixels[rows] - pixels[rows], eps)
        begin = torch.where(wide(reached, near), near, noise[rows])
        before = found.size[rows].clone()
        loss = ratio if search % 2 else cross_entropy
        _descend_from(victim, found, goal, goal, loss, steps, rows, begin, eps)
        nearer = found.size[rows] < before
        low[rows] = torch.where(nearer, low[rows], eps)
        guess[rows] = torch.where(nearer, guess[rows], torch.minimum(2 * eps, farthest[rows]))
        better = rows[nearer]
        if len(better):
            back = to_boundary(victim, pixels[better], found.pixels[better], goal[better])
            found.offer(better, back, torch.ones_like(better, dtype=torch.bool))
            found.steps[better] += HALVINGS - 1
    return found.adversarials()


def ratio(logits: Tensor, goal: Goal) -> Tensor:
    """Return the difference of logits ratio, float[b].

    The margin is divided by z1 - (z3 + z4) / 2 if targeted, else by z1 - z3, where z1 >= z2 >= ...
    are the sorted logits; so the loss ignores their scale. Until another class wins, the margin is
    the true class's logit less the target's (Croce and Hein, 2020). With too few classes it is the
    margin itself.

    Args:
        logits: float[b, classes].
        goal: of each image.
    """
    highest = logits.topk(min(4, logits.shape[1]), dim=1).values
    if goal.targets is None and highest.shape[1] >= 3:
        return goal.margin(logits) / (highest[:, 0] - highest[:, 2] + _TINY)
    if highest.shape[1] < 4:
        return goal.margin(logits)
    return goal.margin(logits) / (highest[:, 0] - highest[:, 2:].mean(1) + _TINY)


def checkpoints(steps: int) -> list[int]:
    """Return the steps after which the step size is checked, ascending."""
    stretch, parts = _FIRST, [_FIRST]
    while parts[-1] < 100:
        stretch = max(stretch - _SHORTER, _SHORTEST)
        parts.append(parts[-1] + stretch)
    return sorted({-(-part * steps // 100) for part in parts if part < 100})


@dataclass
class _Descent:
    """The state of the images that are still attacked, one row each."""

    rows: Tensor
    start: Tensor
    at: Tensor
    before: Tensor
    loss: Tensor
    gradient: Tensor
    best: Tensor
    best_loss: Tensor
    best_gradient: Tensor
    length: Tensor
    falls: Tensor
    halved: Tensor
    checked_loss: Tensor
    eps: Tensor
    lowest: Tensor
    checked_margin: Tensor
    patience: Tensor

    def keep(self, going: Tensor) -> None:
        if not going.all():
            for name, values in vars(self).items():
                setattr(self, name, values[going])

    def step(self, threat: Threat, inertia: float) -> None:
        """Move by length against the gradient, with momentum, within the ball."""
        to = self.at - wide(self.length, self.at) * threat.norm.step(self.gradient)
        to = self._allowed(to, threat)
        to = self.at + inertia * (to - self.at) + (1 - inertia) * (self.at - self.before)
        self.before, self.at = self.at, self._allowed(to, threat)

    def arrive(self, loss: Tensor, gradient: Tensor) -> None:
        """Record the loss and its gradient at the new place."""
        self.falls = self.falls + (loss < self.loss)
        self.loss, self.gradient = loss, gradient
        better = loss < self.best_loss
        self.best_loss = torch.where(better, loss, self.best_loss)
        self.best = torch.where(wide(better, self.at), self.at, self.best)
        self.best_gradient = torch.where(wide(better, self.at), gradient, self.best_gradient)

    def check(self, span: int) -> None:
        """Halve step sizes that brought no progress in the last span; return to the best point."""
        stuck = ~self.halved & (self.best_loss >= self.checked_loss)
        self.halved = stuck | (self.falls <= _OSCILLATING * span)
        self.checked_loss = self.best_loss
        self.falls = torch.zeros_like(self.falls)
        self.length = torch.where(self.halved, self.length / 2, self.length)
        back = wide(self.halved, self.at)
        self.at = torch.where(back, self.best, self.at)
        self.gradient = torch.where(back, self.best_gradient, self.gradient)

    def hopeless(self, doublings: float) -> Tensor:
        """Return whose margin stays above 0 by patience times its last fall a doubling, bool[k]."""
        # Infinite patience times no fall is NaN, and no margin is larger than that.
        gone = self.lowest > self.patience * (self.checked_margin - self.lowest) * doublings
        self.checked_margin = self.lowest
        return gone

    def _allowed(self, to: Tensor, threat: Threat) -> Tensor:
        change = threat.norm.project(to - self.start, self.eps)
        return (self.start + change).clamp(0, 1)


def _descend(
    victim: Victim,
    found: Found,
    goal: Goal,
    wish: Goal,
    loss: Loss,
    steps: int,
    generator: torch.Generator,
    patience: Tensor | float,
) -> None:
    """Descend the loss of wish from a random start; an image is done when it reaches its goal."""
    norm, eps = found.threat.norm, found.threat.bound
    # Drawn for all, so that an image's noise doesn't depend on which others are left.
    noise = norm.noise(found.originals, eps, generator)
    noise = noise * wide(eps / norm.size(noise), noise)
    rows = found.open()
    within = torch.full_like(found.size[rows], eps)
    patient = torch.as_tensor(patience, device=rows.device).expand(len(found.size))[rows]
    _descend_from(victim, found, goal, wish, loss, steps, rows, noise[rows], within, patient)


def _descend_from(
    victim: Victim,
    found: Found,
    goal: Goal,
    wish: Goal,
    loss: Loss,
    steps: int,
    rows: Tensor,
    change: Tensor,
    eps: Tensor,
    patience: Tensor | None = None,
) -> None:
    """Descend from changes of the rows, each within its own eps and with its patience, float[k]."""
    start = found.originals[rows]
    at = (start + change).clamp(0, 1)
    logits, values, gradient = victim.gradient(at, wish[rows], loss)
    reached = goal[rows].reached(logits)
    going = found.offer(rows, at, reached) & ~reached
    here = _Descent(
        rows=rows,
        start=start,
        at=at,
        before=at,
        loss=values,
        gradient=gradient,
        best=at,
        best_loss=values,
        best_gradient=gradient,
        length=2 * eps,
        falls=torch.zeros_like(rows),
        halved=torch.ones_like(going),
        checked_loss=values,
        eps=eps,
        lowest=goal[rows].margin(logits),
        checked_margin=torch.full_like(values, math.inf),
        patience=torch.full_like(values, math.inf) if patience is None else patience,
    )
    here.keep(going)
    checks = checkpoints(steps)
    spans = dict(zip(checks, (b - a for a, b in pairwise([0, *checks])), strict=True))
    looks = [round(part * steps) for part in _LOOKS] if steps >= _LONG else []
    for step in range(steps):
        if not len(here.rows):
            return
        here.step(found.threat, _INERTIA if step else 1.0)
        logits, values, gradient = victim.gradient(here.at, wish[here.rows], loss)
        reached = goal[here.rows].reached(logits)
        going = found.offer(here.rows, here.at, reached) & ~reached
        here.arrive(values, gradient)
        if step + 1 in spans:
            here.check(spans[step + 1])
        here.lowest = torch.minimum(here.lowest, goal[here.rows].margin(logits))
        if step + 1 in looks:
            going = going & ~here.hopeless(math.log2(steps / (step + 1)))
        here.keep(going)
