"""What searches for adversarials share: the best found so far, and the fall of a step size."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from unmask.fool.norms import Threat
from unmask.fool.outcome import Adversarials


class Found:
    """The nearest pictures found so far that reach their goals; where none is, the originals.

    Every picture that an attack shows to its victim is offered here, so that no success on the way
    is lost.
    """

    def __init__(self, originals: Tensor, threat: Threat) -> None:
        self.threat = threat
        self.originals = originals
        self.pixels = originals.clone()
        self.size = torch.full((len(originals),), math.inf, device=originals.device)
        self.steps = torch.zeros(len(originals), dtype=torch.int64, device=originals.device)
        self.sought = torch.ones_like(self.steps, dtype=torch.bool)

    def offer(self, rows: Tensor, tries: Tensor, reached: Tensor) -> Tensor:
        """Keep the tries that reached their goals by the smallest change yet.

        rows: int64[k], which pictures were tried; tries: float32[k, c, h, w]; reached: bool[k].
        Returns bool[k]: which are still to be sought. Those within a given eps are done.
        """
        self.steps[rows] += 1
        change = tries - self.originals[rows]
        size = self.threat.norm.size(change)
        nearer = reached & (size < self.size[rows])
        self.pixels[rows[nearer]] = tries[nearer]
        self.size[rows[nearer]] = size[nearer]
        if self.threat.eps is not None:
            self.sought[rows] &= ~(reached & self.threat.allows(change))
        return self.sought[rows]

    def open(self) -> Tensor:
        """Return int64[k]: the pictures still to be sought."""
        return self.sought.nonzero().flatten()

    def adversarials(self) -> Adversarials:
        """Return what was found, for the judge."""
        return Adversarials(self.pixels, self.steps)


def cosine(first: float, last: float, step: int, steps: int) -> float:
    """Return a value that falls from first to last by half a wave of the cosine over steps."""
    return last + (first - last) * (1 + math.cos(math.pi * step / steps)) / 2
