"""The loop that trains classifiers, hardened and certified ones, and the detector."""

from __future__ import annotations

import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from unmask.errors import UserError
from unmask.runtime import seeded, sha256
from unmask.saved_state import check_keys, reading
from unmask.train.averaging import Average
from unmask.train.batch_norm import whole_batch_statistics
from unmask.train.config import LoopConfig
from unmask.train.device import drawing_from, fastest_convolutions
from unmask.train.distributed import processes
from unmask.train.history import EpochRecord, check_numbers, records, write_history
from unmask.train.optimizers import descend, optimizers
from unmask.train.schedules import SCHEDULES
from unmask.train.state import load_run, save_run

_DROPOUT_STREAM = 4
_SECONDS_BETWEEN_REPORTS = 0.2

E = TypeVar("E", bound=EpochRecord)


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run is.

    Args:
        epoch: the one under way, from 1.
        epochs: how many there will be.
        step: the last one done in it, from 1.
        steps: how many an epoch has.
        seconds: since the run began, in all its parts.
        seconds_left: an estimate.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    seconds: float
    seconds_left: float


class Loop(ABC, Generic[E]):
    """A training run between two epochs, with a subclass for each kind of training.

    The loop counts epochs and steps, seeds dropout, adds up what steps measure, reports, writes
    checkpoints and reads them again. The subclass defines what is drawn for an epoch, what a step
    does and what is recorded of an epoch. In processes that have joined (see train.distributed)
    sums are over all of them, and only the first writes and reads files.

    Args:
        model: what is trained, on the device.
        epochs: how many there will be.
        steps: how many an epoch has.
        seed: of dropout.
        key: plain values that a resumed run must share.
        sums: how many figures the steps of an epoch add up.
        reports: whether tell is called.

    Raises:
        UserError: another process has another key.
    """

    record: type[E]
    # Writing a file durably can take a slow disk a second.
    seconds_between_saves = 0.0
    # Names that earlier versions wrote into the key, and that change nothing.
    dropped: Collection[str] = ()
    optimizers: Sequence[torch.optim.Optimizer] = ()

    def __init__(
        self,
        model: nn.Module,
        *,
        epochs: int,
        steps: int,
        seed: int,
        key: dict[str, Any],
        sums: int,
        reports: bool,
    ) -> None:
        self.model, self.count, self.steps, self.seed, self.key = model, epochs, steps, seed, key
        self.reports = reports
        self.device = next(model.parameters()).device
        self.together = processes()
        self.together.agree(sha256(json.dumps(key).encode()), "images or settings")
        self.epochs: list[E] = []
        self.seconds = 0.0
        self.sums = torch.zeros(sums, dtype=torch.float64, device=self.device)

    @abstractmethod
    def begin(self, epoch: int) -> None:
        """Draw what an epoch needs; epochs count from 0 here."""

    @abstractmethod
    def step(self, step: int) -> int:
        """Take a step and add what it measured to sums.

        Args:
            step: from 0 over the whole run.

        Returns:
            The weight of the step in the means of the sums: its number of images, or 1.
        """

    @abstractmethod
    def tell(self, where: Progress, means: list[float], spent: float) -> None:
        """Report the progress.

        Args:
            where: how far the run is.
            means: of the sums, over the epoch so far.
            spent: seconds that the epoch has taken so far.
        """

    @abstractmethod
    def note(self, means: list[float], spent: float) -> E:
        """Return the record of the epoch that ended; the model has its averaged weights.

        Args:
            means: of the sums, over the epoch.
            spent: seconds that the epoch has taken.
        """

    @abstractmethod
    def states(self) -> dict[str, dict[str, Tensor]]:
        """Return the groups of tensors that a checkpoint holds and that resuming fills in place."""

    def averaged(self) -> AbstractContextManager[None]:
        """Return a context in which the model has its averaged weights."""
        return nullcontext()

    def header(self) -> dict[str, Any]:
        """Return the plain values that a checkpoint holds."""
        return {"key": self.key, "epochs": records(self.epochs)}

    def kept(self) -> dict[str, dict[str, Tensor]]:
        """Return the groups of tensors that a checkpoint holds for take."""
        return {}

    def take(self, header: dict[str, Any], epochs: list[E], best: dict[str, Tensor]) -> None:
        """Restore what a checkpoint holds besides states and epochs.

        Args:
            header: the plain values, as header returned them.
            epochs: the records.
            best: the tensors of the group "best", as kept returned them.
        """

    def ended(self) -> None:
        """Do what is due after each epoch, once it is on disk."""

    @property
    def over(self) -> bool:
        """Whether no epoch is left to train."""
        return len(self.epochs) >= self.count

    def run(self, file: Path | None = None) -> None:
        """Train until it is over, writing the checkpoint to file and the history beside it."""
        saved = time.perf_counter()
        while not self.over:
            self.train_epoch()
            due = self.over or time.perf_counter() - saved >= self.seconds_between_saves
            if file and due and self.together.first:
                self.save(file)
                saved = time.perf_counter()
            self.ended()

    def train_epoch(self) -> None:
        """Train one epoch and record its figures; raise UserError for a loss that isn't finite."""
        epoch, began = len(self.epochs), time.perf_counter()
        seed = int(seeded(self.seed, _DROPOUT_STREAM, epoch).integers(1 << 63))
        # Each process draws its own dropout.
        drawing = drawing_from(seed + self.together.rank, self.device)
        with drawing, whole_batch_statistics(self.model, self.together), fastest_convolutions():
            means = self._pass(epoch, began)
        spent = time.perf_counter() - began
        self.seconds += spent
        if not all(map(math.isfinite, means)):
            raise UserError(
                f"the loss is not finite in epoch {epoch + 1}: training diverged",
                got=sum(means),
                do="lower the learning rate, or use precision fp32",
            )
        with self.averaged():
            self.epochs.append(self.note(means, spent))

    def _pass(self, epoch: int, began: float) -> list[float]:
        self.begin(epoch)
        self.sums.zero_()
        counted, reported = 0, 0.0
        self.model.train()
        for i in range(self.steps):
            counted += self.step(epoch * self.steps + i)
            now = time.perf_counter()
            # The last step of an epoch is always reported, since logs get their line from it.
            due = now - reported > _SECONDS_BETWEEN_REPORTS or i + 1 == self.steps
            if self.reports and due:
                reported = now
                self._report(epoch, i + 1, (self.sums / counted).tolist(), now - began)
        counts = torch.full((1,), counted, dtype=torch.float64, device=self.device)
        *sums, count = self.together.summed(torch.cat([self.sums, counts])).tolist()
        return [value / count for value in sums]

    def _report(self, epoch: int, step: int, means: list[float], spent: float) -> None:
        done, seconds = epoch + step / self.steps, self.seconds + spent
        where = Progress(
            epoch=epoch + 1,
            epochs=self.count,
            step=step,
            steps=self.steps,
            seconds=seconds,
            seconds_left=seconds / done * (self.count - done),
        )
        self.tell(where, means, spent)

    def save(self, file: Path) -> None:
        """Write the history and then the checkpoint.

        The checkpoint comes last, so that a run resumed from a whole one finds the rest whole too.

        Args:
            file: of the checkpoint; history.jsonl is beside it.
        """
        write_history(file.with_name("history.jsonl"), self.epochs)
        save_run(file, {**self.states(), **self.kept()}, self.optimizers, self.header())

    def restore(self, file: Path) -> None:
        """Restore the state at the first process's checkpoint, if there is one.

        Args:
            file: the checkpoint.

        Raises:
            UserError: the checkpoint is damaged or of another run.
        """
        if self.together.first and file.exists():
            self._restore(file)
        with self.together.copy_of(file) as copy:
            if copy:
                self._restore(copy)

    def _restore(self, file: Path) -> None:
        header, best = load_run(file, self.key, self.states(), self.optimizers, self.dropped)
        check_keys(header, self.header(), file)
        with reading(file):
            epochs = [self.record.of(e) for e in header["epochs"]]
            check_numbers(epochs)
            if not epochs:
                raise ValueError("it holds no epoch")
            self.take(header, epochs, best)
        self.epochs = epochs
        self.seconds = epochs[-1].seconds


class Descent(Loop[E]):
    """A run of gradient descent with a config's optimiser, schedule and average.

    Args:
        model: what is trained, on the device.
        config: the settings.
        steps: how many an epoch has.
        key: plain values that a resumed run must share.
        sums: how many figures the steps of an epoch add up.
        reports: whether tell is called.
        most_gradient: the norm to which the gradient of all parameters is clipped, None for none.

    Raises:
        UserError: another process has another key, or the model has nothing to train.
    """

    def __init__(
        self,
        model: nn.Module,
        config: LoopConfig,
        *,
        steps: int,
        key: dict[str, Any],
        sums: int,
        reports: bool,
        most_gradient: float | None = None,
    ) -> None:
        made = optimizers(model, config)
        super().__init__(
            model,
            epochs=config.epochs,
            steps=steps,
            seed=config.seed,
            key=key,
            sums=sums,
            reports=reports,
        )
        self._config, self._most_gradient = config, most_gradient
        self._total = steps * config.epochs
        self.optimizers = made
        # It is called on this process's part of a batch, so that gradients are averaged.
        self.learner = self.together.learner(model)
        self.average = Average(model, config)
        self.rate = 0.0

    def descend(self, loss: Tensor, step: int) -> None:
        """Take one step down the loss's gradient, averaged over processes.

        Args:
            loss: a scalar.
            step: from 0 over the whole run.
        """
        config = self._config
        height = SCHEDULES[config.schedule](step, self._total, config.warmup, config.end)
        descend(self.optimizers, loss, height, self._most_gradient)
        self.average.update(step + 1, self._total)
        self.rate = config.rate * height

    def averaged(self) -> AbstractContextManager[None]:
        """Return a context in which the model has its averaged weights."""
        return self.average.applied()

    def states(self) -> dict[str, dict[str, Tensor]]:
        """Return the tensors of the model and of their average."""
        return {"model": self.model.state_dict(), "average": self.average.state}
