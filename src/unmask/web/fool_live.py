"""An attack with every image that it queries the classifier with."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unmask.coursework.generator.attack import generator_attack
from unmask.errors import UserError
from unmask.fool.attacks import ATTACKS
from unmask.fool.goal import Goal
from unmask.fool.norms import NORMS, Threat
from unmask.fool.outcome import Adversarials, Outcome, judge, saved
from unmask.fool.refinement import to_eight_bits
from unmask.fool.victim import Victim
from unmask.models.classifier import Classifier

GENERATOR = "generator"
# Attacks with a bound get one, the others seek the smallest change; the cost of each is limited.
_SETTINGS: dict[str, dict[str, Any]] = {
    "ddn": {"steps": 100},
    "fmn": {"steps": 100},
    "cw": {"searches": 4, "steps": 60, "first_weight": 1.0, "rate": 0.05},
    "fgsm": {},
    "pgd": {"steps": 40},
    "square": {"queries": 1000},
}
COMPARED = (GENERATOR, *_SETTINGS)
_MOST_FRAMES = 400
_REPORT_STEPS = 400


@dataclass(frozen=True, eq=False)
class Frame:
    """One image on the way.

    Args:
        pixels: float32[c, h, w] in [0, 1].
        confidence: float64[classes], the softmax output.
    """

    pixels: NDArray[np.float32]
    confidence: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Watched:
    """What an attack did to one image, judged afresh, with the images on its way.

    Args:
        attack: its name in COMPARED.
        threat: the norm, and the largest change or None.
        original: float32[c, h, w] in [0, 1].
        found: float32[c, h, w] on values k / 255.
        confidence: float64[classes], the softmax output of the original.
        found_confidence: float64[classes], that of found.
        outcome: of the one image.
        frames: the images on its way, the first of each query.
        gradients: the number of gradient evaluations.
        seconds: the time that the attack took.
    """

    attack: str
    threat: Threat
    original: NDArray[np.float32]
    found: NDArray[np.float32]
    confidence: NDArray[np.float64]
    found_confidence: NDArray[np.float64]
    outcome: Outcome
    frames: tuple[Frame, ...]
    gradients: int
    seconds: float


def watch(
    classifier: Classifier,
    pixels: NDArray[np.float32],
    target: int,
    *,
    attack: str = GENERATOR,
    mode: str = "fast",
    eps: float = 0.2,
) -> Watched:
    """Attack one image and keep the images that the attack queries on its way.

    Args:
        classifier: the one to fool.
        pixels: float32[c, h, w] in [0, 1].
        target: the target class.
        attack: a name in COMPARED.
        mode: of the generator attack, "fast" or "course-report".
        eps: the largest change in Linf, for attacks with a bound.

    Raises:
        UserError: when the target class is predicted already.
    """
    original = torch.from_numpy(pixels)[None]
    with torch.inference_mode():
        logits = classifier(original)
    best = int(logits.argmax())
    if best == target:
        raise UserError(
            "that class is predicted already",
            got=classifier.class_names[target],
            do="choose another target class",
        )
    frames: list[Frame] = []

    def watched(batch: Tensor) -> Tensor:
        answer: Tensor = classifier(batch)
        if len(batch) and len(frames) < _MOST_FRAMES:
            frames.append(Frame(batch[0].detach().numpy().copy(), _confidence(answer)))
        return answer

    victim = Victim(watched, classes=len(classifier.class_names))
    goal = Goal(torch.tensor([best]), torch.tensor([target]))
    bounded = attack != GENERATOR and ATTACKS[attack].bounded
    threat = Threat(NORMS["linf"], eps) if bounded else Threat(NORMS["l2"])
    begun = time.perf_counter()
    generator = torch.Generator().manual_seed(0)
    if attack == GENERATOR:
        steps = _REPORT_STEPS if mode == "course-report" else None
        found = generator_attack(
            victim, original, goal, threat, generator=generator, mode=mode, steps=steps
        )
    else:
        found = ATTACKS[attack].function(
            victim, original, goal, threat, generator=generator, **_SETTINGS[attack]
        )
    kept = saved(found.pixels)
    if not bounded and attack != GENERATOR:
        # So near the boundary rounding alone can undo it: all get the generator's refinement.
        nearest, good = to_eight_bits(victim, original, found.pixels, goal, threat)
        kept = nearest if bool(good[0]) else kept
    seconds, gradients = time.perf_counter() - begun, victim.cost.backwards
    outcome = judge(
        Victim(classifier, classes=len(classifier.class_names)),
        original,
        Adversarials(kept, found.steps),
        goal,
        threat,
    )
    with torch.inference_mode():
        after = _confidence(classifier(kept))
    return Watched(
        attack,
        threat,
        pixels,
        kept[0].numpy(),
        _confidence(logits),
        after,
        outcome,
        tuple(frames),
        gradients,
        seconds,
    )


def spread_frames(frames: tuple[Frame, ...], most: int) -> Iterator[tuple[int, Frame]]:
    """Yield at most so many frames, evenly spread, numbered from 1; the last one is among them."""
    count = min(most, len(frames))
    for index in np.unique(np.linspace(0, len(frames) - 1, count).round().astype(int)):
        yield int(index) + 1, frames[index]


def _confidence(logits: Tensor) -> NDArray[np.float64]:
    chances: NDArray[np.float64] = logits.detach()[0].double().softmax(0).numpy()
    return chances
