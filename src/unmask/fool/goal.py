"""What an attack is to make a classifier say."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unmask.errors import UserError


@dataclass(frozen=True)
class Goal:
    """The true classes of n images, int64[n], and those to be said instead, int64[n].

    targets None asks for any class but the true one. Raises UserError when a target is the true
    class.
    """

    labels: Tensor
    targets: Tensor | None = None

    def __post_init__(self) -> None:
        if self.targets is None:
            return
        if self.targets.shape != self.labels.shape:
            raise ValueError(f"{len(self.labels)} labels, {len(self.targets)} targets")
        same = (self.targets == self.labels).nonzero().flatten()
        if len(same):
            raise UserError(
                "the class to pass for is the true class",
                got=f"class {int(self.targets[same[0]])} for image {int(same[0])}",
                do="choose another class",
            )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: slice | Tensor) -> Goal:
        return Goal(self.labels[rows], None if self.targets is None else self.targets[rows])

    def reached(self, logits: Tensor) -> Tensor:
        """Return bool[n]: whether the predicted class is the goal.

        Logits that aren't finite are no prediction: they miss any target, and where any wrong
        answer counts they are one.
        """
        predicted, finite = logits.argmax(1), logits.isfinite().all(1)
        if self.targets is None:
            return (predicted != self.labels) | ~finite
        return (predicted == self.targets) & finite

    def margin(self, logits: Tensor) -> Tensor:
        """Return float[n]: by how much the logits miss the goal; below 0 where it is reached.

        Targeted, the largest other logit less the target's; untargeted, the true class's less the
        largest other (Carlini and Wagner, 2017).
        """
        wanted = self.labels if self.targets is None else self.targets
        own = logits.gather(1, wanted[:, None]).squeeze(1)
        others = logits.scatter(1, wanted[:, None], float("-inf")).amax(1)
        return own - others if self.targets is None else others - own


def every_target(labels: Tensor, classes: int) -> tuple[Tensor, Goal]:
    """Return all pairs of an image and a class that isn't its own.

    labels: int64[n]. Returns the row of the image, int64[n * (classes - 1)], image by image
    with the classes ascending, and the goal of each pair.
    """
    rows = torch.arange(len(labels)).repeat_interleave(classes)
    targets = torch.arange(classes).repeat(len(labels))
    apart = targets != labels.cpu()[rows]
    rows, targets = rows[apart].to(labels.device), targets[apart].to(labels.device)
    return rows, Goal(labels[rows], targets)
