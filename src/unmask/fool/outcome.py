"""The images that an attack returns, and their evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from unmask.fool.goal import Goal
from unmask.fool.norms import NORMS, Threat
from unmask.fool.victim import Victim

_WINDOW, _SIGMA = 11, 1.5
_K1, _K2 = 0.01, 0.03
_PICTURES = 512


@dataclass(frozen=True)
class Adversarials:
    """The images that an attack returns.

    Only the images count; judge measures everything else from them.

    Args:
        pixels: float32[n, c, h, w] in [0, 1]; the last try or the image itself where the attack
            failed.
        steps: that each image took, int64[n].
    """

    pixels: Tensor
    steps: Tensor


@dataclass(frozen=True)
class Outcome:
    """The evaluation of n images that an attack returned, each array [n].

    Args:
        predicted: the predicted class, -1 where the logits aren't finite.
        reached: whether it is the goal and the change is within the threat.
        reached_saved: the same for the image rounded to 8 bits, whose change may be larger by what
            the rounding adds.
        size: of the change in the threat's norm.
        confidence: of the prediction, in [0, 1].
        l2: the size of the change in L2.
        linf: the size of the change in Linf.
        similarity: the SSIM with the original, at most 1.
        steps: that the attack took.
    """

    predicted: NDArray[np.int64]
    reached: NDArray[np.bool_]
    reached_saved: NDArray[np.bool_]
    size: NDArray[np.float64]
    confidence: NDArray[np.float64]
    l2: NDArray[np.float64]
    linf: NDArray[np.float64]
    similarity: NDArray[np.float64]
    steps: NDArray[np.int64]


def saved(pixels: Tensor) -> Tensor:
    """Return pixels as an 8-bit image stores them, still float32 in [0, 1]."""
    return (pixels * 255).round().clamp(0, 255) / 255


def predicted(logits: Tensor) -> Tensor:
    """Return the predicted classes, int64[n]; -1 where the logits aren't finite."""
    return torch.where(logits.isfinite().all(1), logits.argmax(1), -1)


def judge(
    victim: Victim, originals: Tensor, found: Adversarials, goal: Goal, threat: Threat
) -> Outcome:
    """Evaluate what an attack returned, from the images alone.

    The forward passes count towards the victim's cost.

    Args:
        victim: the classifier.
        originals: the images before the attack, float32[n, c, h, w] in [0, 1].
        found: what the attack returned. Images are clipped to [0, 1] first; one that holds NaN or
            infinity has not reached its goal.
        goal: of each image.
        threat: which changes are allowed.
    """
    unharmed = found.pixels.flatten(1).isfinite().all(1)
    pixels = torch.where(_wide(unharmed), found.pixels, originals).clamp(0, 1)
    change = (pixels - originals).double()
    logits = victim.logits(pixels)
    rounded = saved(pixels)
    # The saved image may be further away by what rounding adds, but no more.
    slack = threat.norm.size((rounded - pixels).double())
    within = unharmed & threat.allows(change)
    within_saved = unharmed & threat.allows((rounded - originals).double(), slack)
    return Outcome(
        predicted=_array(predicted(logits)),
        reached=_array(goal.reached(logits) & within),
        reached_saved=_array(goal.reached(victim.logits(rounded)) & within_saved),
        size=_array(threat.norm.size(change)),
        confidence=_array(logits.double().softmax(1).amax(1)),
        l2=_array(NORMS["l2"].size(change)),
        linf=_array(NORMS["linf"].size(change)),
        similarity=_array(ssim(originals, pixels)),
        steps=_array(found.steps),
    )


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Return the mean structural similarity of pairs of images, float64[n], at most 1.

    A Gaussian window of sigma 1.5 and 11 x 11 pixels, or as large as the image allows, is placed
    wherever it fits whole; the result is the mean over the places and the channels (Wang et al.,
    2004).

    Args:
        a: float[n, c, h, w] in [0, 1].
        b: likewise.
    """
    side = min(_WINDOW, *a.shape[-2:])
    at = torch.arange(side, dtype=torch.float64, device=a.device) - (side - 1) / 2
    window = torch.exp(-(at**2) / (2 * _SIGMA**2))
    window = window / window.sum()
    a, b = a.double(), b.double()
    parts = zip(torch.split(a, _PICTURES), torch.split(b, _PICTURES), strict=True)
    return torch.cat([_similarity(x, y, window) for x, y in parts])


def _similarity(a: Tensor, b: Tensor, window: Tensor) -> Tensor:
    n, c, h, w = a.shape
    moments = torch.stack([a, b, a * a, b * b, a * b]).reshape(-1, 1, h, w)
    smooth = functional.conv2d(moments, window[None, None, :, None])
    smooth = functional.conv2d(smooth, window[None, None, None, :])
    mean_a, mean_b, aa, bb, ab = smooth.reshape(5, n, c * smooth.shape[2] * smooth.shape[3])
    c1, c2 = _K1**2, _K2**2
    likeness = (2 * mean_a * mean_b + c1) * (2 * (ab - mean_a * mean_b) + c2)
    scale = (mean_a**2 + mean_b**2 + c1) * (aa - mean_a**2 + bb - mean_b**2 + c2)
    similarity: Tensor = (likeness / scale).mean(1)
    return similarity


def _wide(rows: Tensor) -> Tensor:
    return rows[:, None, None, None]


def _array(values: Tensor) -> NDArray[Any]:
    found: NDArray[Any] = values.detach().cpu().numpy()
    return found
