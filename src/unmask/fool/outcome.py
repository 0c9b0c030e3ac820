"""What an attack gave back, and what is true of it when judged afresh."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unmask.fool.goal import Goal
from unmask.fool.norms import NORMS, Threat
from unmask.fool.ssim import ssim
from unmask.fool.victim import Victim


@dataclass(frozen=True)
class Adversarials:
    """The pictures an attack gives back, float32[n, c, h, w], and its steps for each, int64[n].

    Where it failed, it gives back its last try or the picture itself. Nothing else that an attack
    says is believed: see judge.
    """

    pixels: Tensor
    steps: Tensor


@dataclass(frozen=True)
class Outcome:
    """What is true of n pictures that an attack gave back, each array [n].

    said: the class the classifier says. reached: whether that is the goal and the change is within
    the threat. reached_saved: the same of the picture rounded to 8 bits, where half a step of 1/255
    a value is forgiven its size. certainty: the probability of the class said. l2, linf: the size
    of the change. similarity: SSIM with the original.
    """

    said: NDArray[np.int64]
    reached: NDArray[np.bool_]
    reached_saved: NDArray[np.bool_]
    certainty: NDArray[np.float64]
    l2: NDArray[np.float64]
    linf: NDArray[np.float64]
    similarity: NDArray[np.float64]
    steps: NDArray[np.int64]


def saved(pixels: Tensor) -> Tensor:
    """Return pixels as an 8-bit picture holds them, still float32 in [0, 1]."""
    return (pixels * 255).round().clamp(0, 255) / 255


def judge(
    victim: Victim, originals: Tensor, found: Adversarials, goal: Goal, threat: Threat
) -> Outcome:
    """Judge what an attack gave back, by the pictures alone.

    Pictures are clipped to [0, 1] first; one that holds NaN has not reached its goal. The forwards
    needed count as the victim's cost like any others.
    """
    unharmed = found.pixels.flatten(1).isfinite().all(1)
    pixels = torch.where(_wide(unharmed), found.pixels, originals).clamp(0, 1)
    change = (pixels - originals).double()
    logits = victim.logits(pixels)
    rounded = saved(pixels)
    # The saved picture may be further away by what rounding adds, and by no more.
    slack = threat.norm.size((rounded - pixels).double())
    within = unharmed & threat.allows(change)
    within_saved = unharmed & threat.allows((rounded - originals).double(), slack)
    return Outcome(
        said=_array(logits.argmax(1)),
        reached=_array(goal.reached(logits) & within),
        reached_saved=_array(goal.reached(victim.logits(rounded)) & within_saved),
        certainty=_array(logits.double().softmax(1).amax(1)),
        l2=_array(NORMS["l2"].size(change)),
        linf=_array(NORMS["linf"].size(change)),
        similarity=_array(ssim(originals, pixels)),
        steps=_array(found.steps),
    )


def _wide(rows: Tensor) -> Tensor:
    return rows[:, None, None, None]


def _array(values: Tensor) -> NDArray[Any]:
    found: NDArray[Any] = values.detach().cpu().numpy()
    return found
