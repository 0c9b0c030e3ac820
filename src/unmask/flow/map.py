"""The trainability map: the depths that train from each initialisation, measured and predicted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unmask.data.images import Images
from unmask.errors import MAX_SEED, UserError, require_whole
from unmask.execution.executor import Executor
from unmask.flow.theory import critical_sigma_w2, phase
from unmask.models.activations import activation
from unmask.sweep.meter import SweepProgress
from unmask.sweep.shards import Scores, train_in_shards
from unmask.sweep.spec import NetSpec

TEST_IMAGES = 2000
MAX_SIGMA = 1e6


@dataclass(frozen=True)
class MapPlan:
    """The grid of a map, and the training of its nets by plain SGD.

    Args:
        activation: of the hidden layers.
        sigma_b2: the variance of a bias.
        sigma_w2_low: the least sigma_w2, by default a third of the critical value.
        sigma_w2_high: the largest, by default 2.3 times the critical value.
        deepest: the largest depth; the least is 2.
        columns: values of sigma_w2.
        rows: values of depth.
        width: of the hidden layers.
        learning_rate: of SGD.
        steps: mini-batches that every net trains on.
        batch_size: images of a mini-batch.
        seed: of the nets.

    Raises:
        UserError: for values out of range.
    """

    activation: str = "tanh"
    sigma_b2: float = 0.05
    sigma_w2_low: float | None = None
    sigma_w2_high: float | None = None
    deepest: int = 100
    columns: int = 36
    rows: int = 25
    width: int = 64
    learning_rate: float = 0.01
    steps: int = 300
    batch_size: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        activation(self.activation)
        for name, low, high in (
            ("columns", 2, 1000),
            ("rows", 2, 1000),
            ("steps", 1, 1875),
            ("deepest", 3, 1000),
        ):
            require_whole(f"{name} of a map", getattr(self, name), low, high)
        require_whole("seed", self.seed, 0, MAX_SEED)
        least, largest = self.sigma_w2_range()
        if not 0 < least < largest <= MAX_SIGMA:
            raise UserError(
                f"the map needs sigma_w2 from above 0 to a larger one, {MAX_SIGMA:g} at most",
                got=f"{least:g} to {largest:g}",
            )
        nets = self.specs()
        for end in (0, len(nets) - 1):
            nets[end]

    def sigma_w2_range(self) -> tuple[float, float]:
        """Return the least and the largest sigma_w2 of the map."""
        # Where the activation has no critical point, the middle is He's 2.
        middle = critical_sigma_w2(self.activation, self.sigma_b2) or 2.0
        low, high = self.sigma_w2_low, self.sigma_w2_high
        return (middle / 3 if low is None else low, 2.3 * middle if high is None else high)

    def sigma_w2(self) -> NDArray[np.float64]:
        """Return the columns' values, float64[columns]."""
        return np.linspace(*self.sigma_w2_range(), self.columns)

    def depths(self) -> NDArray[np.int64]:
        """Return the rows' values, int64[rows or fewer], distinct and increasing."""
        return np.unique(np.linspace(2, self.deepest, self.rows).round().astype(np.int64))

    def specs(self) -> MapNets:
        """Return the nets by depth, then sigma_w2."""
        return MapNets(self, self.depths(), self.sigma_w2())


@dataclass(frozen=True, eq=False)
class MapNets:
    """The nets of a map, each made when it is needed."""

    plan: MapPlan
    depths: NDArray[np.int64]
    sigma_w2: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.depths) * len(self.sigma_w2)

    def __getitem__(self, index: int, /) -> NetSpec:
        row, column = divmod(range(len(self))[index], len(self.sigma_w2))
        plan = self.plan
        return NetSpec(
            depth=int(self.depths[row]),
            width=plan.width,
            activation=plan.activation,
            init="mean_field",
            sigma_w2=float(self.sigma_w2[column]),
            sigma_b2=plan.sigma_b2,
            learning_rate=plan.learning_rate,
            batch_size=plan.batch_size,
            epochs=1,
            seed=plan.seed,
        )


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
