"""What happened while a network was trained, epoch by epoch."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from unmask.runtime import write_atomically


@dataclass(frozen=True)
class EpochFigures:
    """The figures of one epoch.

    epoch and step count from 1 and images counts all seen so far. train_loss and train_accuracy
    are means over the epoch's augmented images, as trained, smoothed labels included. The
    validation figures are of single views, validation_averaged of the averaged ones and
    validation_attacked the accuracy under an adversary's attack; None where nothing was measured.
    train_seconds and seconds add up from the run's start, without and with validation and
    checkpoints; pictures_per_second is the epoch's while training.
    """

    epoch: int
    step: int
    pictures: int
    rate: float
    train_loss: float
    train_accuracy: float
    validation_loss: float | None
    validation_accuracy: float | None
    validation_averaged: float | None
    train_seconds: float
    seconds: float
    pictures_per_second: float
    validation_attacked: float | None = None

    @staticmethod
    def of(values: Any) -> EpochFigures:
        """Return the figures in plain values that asdict gave.

        Raises:
            TypeError: a figure is missing, unknown or no number.
        """
        if not isinstance(values, dict):
            raise TypeError(f"an epoch's figures are names and numbers, not {values!r:.60}")
        epoch = EpochFigures(**values)
        for field_ in fields(EpochFigures):
            value, whole = values.get(field_.name), field_.type == "int"
            left_out = value is None and str(field_.type).endswith("None")
            if not (left_out or type(value) is int or (type(value) is float and not whole)):
                raise TypeError(f"an epoch's {field_.name} is {value!r:.60}")
        return epoch

    def same_figures(self, other: EpochFigures) -> bool:
        """Return whether everything but the times is equal."""
        times = ("train_seconds", "seconds", "pictures_per_second")
        mine, others = asdict(self), asdict(other)
        return all(mine[k] == others[k] for k in mine if k not in times)


@dataclass(frozen=True)
class History:
    """The epochs of a run, in order, the best of them and what ended it.

    best_epoch: the one with the highest validation accuracy (under attack where there is an
    adversary, else with test-time augmentation where it is used; the last of equals), or the last
    where nothing was validated; 0 before the first epoch ended. ended: "finished", "target",
    "collapsed" or "interrupted".
    """

    epochs: tuple[EpochFigures, ...]
    best_epoch: int
    ended: str
    stamp: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if [e.epoch for e in self.epochs] != list(range(1, len(self.epochs) + 1)):
            raise ValueError("a History's epochs are numbered 1, 2, 3, ...")
        if type(self.best_epoch) is not int or not 0 <= self.best_epoch <= len(self.epochs):
            raise ValueError(f"a best epoch of {self.best_epoch!r:.60}, of {len(self.epochs)}")

    @property
    def best(self) -> EpochFigures | None:
        """The best epoch's figures, or None before the first epoch ended."""
        return self.epochs[self.best_epoch - 1] if self.best_epoch else None

    def save(self, path: Path) -> None:
        """Write one JSON line an epoch, whole or not at all."""
        with write_atomically(path) as file:
            file.writelines(json.dumps(asdict(e)).encode() + b"\n" for e in self.epochs)
