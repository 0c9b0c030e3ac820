"""How far a sweep is, and when what it found is saved."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unmask.sweep.history import DIVERGED, SweepHistory
from unmask.sweep.spec import NetSpec
from unmask.sweep.trainer import Task, training_cost

_SAVE_EVERY, _SAVE_SHARE = 2.0, 0.05


@dataclass(frozen=True)
class SweepProgress:
    """How far a sweep is; seconds_left is None until there is something to estimate from.

    running: the tasks of an executor that are being worked on, None without one.
    """

    nets_done: int
    nets_total: int
    net_epochs_done: int
    net_epochs_total: int
    diverged: int
    failed: int
    running: int | None
    seconds: float
    seconds_left: float | None


class Meter:
    """Counts what is done: the workers write, the main thread reads."""

    def __init__(self, task: Task, history: SweepHistory) -> None:
        self.lock = threading.Lock()
        self.running: int | None = None
        self.failures: dict[int, str] = {}
        self._task, self._history = task, history
        done = [s for s, status in zip(history.specs, history.status, strict=True) if status]
        self._epochs = sum(s.epochs for s in done)
        self._epochs_total = sum(s.epochs for s in history.specs)
        self._work, self._fresh_work = sum(map(self.cost, done)), 0.0
        self._work_total = sum(map(self.cost, history.specs))
        self._begun = time.monotonic()

    def cost(self, spec: NetSpec) -> float:
        """Return the multiply-adds of a net's training, for an image."""
        return training_cost(spec, self._task.train) * spec.epochs

    @property
    def nets_done(self) -> int:
        """How many nets have all their figures."""
        return int(np.count_nonzero(self._history.status))

    def epoch_done(self, spec: NetSpec) -> None:
        """Count an epoch of a net that trains here."""
        with self.lock:
            self._epochs += 1
            self._fresh_work += training_cost(spec, self._task.train)

    def net_done(self, spec: NetSpec) -> None:
        """Count a net that was trained elsewhere."""
        with self.lock:
            self._epochs += spec.epochs
            self._fresh_work += self.cost(spec)

    def read(self) -> SweepProgress:
        """Return how far the sweep is."""
        with self.lock:
            seconds = time.monotonic() - self._begun
            left = self._work_total - self._work - self._fresh_work
            return SweepProgress(
                nets_done=self.nets_done,
                nets_total=len(self._history.specs),
                net_epochs_done=self._epochs,
                net_epochs_total=self._epochs_total,
                diverged=int(np.count_nonzero(self._history.status == DIVERGED)),
                failed=len(self.failures),
                running=self.running,
                seconds=seconds,
                seconds_left=seconds / self._fresh_work * left if self._fresh_work else None,
            )


class Saver:
    """Saves the history seldom enough to cost little, often enough to lose little."""

    def __init__(self, path: Path, history: SweepHistory, meter: Meter) -> None:
        self._path, self._history, self._meter = path, history, meter
        self._nets, self._due = meter.nets_done, time.monotonic() + _SAVE_EVERY

    def save_when_due(self) -> None:
        """Save if it is time to, and there is something new."""
        if time.monotonic() > self._due and self._meter.nets_done > self._nets:
            self.save()

    def save(self) -> None:
        """Save now. Raises UserError, see write_atomically."""
        begun, self._nets = time.monotonic(), self._meter.nets_done
        with self._meter.lock:
            self._history.save(self._path)
        ended = time.monotonic()
        self._due = ended + max(_SAVE_EVERY, (ended - begun) / _SAVE_SHARE)
