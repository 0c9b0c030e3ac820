"""Pictures by classes: each picture changed until the classifier says each other class."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unmask.errors import UserError, unknown
from unmask.fool.audit.subject import Subject
from unmask.fool.generator.attack import generator_attack
from unmask.fool.goal import Goal, every_target
from unmask.fool.norms import Threat
from unmask.fool.outcome import Outcome, judge, saved
from unmask.fool.pictures import require_pictures
from unmask.fool.victim import Cost


@dataclass(frozen=True, eq=False)
class Grid:
    """n pictures, and m of them changed to pass for another class.

    originals: float32[n, c, h, w] in [0, 1]. names, labels [n]: what they are called and are. said,
    certainty [n]: what the classifier says of them unchanged. rows, targets [m]: which picture was
    to pass for which class. changed: float32[m, c, h, w], on values k / 255, as they are saved.
    outcome: what is true of them, each array [m]. cost and seconds are those of the attack.
    """

    title: str
    class_names: tuple[str, ...]
    originals: NDArray[np.float32]
    names: tuple[str, ...]
    labels: NDArray[np.int64]
    said: NDArray[np.int64]
    certainty: NDArray[np.float64]
    rows: NDArray[np.int64]
    targets: NDArray[np.int64]
    changed: NDArray[np.float32]
    outcome: Outcome
    mode: str
    threat: Threat
    cost: Cost
    seconds: float
    stamp: dict[str, Any]

    @property
    def misjudged(self) -> NDArray[np.int64]:
        """The pictures that the classifier takes for another class before any change."""
        return np.flatnonzero(self.said != self.labels)

    def as_dict(self) -> dict[str, Any]:
        """Return all but the pictures themselves as plain values."""
        pictures = zip(self.names, self.labels, self.said, self.certainty, strict=True)
        outcome = {name: np.asarray(values) for name, values in vars(self.outcome).items()}
        pairs = [
            {
                "picture": self.names[row],
                "target": self.class_names[target],
                **{name: values[i].item() for name, values in outcome.items()},
                "said": self.class_names[self.outcome.said[i]],
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
                    "said": self.class_names[said],
                    "certainty": float(sure),
                }
                for name, label, said, sure in pictures
            ],
            "pairs": pairs,
            "cost": asdict(self.cost),
            "seconds": self.seconds,
            "stamp": self.stamp,
        }


def fool_grid(
    subject: Subject,
    pixels: Tensor,
    labels: Tensor | None,
    *,
    names: Sequence[str],
    title: str,
    targets: Sequence[str] = (),
    mode: str = "fast",
    threat: Threat,
    seed: int = 0,
    stamp: dict[str, Any],
) -> Grid:
    """Change each picture by the generator attack until the model says each other class.

    pixels: float32[n, c, h, w] in [0, 1]. labels: int64[n], what the model says where None.
    targets: the names of the classes to pass for, all by default; a picture's own is left out.
    Raises UserError when the pictures don't fit the model, it has no gradients, a class doesn't
    exist, or a picture has no class left to pass for.
    """
    require_pictures(pixels, subject.input_shape)
    if subject.module is None:
        raise UserError(
            "the generator attack needs gradients",
            got=f"{subject.name}, which gives logits alone",
            do="audit it with a black-box attack: unmask fool audit",
        )
    class_names = subject.class_names or _numbered(subject, pixels)
    victim = subject.victim(len(class_names))
    logits = victim.logits(pixels)
    said = logits.argmax(1)
    labels = said if labels is None else labels
    rows, goal = _pairs(labels, class_names, targets)
    before, begun = victim.cost, time.perf_counter()
    found = generator_attack(
        victim,
        pixels[rows],
        goal,
        threat,
        generator=torch.Generator().manual_seed(seed),
        mode=mode,
    )
    cost, seconds = victim.cost - before, time.perf_counter() - begun
    outcome = judge(victim, pixels[rows], found, goal, threat)
    assert goal.targets is not None
    return Grid(
        title=title,
        class_names=class_names,
        originals=pixels.numpy(),
        names=tuple(names),
        labels=labels.numpy(),
        said=said.numpy(),
        certainty=logits.double().softmax(1).amax(1).numpy(),
        rows=rows.numpy(),
        targets=goal.targets.numpy(),
        changed=saved(found.pixels).numpy(),
        outcome=outcome,
        mode=mode,
        threat=threat,
        cost=cost,
        seconds=seconds,
        stamp=stamp,
    )


def class_index(name: str, class_names: Sequence[str]) -> int:
    """Return the index of the class of that name. Raises UserError when there is none."""
    if name not in class_names:
        raise unknown("class", name, class_names)
    return list(class_names).index(name)


def _numbered(subject: Subject, pixels: Tensor) -> tuple[str, ...]:
    """Return names for the classes of a model that has none for them."""
    with torch.no_grad():
        answer = subject.function(pixels[:1])
    if not isinstance(answer, Tensor) or answer.ndim != 2 or answer.shape[1] < 2:
        shape = list(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
        raise UserError(
            "the model must return logits, one for each class",
            got=shape,
            do="wrap it in a module that returns a tensor [pictures, classes]",
        )
    return tuple(str(k) for k in range(answer.shape[1]))


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
            "the class to pass for is the picture's own",
            got=f"{own} for picture {lost[0] + 1}",
            do="choose another class",
        )
    return rows[chosen], goal[chosen]
