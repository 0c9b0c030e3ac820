"""What every attack is made of: its entry in the registry, and the best images it has found."""

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
    """An attack's name, its function, and what it is for; all serve goals with and without target.

    function(victim, pixels, goal, threat, *, generator, ...) gives Adversarials. norms: those it
    knows. bounded: it needs eps. minimal: it seeks the smallest change where there is no eps.
    budget: the setting of an audit that its keyword of that name takes, "steps" or "queries"; ""
    for one that decides itself. patient: it has a keyword patience, float or float[n], and leaves
    an image whose margin falls too slowly for it.
    """

    name: str
    function: Callable[..., Adversarials]
    norms: tuple[str, ...]
    needs_gradient: bool
    bounded: bool
    budget: str = ""
    patient: bool = False

    @property
    def minimal(self) -> bool:
        """Whether it seeks the smallest change where the threat has no eps."""
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
    patient: bool = False,
) -> Callable[[F], F]:
    """Register a function as the attack of that name; see AttackSpec for the arguments.

    Returns:
        A decorator that gives the function back as it is.

    Raises:
        UserError: when another attack has that name already.
    """

    def register(function: F) -> F:
        spec = AttackSpec(name, function, norms, needs_gradient, bounded, budget, patient)
        ATTACKS.register(name)(spec)
        return function

    return register


class Found:
    """The nearest images found so far that reach their goals; where none is, the originals.

    Every image that an attack shows to its victim is offered here, so that no success on the way
    is lost.
    """

    def __init__(self, originals: Tensor, threat: Threat) -> None:
        self.threat = threat
        self.originals = originals
        self.pixels = originals.clone()
        self.size = torch.full((len(originals),), math.inf, device=originals.device)
        self.steps = torch.zeros(len(originals), dtype=torch.int64, device=originals.device)
        self.sought = torch.ones_like(self.steps, dtype=torch.bool)

    def offer(self, rows: Tensor, tries: Tensor, reached: Tensor) -> Tensor:
        """Keep the tries that reached their goals by the smallest change yet.

        rows: int64[k], which images were tried; tries: float32[k, c, h, w]; reached: bool[k].
        Returns bool[k]: which are still to be sought. Those within a given eps are done.
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
        """Return int64[k]: the images still to be sought."""
        return self.sought.nonzero().flatten()

    def adversarials(self) -> Adversarials:
        """Return what was found, for the judge."""
        return Adversarials(self.pixels, self.steps)


def cosine(first: float, last: float, step: int, steps: int) -> float:
    """Return a value that falls from first to last by half a wave of the cosine over steps."""
    return last + (first - last) * (1 + math.cos(math.pi * step / steps)) / 2
