"""Nets that train on the cores of this process, each thread a lot of nets at a time."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from unmask.execution.executor import Done, error_line
from unmask.sweep.spec import Nets
from unmask.sweep.task import Task
from unmask.sweep.trainer import (
    UNOBSERVED,
    Observer,
    Outcome,
    StoppedError,
    lots,
    train_lot,
)

Ended = list[Done[Outcome]]
Indices = Sequence[int] | NDArray[np.int64]

_TICK = 0.2


@dataclass(frozen=True)
class Training:
    """What all nets of a sweep are trained from.

    Args:
        nets: all of them.
        task: what they have in common.
    """

    nets: Nets
    task: Task


class Pool:
    """Threads that train nets, drawn from a queue; a context manager that stops them.

    Args:
        training: the nets and what they have in common.
        indices: the numbers of those to train, in this order.
        threads: how many train at once. One thread keeps a GPU busy, and several share it badly, so
            the engine "stacked" uses one.
        observer: is called while they train, from their threads.
    """

    def __init__(
        self,
        training: Training,
        indices: Indices,
        threads: int,
        observer: Observer = UNOBSERVED,
    ) -> None:
        task = training.task
        self._training, self._observer = training, observer
        self._waiting, self._lock = lots(task, training.nets, indices), threading.Lock()
        # The nets that ended, and None as the last entry of every thread.
        self._ended: queue.SimpleQueue[Ended | None] = queue.SimpleQueue()
        self._working = 1 if task.engine == "stacked" else min(threads, len(indices))
        self._threads = [
            threading.Thread(target=self._work, daemon=True) for _ in range(self._working)
        ]

    @property
    def busy(self) -> bool:
        """Whether any net trains, or has ended and wasn't returned yet."""
        return self._working > 0

    def ended(self) -> Ended:
        """Return the nets that ended since the last call, after a fifth of a second at most.

        Each is Done with its number as the index. One that raised has an error and no result.
        """
        try:
            ended = self._taken(self._ended.get(timeout=_TICK))
        except queue.Empty:
            return []
        return ended + self._rest()

    def stop(self) -> Ended:
        """Stop the threads and return the nets that ended and were not returned yet."""
        self._training.task.stop[0] = 1
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()
        return self._rest()

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _rest(self) -> Ended:
        rest: Ended = []
        while not self._ended.empty():
            rest += self._taken(self._ended.get())
        return rest

    def _taken(self, ended: Ended | None) -> Ended:
        if ended is None:
            self._working -= 1
        return ended or []

    def _work(self) -> None:
        task = self._training.task
        try:
            while not task.stop[0]:
                with self._lock:
                    lot = next(self._waiting, None)
                if lot is None:
                    return
                self._ended.put(lot_ended(self._training, lot, self._observer))
        except StoppedError:
            return
        finally:
            self._ended.put(None)


def train_block(training: Training, block: Indices) -> Ended:
    """Train nets one after another, as a task of an executor.

    Args:
        training: what all blocks read.
        block: the numbers of the nets.

    Returns:
        Each net as Done, by its number. One that raised has an error; the others continue.
    """
    waiting = lots(training.task, training.nets, block)
    return [done for lot in waiting for done in lot_ended(training, lot)]


def lot_ended(training: Training, lot: Sequence[int], observer: Observer = UNOBSERVED) -> Ended:
    """Train the nets of a lot and return how each ended.

    Args:
        training: the nets and their task.
        lot: the numbers of some of them, see trainer.lots.
        observer: is called while they train.

    Raises:
        StoppedError: the task is stopped.
    """
    try:
        outcomes = train_lot(training.nets, lot, training.task, observer)
    except StoppedError:
        raise
    # Not a SystemExit: that is a worker being ended, and says nothing of the net.
    except Exception as error:
        return [Done(i, None, error_line(error)) for i in lot]
    return [Done(i, outcome, None) for i, outcome in zip(lot, outcomes, strict=True)]
