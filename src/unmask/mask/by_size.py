"""What a classifier makes of annotated faces, by how large they are."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unmask.mask.metrics import SIZES, size_name
from unmask.stats import wilson


@dataclass(frozen=True, eq=False)
class SizeRow:
    """The faces of one size. faces and right: int64[k], all and those judged right, by class."""

    name: str
    faces: NDArray[np.int64]
    right: NDArray[np.int64]

    @property
    def accuracy(self) -> float:
        """The part of the faces that is judged right, NaN without any."""
        return float(self.right.sum() / self.faces.sum()) if self.faces.any() else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % confidence interval of the accuracy (Wilson, 1927)."""
        return wilson(int(self.right.sum()), int(self.faces.sum()))

    @property
    def recall_intervals(self) -> list[tuple[float, float]]:
        """The 95 % confidence interval of each class's recall (Wilson, 1927)."""
        pairs = zip(self.right.tolist(), self.faces.tolist(), strict=True)
        return [wilson(right, faces) for right, faces in pairs]

    def as_dict(self) -> dict[str, Any]:
        """Return counts, proportions and their 95 % intervals as plain values, None without any."""
        parts = zip(self.right.tolist(), self.faces.tolist(), strict=True)
        return {
            "name": self.name,
            "faces": self.faces.tolist(),
            "right": self.right.tolist(),
            "accuracy": self.accuracy if self.faces.any() else None,
            "accuracy_interval_95": list(self.interval),
            "recall": [right / faces if faces else None for right, faces in parts],
            "recall_intervals_95": [list(pair) for pair in self.recall_intervals],
        }


def by_size(
    sides: NDArray[np.float64], kinds: NDArray[np.int64], right: NDArray[np.bool_], classes: int
) -> tuple[SizeRow, ...]:
    """Return a row for each of metrics.SIZES and one for all faces, last.

    sides: float64[n], in pixels of the picture. kinds: int64[n], the annotated class of each face,
    0 to classes - 1, which may be finer than the classes that are told apart. right: bool[n].
    """

    def row(name: str, inside: NDArray[np.bool_]) -> SizeRow:
        faces, own = (
            np.bincount(kinds[chosen], minlength=classes).astype(np.int64)
            for chosen in (inside, inside & right)
        )
        return SizeRow(name, faces, own)

    ranges = [
        row(size_name(least, below), (sides >= least) & (sides < below))
        for least, below in pairwise(SIZES)
    ]
    return (*ranges, row("all sizes", np.ones(len(sides), bool)))
