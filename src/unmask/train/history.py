"""The figures of a training run, epoch by epoch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from unmask.runtime import write_atomically

R = TypeVar("R", bound="EpochRecord")


class EpochRecord:
    """The figures of an epoch: a dataclass of plain numbers, among them always these two.

    Args:
        epoch: from 1.
        seconds: since the run's start, in all its parts.
    """

    epoch: int
    seconds: float

    @classmethod
    def of(cls: type[R], values: Any) -> R:
        """Return the record of plain values.

        Args:
            values: the fields by name, as records returned them.

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
    """The figures of one epoch of a classifier; None where nothing was measured.

    Args:
        epoch: from 1.
        step: the last step, from 1 over the whole run.
        pictures: how many images the run has trained on so far.
        rate: the learning rate at the epoch's end.
        train_loss: the mean over the epoch's augmented images, with their smoothed labels.
        train_accuracy: likewise, 0 to 1.
        validation_loss: the mean cross-entropy of single views.
        validation_accuracy: of single views, 0 to 1.
        validation_averaged: the accuracy with test-time augmentation, 0 to 1.
        train_seconds: since the run's start, without validation and checkpoints.
        seconds: since the run's start, with them.
        pictures_per_second: images trained on a second in this epoch.
        validation_attacked: the accuracy under an adversary's attack, 0 to 1.
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

    Args:
        epochs: the figures of each.
        best_epoch: the number of the one with the highest validation accuracy (under attack where
            there is an adversary, else with test-time augmentation where it is used; the last of
            equals), or of the last where nothing was validated; 0 before the first epoch ended.
        ended: "finished", "target", "collapsed" or "interrupted".
        stamp: the provenance, in plain values.

    Raises:
        ValueError: the epochs aren't numbered from 1, or the best is none of them.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
        >>> history = unmask.fit(
        ...     model,
        ...     unmask.load_data("mnist", part="train", count=500),
        ...     unmask.FitConfig(epochs=1),
        ... )
        >>> history.epochs[0].train_loss > 0
        True
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
    """Write one JSON line an epoch, whole or not at all.

    Args:
        path: of the file.
        epochs: the records, in order.
    """
    with write_atomically(path) as file:
        file.writelines(json.dumps(values).encode() + b"\n" for values in records(epochs))


def records(epochs: Sequence[EpochRecord]) -> list[dict[str, Any]]:
    """Return the epochs' figures as plain values, from which EpochRecord.of restores them."""
    return [{f.name: getattr(e, f.name) for f in fields(e)} for e in epochs]  # type: ignore[arg-type]
