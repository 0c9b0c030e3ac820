"""Classifiers whose smallest change is known in closed form, far from where pixels are clipped."""

from __future__ import annotations

import torch
from torch import Tensor

from unmask.fool.goal import Goal
from unmask.fool.norms import Norm
from unmask.fool.victim import Victim

SHAPE = (1, 4, 4)


class Linear:
    """Logits weights (x - 1/2) of images whose every pixel is within 0.1 of 1/2."""

    def __init__(self, classes: int, pictures: int = 24, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.weights = torch.randn((classes, 16), generator=generator)
        self.pixels = 0.4 + 0.2 * torch.rand((pictures, *SHAPE), generator=generator)
        self.labels = self(self.pixels).argmax(1)

    def __call__(self, pixels: Tensor) -> Tensor:
        return (pixels - 0.5).flatten(1) @ self.weights.T

    def victim(self, **settings: object) -> Victim:
        return Victim(self, classes=len(self.weights), **settings)

    def untargeted(self) -> Goal:
        return Goal(self.labels)

    def targeted(self) -> Goal:
        """The other class of two."""
        assert len(self.weights) == 2
        return Goal(self.labels, 1 - self.labels)

    def smallest(self, norm: Norm) -> Tensor:
        """The size of the smallest change to any other class, float64[n].

        The plane between two classes is as far away as the difference of their logits over the dual
        norm of the difference of their weights.
        """
        logits, weights = self(self.pixels).double(), self.weights.double()
        own = logits.gather(1, self.labels[:, None])
        apart = weights[self.labels][:, None] - weights
        order = {"l2": 2, "linf": 1}[norm.name]
        away = (own - logits) / torch.linalg.vector_norm(apart, ord=order, dim=2)
        return away.scatter(1, self.labels[:, None], float("inf")).amin(1)
