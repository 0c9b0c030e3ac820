"""The driver of every sweep: this process or an executor trains nets, and a sink keeps figures."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from unmask.errors import UserError
from unmask.execution.executor import Done, Executor
from unmask.runtime import cpu_threads
from unmask.sweep.history import PENDING
from unmask.sweep.meter import Meter, SweepProgress
from unmask.sweep.pool import Ended, Pool, Training
from unmask.sweep.spec import Nets, named
from unmask.sweep.task import Task

# Multiply-adds of an executor's block: half a second and a dozen seconds of one core.
_LEAST, _MOST = 5e10, 1e12
# Enough blocks that no worker waits long for the last one.
_BLOCKS_A_WORKER = 16

Block = NDArray[np.int64]


@dataclass(frozen=True)
class Figures:
    """The figures that the driver gets of nets that have ended.

    Args:
        nets: int64[k], the numbers of those that trained.
        accuracy: float32[k], on the test images, 0 to 1, NaN without any.
        diverged: bool[k].
        failures: the numbers of the other nets, each with what was raised.
    """

    nets: NDArray[np.int64]
    accuracy: NDArray[np.float32]
    diverged: NDArray[np.bool_]
    failures: tuple[tuple[int, str], ...]

    @staticmethod
    def of(ended: Ended) -> Figures:
        """Return the figures of nets as a pool or a block returns them."""
        trained = [(d.index, d.result) for d in ended if d.result is not None]
        accuracy = [outcome.test.get("test_accuracy", math.nan) for _, outcome in trained]
        return Figures(
            np.array([net for net, _ in trained], np.int64),
            np.array(accuracy, np.float32),
            np.array([outcome.diverged_step > 0 for _, outcome in trained], np.bool_),
            tuple((d.index, str(d.error)) for d in ended if d.result is None),
        )


class Sink(Protocol):
    """Where the figures of nets are kept."""

    @property
    def status(self) -> NDArray[np.uint8]:
        """An index into STATUS_NAMES for every net."""

    def keep(self, ended: Ended) -> None:
        """Keep the outcomes of nets that this process trained."""

    def keep_from(
        self, on: Executor, training: Training, blocks: Iterable[Block]
    ) -> Generator[Done[Figures]]:
        """Let an executor train blocks, and yield the figures of each when they are kept.

        Args:
            on: the executor.
            training: the nets and their task.
            blocks: int64[k] each, the numbers of the nets.

        Yields:
            How each block ended; the index is the block's, in the order given.
        """

    def save(self, *, at_once: bool) -> None:
        """Write what is kept only in memory.

        Args:
            at_once: now; otherwise only if it is time to.

        Raises:
            UserError: it can't be written.
        """


def drive(
    nets: Nets,
    task: Task,
    sink: Sink,
    *,
    threads: int | None,
    on: Executor | None,
    progress: Callable[[SweepProgress], None] | None,
    kept: Path | None,
) -> None:
    """Train all nets that a sink doesn't have yet, the longest first.

    Args:
        nets: all nets of the sweep.
        task: what they have in common.
        sink: keeps their figures; it is saved however the training ends.
        threads: how many nets this process trains at once; None: one a core.
        on: the executor that trains them, in blocks of seconds; None: this process.
        progress: called about five times a second, or for every block, and at the end.
        kept: where the sink saves, for messages.

    Raises:
        UserError: nets failed (the others are trained and kept), or the sink can't save.
        KeyboardInterrupt: from Ctrl-C or progress, after what is finished was saved.
    """
    report = progress or (lambda _: None)
    meter = Meter(nets, task, sink.status)
    # The longest first, so that no core is left alone with a long net at the end.
    left = np.flatnonzero(sink.status == PENDING)
    left = left[np.argsort(-meter.costs[left], kind="stable")]
    training = Training(nets, task)
    if on is None:
        moves = _train_here(training, left, sink, meter, threads or cpu_threads())
    else:
        meter.running = min(on.workers, len(left))
        moves = _train_on(on, training, left, sink, meter)
    try:
        report(meter.read())
        with contextlib.closing(moves):
            for _ in moves:
                report(meter.read())
                sink.save(at_once=False)
        report(meter.read())
    finally:
        sink.save(at_once=True)
    if meter.failure is not None:
        net, error = meter.failure
        raise UserError(
            f"{meter.failed} of {len(nets)} nets failed",
            got=f"{named(nets[net])}: {error}",
            do="" if kept is None else f"the others are kept in {kept}, resume to try again",
        )


def _train_here(
    training: Training, left: Block, sink: Sink, meter: Meter, threads: int
) -> Generator[None]:
    def take(ended: Ended) -> None:
        sink.keep(ended)
        _count(meter, Figures.of(ended))

    with Pool(training, left, threads, meter) as pool:
        try:
            while pool.busy:
                take(pool.ended())
                yield
        finally:
            take(pool.stop())


def _train_on(
    on: Executor, training: Training, left: Block, sink: Sink, meter: Meter
) -> Generator[None]:
    flying: dict[int, Block] = {}
    costs = meter.costs[left]

    def blocks() -> Iterator[Block]:
        size = block_size(float(costs.sum()), on.workers)
        for number, block in enumerate(cut(left, costs, size)):
            flying[number] = np.array(block, np.int64)
            yield flying[number]

    with contextlib.closing(sink.keep_from(on, training, blocks())) as ended:
        for done in ended:
            block = flying.pop(done.index)
            if done.result is None:
                for net in block.tolist():
                    meter.fail(net, str(done.error))
            else:
                _count(meter, done.result)
            meter.running = min(on.workers, len(flying))
            yield


def _count(meter: Meter, figures: Figures) -> None:
    meter.ended(figures.nets, figures.diverged)
    for net, error in figures.failures:
        meter.fail(net, error)


def block_size(total: float, workers: int) -> float:
    """Return the cost of a block for an executor, in multiply-adds.

    Args:
        total: the cost of all nets.
        workers: how many tasks run at once.
    """
    return min(max(total / (_BLOCKS_A_WORKER * workers), _LEAST), _MOST)


def cut(waiting: Sequence[int] | Block, costs: Iterable[float], size: float) -> Iterator[list[int]]:
    """Yield indices in blocks, each just long enough to reach a cost.

    Args:
        waiting: the indices, in order.
        costs: of each, in multiply-adds.
        size: the cost of a block.
    """
    block: list[int] = []
    total = 0.0
    for index, cost in zip(waiting, costs, strict=True):
        block.append(int(index))
        total += cost
        if total >= size:
            yield block
            block, total = [], 0.0
    if block:
        yield block
