"""What is known of an attack before it is run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from unmask.errors import UserError
from unmask.fool.norms import Threat
from unmask.fool.outcome import Adversarials
from unmask.fool.victim import Victim


@dataclass(frozen=True)
class AttackSpec:
    """An attack's name, its function, and what it is for; all serve goals with and without target.

    function(victim, pixels, goal, threat, *, generator, ...) gives Adversarials. norms: those it
    knows. bounded: it needs eps. minimal: it seeks the smallest change where there is no eps.
    budget: the setting of an audit that its keyword of that name takes, "steps" or "queries"; ""
    for one that decides itself.
    """

    name: str
    function: Callable[..., Adversarials]
    norms: tuple[str, ...]
    needs_gradient: bool
    bounded: bool
    budget: str = ""

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
