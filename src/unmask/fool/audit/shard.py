"""A few images under the whole ensemble."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unmask.data.images import Images
from unmask.fool.attacks import ATTACKS, AttackSpec
from unmask.fool.audit.plan import PAIR_ATTACKS, AuditPlan
from unmask.fool.audit.records import AttackRecord, Pairs, Shard, Worst
from unmask.fool.goal import Goal, every_target
from unmask.fool.norms import Threat
from unmask.fool.outcome import Adversarials, Outcome, judge, predicted, saved
from unmask.fool.refinement import to_boundary
from unmask.fool.victim import Victim
from unmask.runtime import seeded

_ATTACK_STREAM, _PAIR_STREAM = 21, 22
# An image whose smallest change so far is at most this many eps is never given up.
_NEARLY, _PATIENCE = 1.15, 3.0
# With up to this many classes an image is changed towards all others; with more, towards a sample.
MOST_TARGETS = 20


def attack_shard(
    victim: Victim, images: Images, rows: NDArray[np.int64], plan: AuditPlan, number: int
) -> Shard:
    """Attack the images of some rows with every attack of the plan, worst case by image.

    Args:
        victim: the classifier.
        images: all images.
        rows: of the images to attack, int64[k].
        plan: the settings.
        number: the shard's, which with the plan's seed determines everything random.
    """
    pixels, labels = as_tensors(images, rows, victim)
    clean = predicted(victim.logits(pixels))
    worst = _Running(pixels, clean, labels, plan)
    records = []
    runs = plan.runs(victim)
    for i, (spec, threat) in enumerate(runs):
        going = worst.open(threat)
        if not plan.attacks and spec.budget == "queries" and (spec, threat) in runs[:i]:
            # Thousands of queries more only where they may be enough.
            going = going[_nearly(worst.size[going.cpu().numpy()], threat)]
        generator = _generator(plan.seed, _ATTACK_STREAM, number, i)
        before, nearer, fooled = victim.cost, 0, 0
        if len(going):
            goal = Goal(labels[going])
            found = spec.function(
                victim,
                pixels[going],
                goal,
                threat,
                generator=generator,
                **plan.settings(spec),
                **_hints(spec, threat, plan, worst.size[going.cpu().numpy()]),
            )
            if threat.eps is not None:
                found = _shortened(victim, pixels[going], found, goal)
            spent = victim.cost - before
            outcome = judge(victim, pixels[going], found, goal, threat)
            fooled = int(outcome.reached.sum())
            nearer = worst.take(going, found.pixels, outcome, i)
        else:
            spent = victim.cost - before
        records.append(
            AttackRecord(
                spec.name,
                threat.eps,
                spec.needs_gradient,
                len(going),
                fooled,
                nearer,
                spent.forwards,
                spent.backwards,
            )
        )
    examples = worst.examples(len(images.class_names))
    return Shard(
        worst.result(rows),
        tuple(records),
        worst.unstable(victim),
        (saved(worst.pixels[examples]) * 255).round().to(torch.uint8).cpu().numpy(),
        rows[examples.numpy()],
    )


def _hints(
    spec: AttackSpec, threat: Threat, plan: AuditPlan, size: NDArray[np.float64]
) -> dict[str, Tensor]:
    """Return what an attack is told of these images' smallest changes so far.

    Images that are nearly within eps are never given up, nor any when attacks were chosen by name.
    """
    told = {}
    if "patience" in spec.hints and threat.eps is not None:
        kept = _nearly(size, threat) | bool(plan.attacks)
        told["patience"] = torch.where(kept, math.inf, _PATIENCE)
    if "below" in spec.hints and threat.eps is None and not plan.attacks:
        told["below"] = torch.from_numpy(size)
    return told


def _nearly(size: NDArray[np.float64], threat: Threat) -> Tensor:
    """Return which images' smallest changes so far are nearly within eps, bool[n]."""
    return torch.from_numpy(size <= _NEARLY * threat.bound)


def _shortened(victim: Victim, pixels: Tensor, found: Adversarials, goal: Goal) -> Adversarials:
    """Move adversarial images within a size nearer, since such attacks use the whole size."""
    fools = goal.reached(victim.logits(found.pixels))
    nearest = found.pixels.clone()
    nearest[fools] = to_boundary(victim, pixels[fools], found.pixels[fools], goal[fools])
    return replace(found, pixels=nearest)


def attack_pairs(
    victim: Victim, images: Images, rows: NDArray[np.int64], plan: AuditPlan, number: int
) -> Pairs:
    """Search for the smallest change of some images towards every other class.

    Args:
        victim: a model with gradients.
        images: all images.
        rows: of the images to change, int64[k].
        plan: the settings.
        number: of the task, which with the plan's seed determines everything random.
    """
    pixels, labels = as_tensors(images, rows, victim)
    places, goal = every_target(labels, len(images.class_names))
    if len(images.class_names) > MOST_TARGETS:
        # Evenly spread over the classes, with another first one for each image.
        classes = len(images.class_names) - 1
        step = -(-classes // MOST_TARGETS)
        at = torch.arange(len(places), device=places.device)
        chosen = (at % classes + at // classes) % step == 0
        places, goal = places[chosen], goal[chosen]
    spec = ATTACKS[PAIR_ATTACKS[plan.norm]]
    threat, originals = Threat(plan.geometry), pixels[places]
    found = spec.function(
        victim,
        originals,
        goal,
        threat,
        generator=_generator(plan.seed, _PAIR_STREAM, number),
        **plan.pair_settings(spec),
    )
    outcome = judge(victim, originals, found, goal, threat)
    assert goal.targets is not None
    return Pairs(
        rows=rows[places.cpu().numpy()],
        labels=goal.labels.cpu().numpy(),
        targets=goal.targets.cpu().numpy(),
        reached=outcome.reached,
        reached_saved=outcome.reached_saved,
        l2=outcome.l2,
        linf=outcome.linf,
        similarity=outcome.similarity,
    )


def as_tensors(images: Images, rows: NDArray[np.int64], victim: Victim) -> tuple[Tensor, Tensor]:
    """Return some images and their labels as tensors on the victim's device.

    Args:
        images: all images.
        rows: int64[k].
        victim: the classifier.

    Returns:
        float32[k, c, h, w] in [0, 1], and int64[k].
    """
    pixels = torch.from_numpy(images.pixels[rows]).to(victim.device).float() / 255
    return pixels, torch.from_numpy(images.labels[rows]).to(victim.device)


class _Running:
    """The nearest adversarial images so far of one shard."""

    def __init__(self, pixels: Tensor, clean: Tensor, labels: Tensor, plan: AuditPlan) -> None:
        self.norm, self.labels = plan.norm, labels
        self.originals, self.pixels = pixels, pixels.clone()
        n = len(pixels)
        self.clean = clean.cpu().numpy()
        right = (clean == labels).cpu().numpy()
        self.size = np.where(right, np.inf, 0.0)
        self.by = np.full(n, -1)
        self.predicted = np.where(right, -1, self.clean)
        self.saved = np.zeros(n, np.bool_)
        self.figures = {
            name: np.full(n, np.nan) for name in ("confidence", "l2", "linf", "similarity")
        }

    def open(self, threat: Threat) -> Tensor:
        """Return the images to attack further, int64[k]."""
        limit = 0.0 if threat.eps is None else threat.eps
        return torch.from_numpy(np.flatnonzero(self.size > limit + 1e-5)).to(self.labels.device)

    def take(self, going: Tensor, found: Tensor, outcome: Outcome, by: int) -> int:
        """Keep images that are nearer than any before; return how many."""
        rows = going.cpu().numpy()
        size = outcome.size
        nearer = outcome.reached & (size < self.size[rows])
        kept = rows[nearer]
        self.size[kept] = size[nearer]
        self.by[kept], self.predicted[kept] = by, outcome.predicted[nearer]
        self.saved[kept] = outcome.reached_saved[nearer]
        for name, values in self.figures.items():
            values[kept] = getattr(outcome, name)[nearer]
        chosen = torch.from_numpy(nearer)
        self.pixels[torch.from_numpy(kept)] = found[chosen].clamp(0, 1)
        return len(kept)

    def unstable(self, victim: Victim) -> int:
        """Return how many adversarial images get another prediction in another pass."""
        rows = torch.from_numpy(np.flatnonzero(self.by >= 0))
        if not len(rows):
            return 0
        again = predicted(victim.logits(self.pixels[rows])).cpu().numpy()
        return int((again != self.predicted[rows.numpy()]).sum())

    def examples(self, classes: int) -> Tensor:
        """Return for each class the image whose change is smallest, where there is one."""
        labels = self.labels.cpu().numpy()
        chosen = []
        for k in range(classes):
            rows = np.flatnonzero((labels == k) & (self.by >= 0))
            if len(rows):
                chosen.append(rows[self.size[rows].argmin()])
        return torch.tensor(chosen, dtype=torch.int64)

    def result(self, rows: NDArray[np.int64]) -> Worst:
        """Return the worst cases as arrays."""
        return Worst(
            rows=rows,
            labels=self.labels.cpu().numpy(),
            clean=self.clean,
            size=self.size,
            predicted=self.predicted,
            saved=self.saved,
            by=self.by,
            **self.figures,
        )


def _generator(*key: int) -> torch.Generator:
    return torch.Generator().manual_seed(int(seeded(*key).integers(1 << 63)))
