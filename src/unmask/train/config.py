"""How a network is trained: every setting of fit, with its range."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from unmask.data.augment import Augmentation
from unmask.errors import MAX_SEED, UserError, require_whole, unknown
from unmask.train.schedules import SCHEDULES

OPTIMIZERS = ("sgd", "adam", "adamw", "muon", "muon_adamw")
AVERAGINGS = ("none", "ema", "lookahead")
TEST_TIMES = ("none", "flip", "flip_shift")
PRECISIONS = ("auto", "bf16", "fp32")


@dataclass(frozen=True)
class FitConfig:
    """Every setting of a training run but the network and the images.

    epochs: passes over the images. batch_size: the most images a step; an epoch's are shared
    out evenly, so no step is left with a few. optimizer: sgd has Nesterov's momentum; adam and
    adamw have betas 0.9 and 0.999; muon (Jordan et al., 2024) takes the filters of convolutions
    without a bias, which a norm follows, and leaves the rest to sgd with momentum 0.85, muon_adamw
    to adamw. rate: the peak learning rate, which schedule shapes over the steps with warmup (the
    part of the steps that goes up) and end (what is left of the peak at the end). bias_rate and
    head_rate: the peak rates of one-dimensional parameters and of the last linear layer's matrix
    (where there is none, of convolutions with a bias), rate where None. weight_decay: of matrices
    and filters only, as torch.optim has it. averaging: "ema" measures and keeps a running average
    of the weights, one in averaging_horizon steps long; "lookahead" sets the weights back to it
    every five steps, with less and less effect (Zhang et al., 2019, as Jordan, 2024, has it).
    test_time: the views whose logits are averaged for the second validation figure: mirrored, or
    mirrored and moved by a pixel. target: the validation accuracy, 0 to 1, that ends the run when
    it is exceeded, with test-time augmentation where test_time names it. validate_from: the first
    epoch that is validated. precision: "auto" is bf16 where the processor computes in it, fp32
    elsewhere. Raises UserError.
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
    label_smoothing: float = 0.0
    averaging: str = "none"
    averaging_horizon: int = 100
    augmentation: Augmentation = field(default_factory=Augmentation)
    test_time: str = "none"
    target: float | None = None
    validate_from: int = 1
    precision: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        for kind, name, known in (
            ("optimiser", self.optimizer, OPTIMIZERS),
            ("schedule", self.schedule, tuple(SCHEDULES)),
            ("averaging", self.averaging, AVERAGINGS),
            ("test-time averaging", self.test_time, TEST_TIMES),
            ("precision", self.precision, PRECISIONS),
        ):
            if name not in known:
                raise unknown(kind, name, known)
        for name, whole, low in (
            ("epochs", self.epochs, 1),
            ("batch size", self.batch_size, 1),
            ("averaging horizon", self.averaging_horizon, 1),
            ("first validated epoch", self.validate_from, 1),
            ("seed", self.seed, 0),
        ):
            require_whole(name, whole, low, MAX_SEED)
        tiny = 1e-300
        for name, value, least, most in (
            ("learning rate", self.rate, tiny, math.inf),
            ("learning rate of biases", self.bias_rate, 0.0, math.inf),
            ("learning rate of the last layer", self.head_rate, 0.0, math.inf),
            ("momentum", self.momentum, 0.0, 1.0),
            ("weight decay", self.weight_decay, 0.0, math.inf),
            ("warmup", self.warmup, 0.0, 1.0),
            ("end of the schedule", self.end, 0.0, 1.0),
            ("label smoothing", self.label_smoothing, 0.0, 1.0),
            ("target accuracy", self.target, 0.0, 1.0),
        ):
            if value is not None and not (
                isinstance(value, (int, float)) and least <= value < math.inf and value <= most
            ):
                wanted = "positive" if most == math.inf else "from 0 to 1"
                raise UserError(f"the {name} must be a number, {wanted}", got=value)

    def at_rate(self, rate: float) -> FitConfig:
        """Return the same settings at another peak rate, those of biases and head in proportion."""
        by = rate / self.rate
        bias, head = (None if r is None else r * by for r in (self.bias_rate, self.head_rate))
        return replace(self, rate=rate, bias_rate=bias, head_rate=head)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return asdict(self)
