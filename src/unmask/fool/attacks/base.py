"""The common parts of every attack: its entry in the registry, and the best images so far."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from unmask.errors import UserError
from unmask.fool.norms import Threat
from unmask.fool.outcome import Adversarials
from unmask.fool.victim import Victim
from unmask.registry import Registry

F = TypeVar("F", bound=Callable[..., Adversarials])


@dataclass(frozen=True)
class AttackSpec:
    """An attack's name, function and properties; all serve goals with and without target.

    Args:
        name: as users write it.
        function: (victim, pixels, goal, threat, *, generator, ...) to Adversarials.
        norms: the names of those it knows.
        needs_gradient: whether it can't attack a black box.
        bounded: whether it needs eps.
        budget: the setting of an audit that limits it and is its keyword, "steps" or "queries"; ""
            for one without.
        hints: what it takes of other attacks' results, keywords with float[n]: "patience", to give
            up an image whose margin falls too slowly, and "below", a size known to suffice.
    """

    name: str
    function: Callable[..., Adversarials]
    norms: tuple[str, ...]
    needs_gradient: bool
    bounded: bool
    budget: str = ""
    hints: tuple[str, ...] = ()

    @property
    def minimal(self) -> bool:
        """Whether it searches for the smallest change where the threat has no eps."""
        return not self.bounded

    def check(self, victim: Victim, threat: Threat) -> None:
        """Raise UserError unless the attack can be run on that victim under that threat."""
        if threat.norm.name not in self.norms:
            raise UserError(
                f"{self.name} knows no {threat.norm.name}",
                got=str(threat),
                do=f"take {' or '.join(self.norms)}, or another attack",
            )
        if self.bounded:
            _ = threat.bound
        if self.needs_gradient and not victim.differentiable:
            raise UserError(
                f"{self.name} needs gradients",
                got="a model that gives logits alone",
                do="use square",
            )


ATTACKS: Registry[AttackSpec] = Registry("attack")


def attack(
    name: str,
    *,
    norms: tuple[str, ...] = ("l2", "linf"),
    needs_gradient: bool = True,
    bounded: bool = True,
    budget: str = "",
    hints: tuple[str, ...] = (),
) -> Callable[[F], F]:
    """Return a decorator that registers a function as an attack.

    Args:
        name: as users write it.
        norms: the names of those it knows.
        needs_gradient: whether it can't attack a black box.
        bounded: whether it needs eps.
        budget: the setting of an audit that limits it, see AttackSpec.
        hints: what it takes of other attacks' results, see AttackSpec.

    Returns:
        A decorator that returns the function unchanged.

    Raises:
        UserError: when another attack has that name already.
    """

    def register(function: F) -> F:
        spec = AttackSpec(name, function, norms, needs_gradient, bounded, budget, hints)
        ATTACKS.register(name)(spec)
        return function

    return register


class Found:
    """The nearest images so far that reach their goals; the originals where none does.

    Every image that an attack passes to its victim is offered here, so that no success on the way
    is lost.

    Args:
        originals: float32[n, c, h, w] in [0, 1].
        threat: the norm; with an eps, an image is done when its change is within it.
    """

    def __init__(self, originals: Tensor, threat: Threat) -> None:
        self.threat = threat
        self.originals = originals
        self.pixels = originals.clone()
        self.size = torch.full((len(originals),), math.inf, device=originals.device)
        self.steps = torch.zeros(len(originals), dtype=torch.int64, device=originals.device)
        self.sought = torch.ones_like(self.steps, dtype=torch.bool)

    def offer(self, rows: Tensor, tries: Tensor, reached: Tensor) -> Tensor:
        """Keep the tries that reached their goals with the smallest change so far.

        Args:
            rows: which images were tried, int64[k].
            tries: float32[k, c, h, w] in [0, 1].
            reached: which tries reached their goals, bool[k].

        Returns:
            Which images to attack further, bool[k]: all but those with a success within eps.
        """
        self.steps[rows] += 1
        change = tries - self.originals[rows]
        size = self.threat.norm.size(change)
        nearer = reached & (size < self.size[rows])
        self.pixels[rows[nearer]] = tries[nearer]
        self.size[rows[nearer]] = size[nearer]
        if self.threat.eps is not None:
            self.sought[rows] &= ~(reached & self.threat.allows(change))
        return self.sought[rows]

    def open(self) -> Tensor:
        """Return the images to attack further, int64[k]."""
        return self.sought.nonzero().flatten()

    def adversarials(self) -> Adversarials:
        """Return the images found, for the judge."""
        return Adversarials(self.pixels, self.steps)


def cosine(first: float, last: float, step: int, steps: int) -> float:
    """Return a value that falls from first to last along half a cosine wave over steps."""
    return last + (first - last) * (1 + math.cos(math.pi * step / steps)) / 2
