"""A block of a sharded sweep, on whoever trains it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unmask.execution.executor import Done, told
from unmask.execution.shards import Arrays
from unmask.sweep.lots import Nets, lots, train_lot
from unmask.sweep.trainer import Outcome, StoppedError, Task

Lot = list[Done[Outcome]]


@dataclass(frozen=True)
class Training:
    """What every block reads; tell, in this process only, is called with nets just trained."""

    nets: Nets
    task: Task
    threads: int = 1
    tell: Callable[[Sequence[int]], None] | None = None


@dataclass(frozen=True)
class BlockFigures:
    """What the driver is told of a block.

    nets: int64[k], those trained; accuracy: float32[k], on the test images; diverged: bool[k].
    failures: the other nets, each with what was raised. interrupted: whether Ctrl-C ended it.
    """

    nets: NDArray[np.int64]
    accuracy: NDArray[np.float32]
    diverged: NDArray[np.bool_]
    failures: tuple[tuple[int, str], ...]
    interrupted: bool


def train_block(training: Training, block: NDArray[np.int64]) -> tuple[BlockFigures, Arrays]:
    """Train the nets of a block; return what the driver is told and what the shard holds."""
    ended, interrupted = _trained(training, block.tolist())
    nets: list[int] = []
    outcomes: list[Outcome] = []
    failures: list[tuple[int, str]] = []
    for done in ended:
        if done.result is None:
            failures.append((done.index, str(done.error)))
        else:
            nets.append(done.index)
            outcomes.append(done.result)
    shard: Arrays = {
        "net": np.array(nets, np.int64),
        **{
            name: np.array([o.test.get(name, math.nan) for o in outcomes], np.float32)
            for name in ("test_loss", "test_accuracy")
        },
        "diverged_step": np.array([o.diverged_step for o in outcomes], np.int64),
    }
    figures = BlockFigures(
        shard["net"],
        shard["test_accuracy"],
        shard["diverged_step"] > 0,
        tuple(failures),
        interrupted,
    )
    return figures, shard


def _trained(training: Training, block: list[int]) -> tuple[Lot, bool]:
    """Return how each net ended, and whether Ctrl-C kept the others from it."""
    task, interrupted = training.task, False
    waiting = lots(task, training.nets, block)
    futures: list[Future[Lot]] = []
    with ThreadPoolExecutor(training.threads) as pool:
        try:
            futures += [pool.submit(_train_lot, training, lot) for lot in waiting]
            for future in as_completed(futures):
                if training.tell is not None:
                    training.tell([d.index for d in future.result() if d.result is not None])
        except KeyboardInterrupt:
            interrupted = True
            # Elsewhere it can't be written, and the nets that train end by themselves.
            if task.stop.flags.writeable:
                task.stop[0] = 1
            pool.shutdown(cancel_futures=True)
    over = (f for f in futures if not f.cancelled() and f.exception() is None)
    return [done for future in over for done in future.result()], interrupted


def _train_lot(training: Training, lot: list[int]) -> Lot:
    try:
        specs = [training.nets[i] for i in lot]
        outcomes = train_lot(specs, training.task, lambda spec: None)
    except StoppedError:
        raise
    except Exception as error:
        return [Done(i, None, told(error)) for i in lot]
    return [Done(i, outcome, None) for i, outcome in zip(lot, outcomes, strict=True)]
