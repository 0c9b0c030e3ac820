"""Did the attacks fail? The indicators of attack failure, on a few images.

After Pintor et al., 2022, "Indicators of Attack Failure: Debugging and Improving Optimization of
Adversarial Examples".
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unmask.fool.attacks.descent import pgd
from unmask.fool.audit.plan import AuditPlan
from unmask.fool.goal import Goal
from unmask.fool.norms import NORMS, Threat
from unmask.fool.outcome import judge
from unmask.fool.victim import Loss, Victim, margin
from unmask.verdict import Verdict

_UNCONSTRAINED_STEPS = 50
_LATE, _STILL = 0.9, 0.1
_BORDER = 1e-5
# The order of each norm for torch.cdist.
_ORDERS = {"l2": 2.0, "linf": float("inf"), "l1": 1.0, "l0": 0.0}
_WATCHED_QUERIES = 1000


@dataclass(frozen=True)
class Watched:
    """The observations of one attack on its way.

    Args:
        attack: its name.
        eps: of the attack, None for the smallest change.
        pictures: the number of images.
        fooled: of them, by the judge.
        silent: images that it fooled on the way without returning that image.
        unfinished: of the images that it didn't fool, the fraction whose margin fell in the last
            tenth of its queries by more than a tenth of its whole fall.
    """

    attack: str
    eps: float | None
    pictures: int
    fooled: int
    silent: int
    unfinished: float


@dataclass(frozen=True)
class Diagnosis:
    """The indicators on a few images.

    Args:
        pictures: the number of images.
        unconstrained: the fraction that projected gradient descent fools when pixels may take any
            value, None for a black box.
        watched: the observations of each attack.
        verdicts: the warnings that follow.
    """

    pictures: int
    unconstrained: float | None
    watched: tuple[Watched, ...]
    verdicts: tuple[Verdict, ...]


class _Watcher(Victim):
    """A victim that records which image each query belongs to, and the margin there.

    A query belongs to an image when it is nearer to it than half that image's distance from any
    other; queries that are too far away are left out.
    """

    def __init__(self, victim: Victim, originals: Tensor, goal: Goal, threat: Threat) -> None:
        vars(self).update(vars(victim))
        self.originals, self.goal, self.threat = originals, goal, threat
        self.order = _ORDERS[threat.norm.name]
        apart = torch.cdist(originals.flatten(1), originals.flatten(1), p=self.order)
        apart.fill_diagonal_(float("inf"))
        # With a single image every query belongs to it.
        self.territory = apart.amin(1) / 2 if len(originals) else originals.new_empty(0)
        self.margins: list[list[float]] = [[] for _ in range(len(originals))]
        self.reached = torch.zeros(len(originals), dtype=torch.bool, device=originals.device)

    def logits(self, pixels: Tensor) -> Tensor:
        logits = super().logits(pixels)
        self._note(pixels, logits)
        return logits

    def gradient(self, pixels: Tensor, goal: Goal, loss: Loss) -> tuple[Tensor, Tensor, Tensor]:
        logits, values, gradient = super().gradient(pixels, goal, loss)
        self._note(pixels, logits)
        return logits, values, gradient

    def _note(self, pixels: Tensor, logits: Tensor) -> None:
        if not len(pixels):
            return
        away = torch.cdist(pixels.flatten(1), self.originals.flatten(1), p=self.order)
        nearest, rows = away.min(1)
        sure = nearest < self.territory[rows]
        rows, logits, pixels = rows[sure], logits[sure], pixels[sure]
        goal = self.goal[rows]
        within = self.threat.allows(pixels - self.originals[rows])
        margins = goal.margin(logits)
        # On the very border, the rounding of another batch size may change the prediction.
        beyond = margins < -_BORDER * logits.abs().amax(1)
        self.reached[rows[beyond & within]] = True
        for row, value in zip(rows.tolist(), margins.tolist(), strict=True):
            self.margins[row].append(value)


def diagnose(victim: Victim, pixels: Tensor, labels: Tensor, plan: AuditPlan) -> Diagnosis:
    """Run every attack of the plan on a few images, and observe it on its way.

    Args:
        victim: the classifier.
        pixels: images that it classifies correctly, float32[n, c, h, w] in [0, 1].
        labels: int64[n].
        plan: of the audit.
    """
    goal = Goal(labels)
    # The last run of each attack is at the smallest size, where it is hardest.
    last = {spec.name: i for i, (spec, _) in enumerate(plan.runs(victim))}
    watched = tuple(_watch(victim, pixels, goal, plan, i) for i in sorted(last.values()))
    free = _unconstrained(victim, pixels, goal) if victim.differentiable and len(pixels) else None
    return Diagnosis(len(pixels), free, watched, _verdicts(free, watched, len(pixels)))


def _watch(victim: Victim, pixels: Tensor, goal: Goal, plan: AuditPlan, run: int) -> Watched:
    spec, threat = plan.runs(victim)[run]
    watcher = _Watcher(victim, pixels, goal, threat)
    generator = torch.Generator().manual_seed(plan.seed + run)
    settings = {k: min(v, _WATCHED_QUERIES) for k, v in plan.settings(spec).items()}
    found = spec.function(watcher, pixels, goal, threat, generator=generator, **settings)
    outcome = judge(victim, pixels, found, goal, threat)
    failed = [m for m, ok in zip(watcher.margins, outcome.reached, strict=True) if not ok]
    falling = [_still_falling(margins) for margins in failed]
    missed = watcher.reached.cpu().numpy() & ~outcome.reached
    return Watched(
        attack=spec.name,
        eps=threat.eps,
        pictures=len(pixels),
        fooled=int(outcome.reached.sum()),
        silent=int(missed.sum()),
        unfinished=sum(falling) / len(falling) if falling else 0.0,
    )


def _still_falling(margins: list[float]) -> bool:
    late = int(_LATE * len(margins))
    if late < 10:
        return False
    fallen, before = margins[0] - min(margins), margins[0] - min(margins[:late])
    return fallen > 0 and fallen - before > _STILL * fallen


def _unconstrained(victim: Victim, pixels: Tensor, goal: Goal) -> float:
    threat = Threat(NORMS["linf"], 1.0)
    generator = torch.Generator().manual_seed(0)
    # It starts from the image itself, since a random start in so large a ball already fools.
    found = pgd(
        victim,
        pixels,
        goal,
        threat,
        generator=generator,
        steps=_UNCONSTRAINED_STEPS,
        random_start=False,
        loss=margin,
    )
    return float(judge(victim, pixels, found, goal, threat).reached.mean())


def _verdicts(
    free: float | None, watched: tuple[Watched, ...], pictures: int
) -> tuple[Verdict, ...]:
    verdicts = []
    if free is not None and free < 0.95:
        verdicts.append(
            Verdict(
                "unconstrained_fails",
                "warning",
                f"with pixels free to become anything, gradients fool only {free:.0%} of "
                f"{pictures} images",
                "don't believe the gradients' figures; look for what masks them",
            )
        )
    verdicts += [
        Verdict(
            "silent_success",
            "warning",
            f"{w.attack} saw {w.silent} of {w.pictures} images fooled on its way that it didn't "
            "give back",
            "let the attack return the best image it met, or mind the model's randomness",
        )
        for w in watched
        if w.silent
    ]
    for w in watched:
        failed = w.pictures - w.fooled
        if failed >= 5 and w.unfinished > 0.5:
            verdicts.append(
                Verdict(
                    "unfinished",
                    "warning",
                    f"{w.attack} was still getting nearer on {w.unfinished:.0%} of the {failed} "
                    "images it failed on",
                    "give it more steps",
                )
            )
    return tuple(verdicts)
