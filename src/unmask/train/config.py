"""How a network is trained: every setting of the loop and of fit, with its range."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

from unmask.data.augment import Augmentation
from unmask.errors import MAX_SEED, UserError, plain_numbers, require_whole, unknown
from unmask.train.schedules import SCHEDULES

OPTIMIZERS = ("sgd", "adam", "adamw", "muon", "muon_adamw")
AVERAGINGS = ("none", "ema", "lookahead")
TEST_TIMES = ("none", "flip", "flip_shift")
PRECISIONS = ("auto", "bf16", "fp32")


@dataclass(frozen=True)
class LoopConfig:
    """How a network of any kind is trained by gradient descent.

    Args:
        epochs: passes over the images.
        batch_size: the most images a step; an epoch's images are spread evenly over its steps, so
            no step has only a few.
        optimizer: sgd has Nesterov's momentum; adam and adamw have betas 0.9 and 0.999; muon
            (Jordan et al., 2024) trains the filters of convolutions without a bias, which a norm
            follows, and leaves the rest to sgd with momentum 0.85, muon_adamw to adamw.
        rate: the peak learning rate, which schedule shapes over the steps.
        bias_rate: the peak rate of one-dimensional parameters, rate where None.
        head_rate: that of the last linear layer's matrix (where there is none, of convolutions with
            a bias), rate where None.
        momentum: of sgd and muon, 0 to 1.
        weight_decay: of matrices and filters only, as torch.optim has it, 0 or more.
        schedule: a name in schedules.SCHEDULES.
        warmup: the fraction of the steps over which the rate goes up, 0 to 1.
        end: the fraction of the peak that is left at the end, 0 to 1.
        averaging: "ema" measures and keeps a running average of the weights; "lookahead" sets the
            weights back to it every five steps, with less and less effect (Zhang et al., 2019, as
            Jordan, 2024, has it).
        averaging_horizon: how many steps long the running average is.
        precision: "auto" is bf16 where the processor computes in it, fp32 elsewhere.
        seed: of all random numbers.

    Raises:
        UserError: an unknown name, or a number out of its range.
    """

    epochs: int
    batch_size: int = 256
    optimizer: str = "adamw"
    rate: float = 1e-3
    bias_rate: float | None = None
    head_rate: float | None = None
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: str = "one_cycle"
    warmup: float = 0.25
    end: float = 0.0
    averaging: str = "none"
    averaging_horizon: int = 100
    precision: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        plain_numbers(self)
        for kind, name, known in (
            ("optimiser", self.optimizer, OPTIMIZERS),
            ("schedule", self.schedule, tuple(SCHEDULES)),
            ("averaging", self.averaging, AVERAGINGS),
            ("precision", self.precision, PRECISIONS),
        ):
            if name not in known:
                raise unknown(kind, name, known)
        require_whole("epochs", self.epochs, 1, MAX_SEED)
        require_whole("batch size", self.batch_size, 1, MAX_SEED)
        require_whole("averaging horizon", self.averaging_horizon, 1, MAX_SEED)
        require_whole("seed", self.seed, 0, MAX_SEED)
        _check_number("learning rate", self.rate, least=1e-300)
        _check_number("learning rate of biases", self.bias_rate)
        _check_number("learning rate of the last layer", self.head_rate)
        _check_number("momentum", self.momentum, most=1.0)
        _check_number("weight decay", self.weight_decay)
        _check_number("warmup", self.warmup, most=1.0)
        _check_number("end of the schedule", self.end, most=1.0)

    def at_rate(self, rate: float) -> Self:
        """Return the same settings at another peak rate, those of biases and head in proportion."""
        by = rate / self.rate
        bias, head = (None if r is None else r * by for r in (self.bias_rate, self.head_rate))
        return replace(self, rate=rate, bias_rate=bias, head_rate=head)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return asdict(self)


@dataclass(frozen=True)
class FitConfig(LoopConfig):
    """Every setting of a classifier's training but the network and the images.

    Args:
        label_smoothing: of the cross-entropy, 0 to 1.
        augmentation: how training images are changed at random.
        test_time: the views whose logits are averaged for the second validation figure: mirrored,
            or mirrored and shifted by a pixel.
        target: the validation accuracy, 0 to 1, that ends the run when it is exceeded, with
            test-time augmentation where test_time names it.
        validate_from: the first epoch that is validated, from 1.
        epochs, batch_size and the rest: see LoopConfig.

    Raises:
        UserError: an unknown name, or a number out of its range.

    Example:
        >>> unmask.FitConfig(epochs=5, rate=0.01).optimizer
        'adamw'
    """

    label_smoothing: float = 0.0
    augmentation: Augmentation = field(default_factory=Augmentation)
    test_time: str = "none"
    target: float | None = None
    validate_from: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.test_time not in TEST_TIMES:
            raise unknown("test-time augmentation", self.test_time, TEST_TIMES)
        require_whole("first validated epoch", self.validate_from, 1, MAX_SEED)
        _check_number("label smoothing", self.label_smoothing, most=1.0)
        _check_number("target accuracy", self.target, most=1.0)


def _check_number(
    name: str, value: float | None, *, least: float = 0.0, most: float = math.inf
) -> None:
    if value is not None and not (
        isinstance(value, (int, float)) and least <= value < math.inf and value <= most
    ):
        wanted = "positive" if most == math.inf else "from 0 to 1"
        raise UserError(f"the {name} must be a number, {wanted}", got=value)
