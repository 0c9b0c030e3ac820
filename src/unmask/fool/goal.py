"""The prediction that an attack is to cause."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unmask.errors import UserError


@dataclass(frozen=True)
class Goal:
    """The true classes of n images, and the target classes.

    Args:
        labels: the true classes, int64[n].
        targets: the classes to be predicted, int64[n]; None for any class but the true one.

    Raises:
        UserError: when a target is the true class.
        ValueError: when there are more or fewer targets than labels.
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
        """Return whether the prediction for each image is the goal, bool[n].

        Logits that aren't finite are no prediction: they reach no target, but count as a wrong
        prediction where any will do.

        Args:
            logits: float[n, classes].
        """
        predicted, finite = logits.argmax(1), logits.isfinite().all(1)
        if self.targets is None:
            return (predicted != self.labels) | ~finite
        return (predicted == self.targets) & finite

    def margin(self, logits: Tensor) -> Tensor:
        """Return by how much the logits miss the goal, float[n]; below 0 where it is reached.

        Targeted, it is the largest other logit less the target's; untargeted, the true class's less
        the largest other (Carlini and Wagner, 2017).

        Args:
            logits: float[n, classes].
        """
        wanted = self.labels if self.targets is None else self.targets
        own = logits.gather(1, wanted[:, None]).squeeze(1)
        others = logits.scatter(1, wanted[:, None], float("-inf")).amax(1)
        return own - others if self.targets is None else others - own


def every_target(labels: Tensor, classes: int) -> tuple[Tensor, Goal]:
    """Return all pairs of an image and a class other than its own.

    Args:
        labels: the true classes, int64[n], in [0, classes).
        classes: the number of classes.

    Returns:
        The row of the image of each pair, int64[n * (classes - 1)], image by image with the classes
        ascending, and the goal of each pair.
    """
    rows = torch.arange(len(labels)).repeat_interleave(classes)
    targets = torch.arange(classes).repeat(len(labels))
    apart = targets != labels.cpu()[rows]
    rows, targets = rows[apart].to(labels.device), targets[apart].to(labels.device)
    return rows, Goal(labels[rows], targets)
