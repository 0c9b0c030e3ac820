"""The nets of a sweep as tasks of an executor: blocks of them that last seconds."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass

from unmask.execution.executor import Done, Executor
from unmask.execution.local import LocalExecutor
from unmask.sweep.spec import NetSpec
from unmask.sweep.trainer import Outcome, Task, train_net, training_cost

# Multiply-adds of a block: half a second and a dozen of a core.
_LEAST, _MOST = 5e10, 1e12
# So that no worker waits long for the last one.
_BLOCKS_A_WORKER = 16


@dataclass(frozen=True)
class Block:
    """A block that has ended: how each of its nets did, by the net's index.

    running: how many blocks are being worked on after it.
    """

    nets: tuple[tuple[int, Done[Outcome]], ...]
    running: int


def train_blocks(
    executor: Executor,
    task: Task,
    specs: Sequence[NetSpec],
    waiting: Sequence[int],
) -> Generator[Block]:
    """Train specs[i] for every i in waiting, and yield each block as it ends.

    An empty one comes first, when the work begins. A net that raises costs its block nothing but
    itself.
    """
    costs = [multiply_adds(specs[i], task) for i in waiting]
    blocks = list(cut(waiting, costs, block_size(sum(costs), executor.workers)))
    ended = executor.run(_train, task, (tuple(specs[i] for i in block) for block in blocks))
    with contextlib.closing(ended):
        yield Block((), min(executor.workers, len(blocks)))
        for count, done in enumerate(ended, 1):
            block = blocks[done.index]
            nets = done.result or [Done(n, None, done.error) for n in range(len(block))]
            running = min(executor.workers, len(blocks) - count)
            yield Block(tuple(zip(block, nets, strict=True)), running)


def block_size(total: float, workers: int) -> float:
    """Return the multiply-adds of a block, when there are so many to do in all."""
    return min(max(total / (_BLOCKS_A_WORKER * workers), _LEAST), _MOST)


def multiply_adds(spec: NetSpec, task: Task) -> float:
    """Return those of a net's training."""
    return training_cost(spec, task.train) * spec.epochs * len(task.train.labels)


def cut(waiting: Iterable[int], costs: Iterable[float], size: float) -> Iterator[list[int]]:
    """Yield what waits in blocks, each as long as it must be to cost as much as size."""
    block: list[int] = []
    total = 0.0
    for index, cost in zip(waiting, costs, strict=True):
        block.append(index)
        total += cost
        if total >= size:
            yield block
            block, total = [], 0.0
    if block:
        yield block


def _train(task: Task, specs: tuple[NetSpec, ...]) -> list[Done[Outcome]]:
    """Train the nets of a block one after another, on one core."""
    return list(LocalExecutor().run(_train_one, task, specs))


def _train_one(task: Task, spec: NetSpec) -> Outcome:
    return train_net(spec, task, lambda spec: None)
