"""The grid of a trainability map: its settings, and the net at each of its points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unmask.errors import MAX_SEED, UserError, require_whole
from unmask.models.activations import activation
from unmask.sweep.spec import NetSpec

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
        from unmask.flow.theory import critical_sigma_w2

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
