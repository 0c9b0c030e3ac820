"""The progress of a sweep."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unmask.sweep.history import DIVERGED, PENDING
from unmask.sweep.spec import Nets, NetSpec
from unmask.sweep.task import Task
from unmask.sweep.trainer import Observer, training_cost


@dataclass(frozen=True)
class SweepProgress:
    """How far a sweep is.

    Args:
        nets_done: finished or diverged.
        nets_total: all nets.
        net_epochs_done: epochs, summed over nets.
        net_epochs_total: likewise, at the end.
        diverged: how many of the nets done.
        failed: nets that raised an error.
        running: the tasks that an executor works on, None without one.
        seconds: since the sweep began or was resumed.
        seconds_left: an estimate, None until there is something to estimate from.
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


class Meter(Observer):
    """Counts what is done: the nets' threads write, the main thread reads.

    Args:
        nets: all nets.
        task: what they have in common.
        status: uint8[nets], the sink's at the start.

    Attributes:
        costs: float64[nets], the multiply-adds of each net's training.
        failure: the first net that failed and the line that tells why, or None.
    """

    def __init__(self, nets: Nets, task: Task, status: NDArray[np.uint8]) -> None:
        count = len(nets)
        figures = (
            (multiply_adds(spec, task), spec.epochs) for spec in map(nets.__getitem__, range(count))
        )
        table = np.fromiter(figures, np.dtype([("cost", np.float64), ("epochs", np.int32)]), count)
        self.costs = np.ascontiguousarray(table["cost"])
        self._epochs = np.ascontiguousarray(table["epochs"])
        self.running: int | None = None
        self.failed = 0
        self.failure: tuple[int, str] | None = None
        finished = status != PENDING
        self._nets_done = int(np.count_nonzero(finished))
        self._diverged = int(np.count_nonzero(status == DIVERGED))
        self._epochs_done = int(self._epochs[finished].sum())
        self._epochs_total = int(self._epochs.sum())
        self._work, self._work_total = 0.0, float(self.costs[~finished].sum())
        # By net that trains here: the epochs done.
        self._under_way: dict[int, int] = {}
        self._lock = threading.Lock()
        self._begun = time.monotonic()

    def epoch_done(self, net: int) -> None:
        """Count an epoch of a net that trains in this process."""
        with self._lock:
            self._under_way[net] = self._under_way.get(net, 0) + 1

    def ended(self, nets: NDArray[np.int64], diverged: NDArray[np.bool_]) -> None:
        """Count nets that have all their figures.

        Args:
            nets: int64[k], their numbers.
            diverged: bool[k].
        """
        with self._lock:
            for net in nets.tolist() if self._under_way else ():
                self._under_way.pop(net, None)
            self._nets_done += len(nets)
            self._diverged += int(np.count_nonzero(diverged))
            self._epochs_done += int(self._epochs[nets].sum())
            self._work += float(self.costs[nets].sum())

    def fail(self, net: int, error: str) -> None:
        """Count a net that failed.

        Args:
            net: its number.
            error: the line that tells why.
        """
        with self._lock:
            self._under_way.pop(net, None)
        self.failed += 1
        self.failure = self.failure or (net, error)

    def read(self) -> SweepProgress:
        """Return how far the sweep is."""
        with self._lock:
            seconds = time.monotonic() - self._begun
            work, epochs = self._work, self._epochs_done
            for net, behind in self._under_way.items():
                work += float(self.costs[net]) * behind / int(self._epochs[net])
                epochs += behind
            return SweepProgress(
                nets_done=self._nets_done,
                nets_total=len(self.costs),
                net_epochs_done=epochs,
                net_epochs_total=self._epochs_total,
                diverged=self._diverged,
                failed=self.failed,
                running=self.running,
                seconds=seconds,
                seconds_left=seconds / work * (self._work_total - work) if work else None,
            )


def multiply_adds(spec: NetSpec, task: Task) -> float:
    """Return the multiply-adds of a net's whole training.

    Args:
        spec: the net.
        task: holds the training images.
    """
    return training_cost(spec, task.train) * spec.epochs * len(task.train.labels)
