"""The trainability map: the depths that train from each initialisation, measured and predicted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unmask.data.images import Images
from unmask.errors import UserError
from unmask.execution.executor import Executor
from unmask.flow.map_plan import MapPlan
from unmask.flow.theory import critical_sigma_w2, phase
from unmask.sweep.meter import SweepProgress
from unmask.sweep.shards import Scores, train_in_shards

TEST_IMAGES = 2000


@dataclass(frozen=True, eq=False)
class TrainabilityMap:
    """Accuracy over (depth, sigma_w2) beside the theory's trainable depth.

    Args:
        plan: the grid.
        accuracy: on held-out images, float64[depths, sigma_w2], NaN where the net diverged.
        trainable_depth: 6 xi_c, float64[sigma_w2] (Schoenholz et al. 2017).
        critical: the critical sigma_w2, or None.
        chance: the accuracy of predicting the most common class.
        stamp: the provenance.
    """

    plan: MapPlan
    accuracy: NDArray[np.float64]
    trainable_depth: NDArray[np.float64]
    critical: float | None
    chance: float
    stamp: dict[str, Any]

    @staticmethod
    def of(plan: MapPlan, scores: Scores, chance: float) -> TrainabilityMap:
        """Return the map from the scores of the plan's nets."""
        shape = (len(plan.depths()), plan.columns)
        return TrainabilityMap(
            plan=plan,
            accuracy=scores.accuracy.reshape(shape).astype(np.float64),
            trainable_depth=np.array(
                [
                    phase(plan.activation, float(s), plan.sigma_b2).trainable_depth
                    for s in plan.sigma_w2()
                ]
            ),
            critical=critical_sigma_w2(plan.activation, plan.sigma_b2),
            chance=chance,
            stamp={**scores.stamp, "plan": asdict(plan)},
        )

    @property
    def learned(self) -> NDArray[np.bool_]:
        """Return which nets reached twice the accuracy of chance, bool[depths, sigma_w2]."""
        return np.nan_to_num(self.accuracy) >= 2 * self.chance

    @property
    def agreement(self) -> float:
        """Return the fraction of nets on which theory and training agree, in [0, 1]."""
        predicted = self.plan.depths()[:, None] <= self.trainable_depth[None]
        return float(np.mean(predicted == self.learned))


def run_map(
    plan: MapPlan,
    images: tuple[Images, Images],
    *,
    folder: Path | None = None,
    resume: bool = False,
    threads: int | None = None,
    device: str = "cpu",
    on: Executor | None = None,
    progress: Callable[[SweepProgress], None] | None = None,
) -> TrainabilityMap:
    """Train the nets of a map on the first images of images[0] and test them on images[1].

    Args:
        plan: the grid.
        images: to train on and to test with.
        folder: for the scores, see train_in_shards.
        resume: whether scores in the folder are used again.
        threads: see train_in_shards.
        device: see train_in_shards.
        on: the executor, see train_in_shards.
        progress: called as the sweep proceeds.

    Returns:
        The map.

    Raises:
        UserError: when there are too few training images, and as train_in_shards does.
        ShardsInterrupted: at Ctrl-C; finished nets are kept in folder.
    """
    train, test = images
    wanted = plan.steps * plan.batch_size
    if wanted > len(train):
        raise UserError(
            f"{train.name} has {len(train)} training images",
            got=f"{plan.steps} steps of {plan.batch_size}, {wanted} in all",
            do="ask for fewer steps",
        )
    test = test[:TEST_IMAGES]
    scores = train_in_shards(
        plan.specs(),
        train[:wanted],
        test,
        key=asdict(plan),
        folder=folder,
        resume=resume,
        threads=threads,
        device=device,
        on=on,
        progress=progress,
    )
    return TrainabilityMap.of(plan, scores, float(np.bincount(test.labels).max() / len(test)))
