"""A classifier under attack, with every picture it judges counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from unmask.fool.goal import Goal

Loss = Callable[[Tensor, Goal], Tensor]
"""Logits float[b, classes] and their goal to one value a picture, float[b], small when reached."""


@dataclass(frozen=True)
class Cost:
    """How many pictures went forwards through a classifier, and how many backwards."""

    forwards: int = 0
    backwards: int = 0

    def __sub__(self, other: Cost) -> Cost:
        return Cost(self.forwards - other.forwards, self.backwards - other.backwards)


class Victim:
    """A function from pixels in [0, 1], float32[b, c, h, w], to logits, float[b, classes].

    At most batch pictures go through it at a time, which bounds memory whatever an attack asks
    for. It is used as it is: nothing here switches its mode or freezes it. differentiable says
    whether gradients can be had; a black box gives logits alone. device is where pixels must be.
    """

    def __init__(
        self,
        function: Callable[[Tensor], Tensor],
        *,
        classes: int,
        batch: int = 64,
        differentiable: bool = True,
        device: torch.device | str = "cpu",
    ) -> None:
        self.function = function
        self.classes = classes
        self.batch = batch
        self.differentiable = differentiable
        self.device = torch.device(device)
        self._forwards = 0
        self._backwards = 0

    @property
    def cost(self) -> Cost:
        """What has been asked of it so far."""
        return Cost(self._forwards, self._backwards)

    def logits(self, pixels: Tensor) -> Tensor:
        """Return logits float32[n, classes] of pixels float32[n, c, h, w], without a graph."""
        self._forwards += len(pixels)
        with torch.no_grad():
            parts = [self.function(part).float() for part in torch.split(pixels, self.batch)]
        return torch.cat(parts) if parts else torch.empty(0, self.classes, device=self.device)

    def gradient(self, pixels: Tensor, goal: Goal, loss: Loss) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits [n, classes], the loss [n] and its gradient by the pixels [n, c, h, w].

        Raises AssertionError for a black box: an attack that needs gradients isn't run on one.
        """
        assert self.differentiable, "a black box has no gradients"
        self._forwards += len(pixels)
        self._backwards += len(pixels)
        found = []
        for start in range(0, len(pixels), self.batch):
            rows = slice(start, start + self.batch)
            part = pixels[rows].detach().requires_grad_()
            with torch.enable_grad():
                logits = self.function(part).float()
                values = loss(logits, goal[rows])
                if values.requires_grad:
                    (gradient,) = torch.autograd.grad(values.sum(), part, allow_unused=True)
                else:
                    gradient = None
            if gradient is None:
                gradient = torch.zeros_like(part)
            found.append((logits.detach(), values.detach(), gradient))
        if not found:
            empty = pixels.new_empty(0)
            return pixels.new_empty(0, self.classes), empty, torch.empty_like(pixels)
        said, losses, gradients = (list(column) for column in zip(*found, strict=True))
        return torch.cat(said), torch.cat(losses), torch.cat(gradients)


def cross_entropy(logits: Tensor, goal: Goal) -> Tensor:
    """Return the cross-entropy of the target, or less that of the true class when untargeted."""
    if goal.targets is None:
        return -torch.nn.functional.cross_entropy(logits, goal.labels, reduction="none")
    return torch.nn.functional.cross_entropy(logits, goal.targets, reduction="none")


def margin(logits: Tensor, goal: Goal) -> Tensor:
    """Return by how much the goal is missed, in logits; see Goal.margin."""
    return goal.margin(logits)
