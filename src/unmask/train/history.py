"""What happened while a network was trained, epoch by epoch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from unmask.runtime import write_atomically

R = TypeVar("R", bound="EpochRecord")


class EpochRecord:
    """What is noted of an epoch: a dataclass of plain numbers, of which these two always are.

    epoch counts from 1, and seconds add up from the run's start.
    """

    epoch: int
    seconds: float

    @classmethod
    def of(cls: type[R], values: Any) -> R:
        """Return the figures in plain values that asdict gave.

        Raises:
            TypeError: a figure is missing, unknown or no number.
        """
        if not isinstance(values, dict):
            raise TypeError(f"an epoch's figures are names and numbers, not {values!r:.60}")
        epoch = cls(**values)
        for field_ in fields(cls):  # type: ignore[arg-type]
            value, whole = values.get(field_.name), field_.type == "int"
            left_out = value is None and str(field_.type).endswith("None")
            if not (left_out or type(value) is int or (type(value) is float and not whole)):
                raise TypeError(f"an epoch's {field_.name} is {value!r:.60}")
        return epoch


@dataclass(frozen=True)
class EpochFigures(EpochRecord):
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
        check_numbers(self.epochs)
        if type(self.best_epoch) is not int or not 0 <= self.best_epoch <= len(self.epochs):
            raise ValueError(f"a best epoch of {self.best_epoch!r:.60}, of {len(self.epochs)}")

    @property
    def best(self) -> EpochFigures | None:
        """The best epoch's figures, or None before the first epoch ended."""
        return self.epochs[self.best_epoch - 1] if self.best_epoch else None

    def save(self, path: Path) -> None:
        """Write one JSON line an epoch, whole or not at all."""
        write_history(path, self.epochs)


def check_numbers(epochs: Sequence[EpochRecord]) -> None:
    """Raise ValueError unless the epochs are numbered 1, 2, 3, and so on."""
    if [e.epoch for e in epochs] != list(range(1, len(epochs) + 1)):
        raise ValueError("its epochs aren't numbered 1, 2, 3, ...")


def write_history(path: Path, epochs: Sequence[EpochRecord]) -> None:
    """Write one JSON line an epoch, whole or not at all."""
    with write_atomically(path) as file:
        file.writelines(json.dumps(values).encode() + b"\n" for values in records(epochs))


def records(epochs: Sequence[EpochRecord]) -> list[dict[str, Any]]:
    """Return the epochs' figures as plain values, from which EpochRecord.of makes them again."""
    return [{f.name: getattr(e, f.name) for f in fields(e)} for e in epochs]  # type: ignore[arg-type]
