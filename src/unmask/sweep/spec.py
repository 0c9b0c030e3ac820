"""The specification of a net of a sweep: its shape, its initialisation and how it is trained."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Protocol

from unmask.errors import MAX_SEED, UserError, plain_numbers, require_whole, unknown
from unmask.models.activations import ACTIVATIONS

INITS = (
    "glorot_uniform",
    "glorot_normal",
    "he_uniform",
    "he_normal",
    "lecun_uniform",
    "lecun_normal",
    "orthogonal",
    "mean_field",
)
LOSSES = ("cross_entropy", "half_squared")
OPTIMIZERS = ("sgd", "momentum", "adam")
MAX_DEPTH, MAX_WIDTH = 1000, 1024


@dataclass(frozen=True)
class NetSpec:
    """A multilayer perceptron and its training, complete except for the data.

    Args:
        depth: hidden layers, 1..1000; a softmax over the classes follows.
        width: hidden width, 1..1024.
        activation: a name in unmask.models.activations.ACTIVATIONS.
        init: a name in INITS. "mean_field" draws weights from N(0, sigma_w2 / fan_in) and biases
            from N(0, sigma_b2); every other leaves biases at zero and takes neither.
        sigma_w2: a variance of 0 or more, for "mean_field" alone.
        sigma_b2: likewise.
        loss: "cross_entropy", or "half_squared", 1/2 sum (T - y)^2 on the softmax outputs y; both
            are means over the mini-batch.
        optimizer: "sgd", "momentum" (0.9) or "adam" (betas 0.9 and 0.999, epsilon 1e-8).
        learning_rate: above 0.
        batch_size: images a step, 1..2^20.
        epochs: 0..2^20.
        seed: of the weights and of the order of the images.

    Raises:
        UserError: a value is out of its range.

    Example:
        >>> unmask.NetSpec(depth=3, activation="relu").width
        32
    """

    depth: int
    width: int = 32
    activation: str = "tanh"
    init: str = "glorot_uniform"
    sigma_w2: float | None = None
    sigma_b2: float | None = None
    loss: str = "cross_entropy"
    optimizer: str = "sgd"
    learning_rate: float = 0.01
    batch_size: int = 32
    epochs: int = 40
    seed: int = 0

    def __post_init__(self) -> None:
        plain_numbers(self)
        require_whole("depth", self.depth, 1, MAX_DEPTH, "hidden layers")
        require_whole("width", self.width, 1, MAX_WIDTH, "units a hidden layer")
        require_whole("batch size", self.batch_size, 1, 1 << 20, "images")
        require_whole("epochs", self.epochs, 0, 1 << 20, "epochs")
        require_whole("seed", self.seed, 0, MAX_SEED)
        for kind, name, known in (
            ("activation", self.activation, tuple(ACTIVATIONS)),
            ("initialisation", self.init, INITS),
            ("loss", self.loss, LOSSES),
            ("optimiser", self.optimizer, OPTIMIZERS),
        ):
            if name not in known:
                raise unknown(kind, name, known)
        if not (_is_finite(self.learning_rate) and self.learning_rate > 0):
            raise UserError(
                "the learning rate must be a positive number",
                got=repr(self.learning_rate),
                do="0.01 is the course report's",
            )
        if self.init != "mean_field":
            if self.sigma_w2 is not None or self.sigma_b2 is not None:
                raise UserError(
                    "sigma_w2 and sigma_b2 belong to the initialisation 'mean_field'",
                    got=f"init={self.init!r}",
                    do="set init='mean_field' or leave both out",
                )
            return
        for name, value in (("sigma_w2", self.sigma_w2), ("sigma_b2", self.sigma_b2)):
            if not (_is_finite(value) and float(value or 0) >= 0):
                raise UserError(
                    f"the initialisation 'mean_field' needs {name}, a variance of 0 or more",
                    got=repr(value),
                    do="for example sigma_w2=1.76, sigma_b2=0.05 for tanh",
                )

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return asdict(self)


class Nets(Protocol):
    """Nets by number from 0: a list of them, or an object that makes each one when it is needed."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> NetSpec: ...


def grid(**values: Any) -> list[NetSpec]:
    """Return one NetSpec for every combination of the values given, the last name varying fastest.

    Args:
        values: by the name of a setting, one value or a list of them: grid(depth=[5, 20],
            seed=range(3)) has 6 specs.

    Raises:
        UserError: there is no such setting, or a value is out of its range.

    Example:
        >>> specs = unmask.grid(depth=[2, 5], activation=["tanh", "relu"], seed=range(3))
        >>> len(specs), specs[0].depth, specs[-1].activation
        (12, 2, 'relu')
    """
    known = {f.name for f in fields(NetSpec)}
    for name in values:
        if name not in known:
            raise unknown("setting of a net", name, sorted(known))
    axes = [
        list(v) if isinstance(v, Iterable) and not isinstance(v, (str, Mapping)) else [v]
        for v in values.values()
    ]
    return [
        NetSpec(**dict(zip(values, combination, strict=True)))
        for combination in itertools.product(*axes)
    ]


def named(spec: NetSpec) -> str:
    """Return how a net differs from the default one, in words for people."""
    ordinary = NetSpec(spec.depth).as_dict()
    changes = {k: v for k, v in spec.as_dict().items() if k == "depth" or v != ordinary[k]}
    return ", ".join(f"{name}={value}" for name, value in changes.items())


def _is_finite(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False
