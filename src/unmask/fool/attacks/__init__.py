"""The standard attacks, each a function of a victim, pictures, a goal and a threat."""

from __future__ import annotations

from unmask.fool.attacks.apgd import apgd_ce, apgd_t
from unmask.fool.attacks.carlini_wagner import carlini_wagner
from unmask.fool.attacks.ddn import ddn
from unmask.fool.attacks.fgsm import fgsm
from unmask.fool.attacks.fmn import fmn
from unmask.fool.attacks.pgd import pgd
from unmask.fool.attacks.spec import AttackSpec
from unmask.fool.attacks.square import square

_BOTH = ("l2", "linf")

ATTACKS: dict[str, AttackSpec] = {
    spec.name: spec
    for spec in (
        AttackSpec("fgsm", fgsm, _BOTH, needs_gradient=True, bounded=True),
        AttackSpec("pgd", pgd, _BOTH, needs_gradient=True, bounded=True, budget="steps"),
        AttackSpec("ddn", ddn, ("l2",), needs_gradient=True, bounded=False, budget="steps"),
        AttackSpec("fmn", fmn, _BOTH, needs_gradient=True, bounded=False, budget="steps"),
        AttackSpec("cw", carlini_wagner, ("l2",), needs_gradient=True, bounded=False),
        AttackSpec("apgd-ce", apgd_ce, _BOTH, needs_gradient=True, bounded=True, budget="steps"),
        AttackSpec("apgd-t", apgd_t, _BOTH, needs_gradient=True, bounded=True, budget="steps"),
        AttackSpec("square", square, _BOTH, needs_gradient=False, bounded=True, budget="queries"),
    )
}

__all__ = [
    "ATTACKS",
    "AttackSpec",
    "apgd_ce",
    "apgd_t",
    "carlini_wagner",
    "ddn",
    "fgsm",
    "fmn",
    "pgd",
    "square",
]
