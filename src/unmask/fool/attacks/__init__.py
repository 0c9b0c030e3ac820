"""The attacks: functions of a victim, images, a goal and a threat, registered by name."""

from __future__ import annotations

from unmask.fool.attacks.apgd import apgd_ce, apgd_dlr, apgd_minimal, apgd_t
from unmask.fool.attacks.base import ATTACKS, AttackSpec, attack
from unmask.fool.attacks.carlini_wagner import carlini_wagner
from unmask.fool.attacks.descent import fgsm, pgd
from unmask.fool.attacks.label_only import hopskipjump, rays
from unmask.fool.attacks.minimum_norm import ddn, fmn, pdpgd
from unmask.fool.attacks.sparse import sigma_zero
from unmask.fool.attacks.square import square

__all__ = [
    "ATTACKS",
    "AttackSpec",
    "apgd_ce",
    "apgd_dlr",
    "apgd_minimal",
    "apgd_t",
    "attack",
    "carlini_wagner",
    "ddn",
    "fgsm",
    "fmn",
    "hopskipjump",
    "pdpgd",
    "pgd",
    "rays",
    "sigma_zero",
    "square",
]
