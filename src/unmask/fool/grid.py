"""Images by classes: each image changed until the classifier predicts each other class."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unmask.errors import UserError, unknown
from unmask.execution.executor import Executor, LocalExecutor
from unmask.fool.attacks import ATTACKS
from unmask.fool.goal import Goal, every_target
from unmask.fool.norms import Threat
from unmask.fool.outcome import Adversarials, Outcome, judge, saved
from unmask.fool.refinement import refined
from unmask.fool.victim import Cost, Victim, require_images

# No single attack finds the smallest change of every image; the last one needs an eps.
_ENSEMBLES = {"l2": ("fmn", "ddn", "apgd-ce"), "linf": ("fmn", "apgd-minimal", "apgd-ce")}
_STEPS: dict[str, dict[str, int]] = {
    "fmn": {"steps": 100},
    "ddn": {"steps": 100},
    "apgd-minimal": {"steps": 20, "searches": 6},
}
_ROUNDING = 1e-6

# Pairs attacked together: rounding may depend on it, so it is the same for any executor.
_TOGETHER = 64


@dataclass(frozen=True, eq=False)
class Grid:
    """n images, and m changed images, each with a target class.

    Args:
        title: of the images together.
        class_names: in the order of the logits.
        originals: float32[n, c, h, w] in [0, 1].
        names: of the images, [n].
        labels: the true classes, int64[n].
        predicted: the classes predicted for the unchanged images, int64[n].
        confidence: the confidence of those predictions, float64[n].
        rows: which image was changed, int64[m].
        targets: into which class, int64[m].
        changed: float32[m, c, h, w], on values k / 255, as they are saved.
        outcome: the evaluation of the changed images, each array [m].
        mode: the name of the attack in the report.
        threat: the norm, and the largest change, or None for the smallest.
        cost: of the attack.
        seconds: that it took.
        stamp: the provenance.
        failures: a line for each shard of pairs that could not be attacked; its images are
            unchanged.
    """

    title: str
    class_names: tuple[str, ...]
    originals: NDArray[np.float32]
    names: tuple[str, ...]
    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    confidence: NDArray[np.float64]
    rows: NDArray[np.int64]
    targets: NDArray[np.int64]
    changed: NDArray[np.float32]
    outcome: Outcome
    mode: str
    threat: Threat
    cost: Cost
    seconds: float
    stamp: dict[str, Any]
    failures: tuple[str, ...] = ()

    @property
    def misjudged(self) -> NDArray[np.int64]:
        """The images that the classifier gets wrong before any change."""
        return np.flatnonzero(self.predicted != self.labels)

    def as_dict(self) -> dict[str, Any]:
        """Return all but the images themselves as plain values."""
        pictures = zip(self.names, self.labels, self.predicted, self.confidence, strict=True)
        outcome = {name: np.asarray(values) for name, values in vars(self.outcome).items()}
        pairs = [
            {
                "picture": self.names[row],
                "target": self.class_names[target],
                **{name: values[i].item() for name, values in outcome.items()},
                "said": self.class_names[self.outcome.predicted[i]],
            }
            for i, (row, target) in enumerate(zip(self.rows, self.targets, strict=True))
        ]
        return {
            "title": self.title,
            "mode": self.mode,
            "threat": str(self.threat),
            "pictures": [
                {
                    "name": name,
                    "label": self.class_names[label],
                    "said": self.class_names[predicted],
                    "certainty": float(confidence),
                }
                for name, label, predicted, confidence in pictures
            ],
            "pairs": pairs,
            "cost": asdict(self.cost),
            "seconds": self.seconds,
            "failures": list(self.failures),
            "stamp": self.stamp,
        }


class PairAttack(Protocol):
    """An attack that changes each image towards its target class; it must be picklable."""

    def __call__(
        self,
        victim: Victim,
        pixels: Tensor,
        goal: Goal,
        threat: Threat,
        *,
        generator: torch.Generator,
    ) -> Adversarials:
        """Return the changed images, float32[n, c, h, w], and the steps that each took."""
        ...


def best_attack(
    victim: Victim, pixels: Tensor, goal: Goal, threat: Threat, *, generator: torch.Generator
) -> Adversarials:
    """Return for each image the smallest change that any of several attacks finds, on 8 bits.

    Each attack's images are moved back to the boundary and onto values k / 255 before they are
    compared; where that fails, they stay as they were found.

    Args:
        victim: a model with gradients.
        pixels: float32[n, c, h, w] in [0, 1].
        goal: of each image.
        threat: the norm; with an eps, any change within it is enough.
        generator: of everything random.

    Returns:
        The images, the last try where no attack succeeded, and the steps of all attacks together.
    """
    best, taken = pixels.clone(), torch.zeros(len(pixels), dtype=torch.int64)
    size = pixels.new_full((len(pixels),), float("inf"))
    for name in _ENSEMBLES[threat.norm.name]:
        spec = ATTACKS[name]
        if spec.bounded and threat.eps is None:
            continue
        # Without an eps every attack may still come nearer.
        enough = -1.0 if threat.eps is None else threat.eps + _ROUNDING
        rows = (size > enough).nonzero().flatten()
        if not len(rows):
            continue
        found = spec.function(
            victim, pixels[rows], goal[rows], threat, generator=generator, **_STEPS.get(name, {})
        )
        start, aim = pixels[rows], goal[rows]
        fools = aim.reached(victim.logits(found.pixels))
        changed = refined(victim, start, found.pixels, aim, threat, fools)
        taken[rows] += found.steps.cpu()
        reached = aim.reached(victim.logits(changed))
        length = torch.where(reached, threat.norm.size(changed - start), float("inf"))
        # Until the goal is reached, the last try is kept.
        nearer = (length < size[rows]) | size[rows].isinf()
        best[rows[nearer]], size[rows[nearer]] = changed[nearer], length[nearer]
    return Adversarials(best, taken)


@dataclass(frozen=True)
class _Shared:
    """The input of every task, sent to a node once."""

    model: Victim
    pixels: NDArray[np.float32]
    classes: int
    threat: Threat
    attack: PairAttack
    seed: int
    # Rounding may depend on it, so the workers use as many as this process.
    threads: int


@dataclass(frozen=True)
class _Pairs:
    """One task: the rows of the images, their labels and their targets, each int64[n]."""

    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    targets: NDArray[np.int64]


@dataclass(frozen=True)
class _Changed:
    """The result of a task: images and steps as in Adversarials, and their cost."""

    pixels: NDArray[np.float32]
    steps: NDArray[np.int64]
    cost: Cost


def _attacked(shared: _Shared, pairs: _Pairs) -> _Changed:
    torch.set_num_threads(shared.threads)
    victim = shared.model.fresh(shared.classes)
    found = shared.attack(
        victim,
        torch.from_numpy(shared.pixels[pairs.rows]),
        Goal(torch.tensor(pairs.labels), torch.tensor(pairs.targets)),
        shared.threat,
        generator=torch.Generator().manual_seed(shared.seed),
    )
    return _Changed(found.pixels.numpy(), found.steps.numpy(), victim.cost)


def fool_grid(
    model: Victim,
    pixels: Tensor,
    labels: Tensor | None,
    *,
    names: Sequence[str],
    title: str,
    targets: Sequence[str] = (),
    attack: PairAttack | None = None,
    mode: str = "best",
    threat: Threat,
    seed: int = 0,
    on: Executor | None = None,
    stamp: dict[str, Any],
) -> Grid:
    """Change each image until the model predicts each other class.

    Args:
        model: a model with gradients.
        pixels: float32[n, c, h, w] in [0, 1].
        labels: int64[n]; None takes the model's predictions.
        names: of the images.
        title: of the images together.
        targets: the names of the target classes, all by default; an image's own is left out.
        attack: that changes the images, best_attack by default.
        mode: the name of that attack in the report.
        threat: the norm, and the largest change, or None for the smallest.
        seed: of everything random.
        on: the executor of the attacks, this process by default; the bits are the same.
        stamp: the provenance.

    Raises:
        UserError: when the images don't fit the model, it has no gradients, a class doesn't exist,
            an image has no target class left, or nothing could be attacked.
    """
    require_images(pixels, model.input_shape)
    if attack is None and threat.norm.name not in _ENSEMBLES:
        raise UserError(
            f"a grid knows no {threat.norm.name}",
            got=str(threat),
            do=f"take {' or '.join(_ENSEMBLES)}, or give an attack",
        )
    if model.module is None:
        raise UserError(
            "a grid of images by classes needs gradients",
            got=f"{model.name}, which gives logits alone",
            do="audit it with a black-box attack: unmask fool audit",
        )
    class_names = model.class_names or _numbered(model, pixels)
    victim = model.fresh(len(class_names))
    victim.look(pixels)
    logits = victim.logits(pixels)
    predicted = logits.argmax(1)
    labels = predicted if labels is None else labels
    rows, goal = _pairs(labels, class_names, targets)
    begun = time.perf_counter()
    threads = torch.get_num_threads()
    shared = _Shared(
        victim, pixels.numpy(), len(class_names), threat, attack or best_attack, seed, threads
    )
    found, cost, failures = _changed(on or LocalExecutor(), shared, rows, goal)
    seconds = time.perf_counter() - begun
    outcome = judge(victim, pixels[rows], found, goal, threat)
    assert goal.targets is not None
    return Grid(
        title=title,
        class_names=class_names,
        originals=pixels.numpy(),
        names=tuple(names),
        labels=labels.numpy(),
        predicted=predicted.numpy(),
        confidence=logits.double().softmax(1).amax(1).numpy(),
        rows=rows.numpy(),
        targets=goal.targets.numpy(),
        changed=saved(found.pixels).numpy(),
        outcome=outcome,
        mode=mode,
        threat=threat,
        cost=cost,
        seconds=seconds,
        stamp=stamp,
        failures=tuple(failures),
    )


def _changed(
    on: Executor, shared: _Shared, rows: Tensor, goal: Goal
) -> tuple[Adversarials, Cost, list[str]]:
    """Return the pairs attacked, in order, their cost, and a line for each shard that failed."""
    assert goal.targets is not None
    columns = (rows.numpy(), goal.labels.numpy(), goal.targets.numpy())
    shards = [slice(start, start + _TOGETHER) for start in range(0, len(rows), _TOGETHER)]
    pixels = torch.from_numpy(shared.pixels)[rows]
    steps = torch.zeros(len(rows), dtype=torch.int64)
    forwards, backwards, errors = 0, 0, {}
    tasks = (_Pairs(*(column[part] for column in columns)) for part in shards)
    for done in on.run(_attacked, shared, tasks):
        part = shards[done.index]
        if done.result is None:
            errors[done.index] = (
                f"pairs {part.start + 1} to {min(part.stop, len(rows))}: {done.error}"
            )
            continue
        pixels[part] = torch.tensor(done.result.pixels)
        steps[part] = torch.tensor(done.result.steps)
        forwards += done.result.cost.forwards
        backwards += done.result.cost.backwards
    failures = [errors[index] for index in sorted(errors)]
    if len(failures) == len(shards):
        raise UserError("no image could be attacked", got=failures[0], do="see what it says")
    return Adversarials(pixels, steps), Cost(forwards, backwards), failures


def class_index(name: str, class_names: Sequence[str]) -> int:
    """Return the index of a class by its name.

    Args:
        name: of the class.
        class_names: of all classes.

    Raises:
        UserError: when there is no class of that name.
    """
    if name not in class_names:
        raise unknown("class", name, class_names)
    return list(class_names).index(name)


def _numbered(model: Victim, pixels: Tensor) -> tuple[str, ...]:
    """Return the numbers of a model's classes, as names."""
    return tuple(str(k) for k in range(model.fresh().logits(pixels[:1]).shape[1]))


def _pairs(
    labels: Tensor, class_names: Sequence[str], targets: Sequence[str]
) -> tuple[Tensor, Goal]:
    rows, goal = every_target(labels, len(class_names))
    if not targets:
        return rows, goal
    wanted = torch.tensor([class_index(name, class_names) for name in targets])
    assert goal.targets is not None
    chosen = torch.isin(goal.targets, wanted)
    lost = sorted(set(range(len(labels))) - set(rows[chosen].tolist()))
    if lost:
        own = class_names[int(labels[lost[0]])]
        raise UserError(
            "the class to pass for is the image's own",
            got=f"{own} for image {lost[0] + 1}",
            do="choose another class",
        )
    return rows[chosen], goal[chosen]
