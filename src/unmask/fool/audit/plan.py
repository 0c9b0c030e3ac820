"""The plan of an audit: which changes, which attacks, on how many images."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from unmask.errors import MAX_SEED, UserError, require_whole, unknown
from unmask.fool.attacks import ATTACKS, AttackSpec
from unmask.fool.norms import NORMS, Norm, Threat
from unmask.fool.victim import Victim

# Cheap attacks come first: each gets only the images that those before it left. An attack that is
# named again starts elsewhere, which matters on models whose loss has many maxima.
_WITHIN = ("apgd-ce", "apgd-t", "square", "apgd-dlr", "apgd-ce", "apgd-ce", "square")
ENSEMBLES = {
    "linf": ("pdpgd", "apgd-minimal", *_WITHIN),
    "l2": ("ddn", "pdpgd", "apgd-minimal", *_WITHIN),
    "l1": ("fmn", "apgd-ce", "apgd-t", "apgd-dlr", "apgd-ce"),
    "l0": ("sigma-zero", "fmn"),
}
# The attacks on a model that returns the class alone.
_LABELS_ONLY = {"linf": ("rays",), "l2": ("hopskipjump",)}
# The attacks for the smallest changes towards every class.
PAIR_ATTACKS = {"linf": "apgd-minimal", "l2": "ddn", "l1": "fmn", "l0": "sigma-zero"}
# The usual sizes by norm, of grey and of coloured images.
_USUAL = {"linf": (0.3, 8 / 255), "l2": (1.5, 0.5), "l1": (10.0, 12.0), "l0": (20.0, 24.0)}


@dataclass(frozen=True)
class AuditPlan:
    """Every setting of an audit.

    Args:
        norm: "linf", "l2", "l1" or "l0".
        eps: the sizes at which every attack that needs one is run, in units of pixels in [0, 1], in
            l0 numbers of values.
        attacks: names in ATTACKS, in order; () for the norm's ensemble.
        images: how many, spread evenly over those given.
        pairs: the images of each class whose smallest change towards every other class is searched
            for, 0 for none.
        steps: gradients of each attack that takes steps (C&W has its own number), for each class
            tried.
        queries: forward passes of a black-box attack.
        seed: of everything random.
        shard: images attacked together, which bounds memory.

    Raises:
        UserError: for values out of range and unknown names.
    """

    norm: str = "linf"
    eps: tuple[float, ...] = (0.3,)
    attacks: tuple[str, ...] = ()
    images: int = 1000
    pairs: int = 10
    steps: int = 100
    queries: int = 5000
    seed: int = 0
    shard: int = 250

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise unknown("norm", self.norm, NORMS)
        for name in self.attacks:
            if name not in ATTACKS:
                raise unknown("attack", name, ATTACKS)
        for eps in self.eps:
            Threat(NORMS[self.norm], eps)
        if not self.eps:
            raise UserError("an audit needs an eps at least", do="give one, such as 0.3")
        for name, value, low in (
            ("number of images", self.images, 1),
            ("number of images a class for pairs", self.pairs, 0),
            ("number of steps", self.steps, 1),
            ("number of queries", self.queries, 1),
            ("seed", self.seed, 0),
            ("shard", self.shard, 1),
        ):
            require_whole(name, value, low, MAX_SEED)

    @property
    def geometry(self) -> Norm:
        """The norm, as an object."""
        return NORMS[self.norm]

    def settings(self, spec: AttackSpec) -> dict[str, int]:
        """Return the budget of an attack of the plan, as its keyword arguments."""
        if not spec.budget:
            return {}
        budget = getattr(self, spec.budget)
        # Up to ten searches take a quarter each; the one that searches once takes twice.
        shares = {"apgd-minimal": max(budget // 4, 1), "pdpgd": 2 * budget}
        return {spec.budget: shares.get(spec.name, budget)}

    def pair_settings(self, spec: AttackSpec) -> dict[str, int]:
        """Return the budget of the attack on each pair of an image and a class."""
        if spec.name == "apgd-minimal":
            return {"steps": max(self.steps // 5, 1), "searches": 6}
        return self.settings(spec)

    def specs(self, victim: Victim) -> list[AttackSpec]:
        """Return the attacks to run on a victim.

        The ensemble leaves out attacks whose gradients are unavailable.

        Args:
            victim: the classifier.

        Raises:
            UserError: when an attack of the plan can't be run, or none is left.
        """
        if not self.attacks:
            usual = _LABELS_ONLY.get(self.norm, ()) if victim.labels_only else ENSEMBLES[self.norm]
            specs = [ATTACKS[name] for name in usual]
            if not victim.differentiable:
                # Once each: no smallest change tells where a second time might be enough.
                specs = list(dict.fromkeys(s for s in specs if not s.needs_gradient))
            if not specs:
                raise UserError(
                    f"no attack in {self.norm} does without gradients",
                    got=f"{victim.name}, which has none",
                    do="take linf or l2",
                )
            return specs
        specs = [ATTACKS[name] for name in self.attacks]
        for spec in specs:
            spec.check(victim, Threat(self.geometry, self.eps[0]))
        return specs

    def runs(self, victim: Victim) -> list[tuple[AttackSpec, Threat]]:
        """Return the attacks with their threats, in order: those for the smallest change first.

        What the cheap attacks fool at a size needn't be attacked by the expensive ones. Sizes come
        in descending order, since an image that can be fooled within a small one is known by then.

        Args:
            victim: the classifier.

        Raises:
            UserError: as specs does.
        """
        specs = self.specs(victim)
        free = [(s, Threat(self.geometry)) for s in specs if s.minimal]
        sizes = sorted(self.eps, reverse=True)
        bounded = [(s, Threat(self.geometry, e)) for s in specs if s.bounded for e in sizes]
        return free + bounded

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as plain values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @staticmethod
    def from_dict(entries: dict[str, Any]) -> AuditPlan:
        """Return the plan that as_dict wrote; audits of 0.1 have another name for images."""
        plain: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in entries.items()
        }
        if "pictures" in plain:
            plain["images"] = plain.pop("pictures")
        return AuditPlan(**plain)


def default_eps(norm: str, channels: int) -> float:
    """Return the usual size of a change.

    Args:
        norm: "linf", "l2", "l1" or "l0".
        channels: of the images: 1 for grey ones, more for coloured ones.

    Raises:
        UserError: for an unknown norm.
    """
    if norm not in _USUAL:
        raise unknown("norm", norm, _USUAL)
    return _USUAL[norm][0 if channels == 1 else 1]


def default_pairs(images: int) -> int:
    """Return how many images of each class are changed towards every other class.

    Args:
        images: how many are attacked: pairs, which take longest, grow with them.
    """
    return min(10, max(1, images // 100))
