"""The common state of a check's questions: the model, the images, and the measurements so far."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from unmask.data.images import Images
from unmask.data.sources import Source
from unmask.shift.scores import Scores
from unmask.shift.target import Target
from unmask.verdict import Verdict

Answer = tuple[dict[str, float], list[Verdict]]


class Skipped(Exception):  # noqa: N818
    """A question that can't be asked, with the reason."""


def beyond_chance(classes: int) -> float:
    """Return the accuracy above which a model has learnt something beyond doubt.

    Args:
        classes: how many there are. Twice the accuracy of a guess would be all of two.
    """
    guess = 1 / classes
    return min(2 * guess, (1 + guess) / 2)


@dataclass
class Subject:
    """The common state of the questions.

    Args:
        target: the model.
        images: labelled, to test with.
        source: all parts of the set, where there are more than one.
        seed: of everything random.
        per_image: seconds of a forward pass, once measured.
        logits: of the images, once measured.
        rows: the place of each of these among all images to test with.
        scores: of these logits.
        eps: the size of the audit's changes, in [0, 1]; None for the usual size.
        deadline: when the check's time is over, by time.perf_counter.
        misfed: whether the model was found to need other preprocessing.
        reordered: whether its outputs were found to be in another order than the classes.
        notes: the limits of the current question.
        tried: the corruptions that it has measured.
    """

    target: Target
    images: Images
    source: Source | Images
    seed: int
    per_image: float = 0.0
    logits: Tensor | None = None
    rows: list[int] = field(default_factory=list)
    scores: Scores | None = None
    eps: float | None = None
    deadline: float = 0.0
    misfed: bool = False
    reordered: bool = False
    notes: list[str] = field(default_factory=list)
    tried: list[str] = field(default_factory=list)

    def pixels(self, images: Images) -> Tensor:
        """Return the images as float32[n, c, h, w] in [0, 1]."""
        return torch.tensor(images.pixels).float() / 255

    def affordable(self, seconds: float, passes: float = 1, least: int = 1) -> int:
        """Return how many images can be passed forward within the seconds.

        Args:
            seconds: the time.
            passes: forward passes of each image.
            least: the fewest images that are enough.

        Raises:
            Skipped: when they are fewer than least.
        """
        count = int(seconds / passes / max(self.per_image, 1e-6))
        if count < least:
            raise Skipped(f"the time left is enough for {count} images, and {least} are the least")
        return count
