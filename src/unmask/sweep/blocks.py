"""The nets of a sweep as tasks of an executor: blocks of them that last seconds."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

from unmask.execution.executor import Done, Executor
from unmask.execution.local import LocalExecutor
from unmask.sweep.spec import NetSpec
from unmask.sweep.trainer import Outcome, Task, train_net, training_cost

# Multiply-adds of a block: half a second and two of a fast core, some seconds of a slow one.
_LEAST, _MOST = 5e10, 2e11
# So that no worker waits long for the last one.
_BLOCKS_A_WORKER = 4


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
    costs = [_multiply_adds(specs[i], task) for i in waiting]
    share = sum(costs) / (_BLOCKS_A_WORKER * executor.workers)
    blocks = list(_cut(waiting, costs, min(max(share, _LEAST), _MOST)))
    ended = executor.run(_train, task, (tuple(specs[i] for i in block) for block in blocks))
    with contextlib.closing(ended):
        yield Block((), min(executor.workers, len(blocks)))
        for count, done in enumerate(ended, 1):
            block = blocks[done.index]
            nets = done.result or [Done(n, None, done.error) for n in range(len(block))]
            running = min(executor.workers, len(blocks) - count)
            yield Block(tuple(zip(block, nets, strict=True)), running)


def _multiply_adds(spec: NetSpec, task: Task) -> float:
    return training_cost(spec, task.train) * spec.epochs * len(task.train.labels)


def _cut(waiting: Sequence[int], costs: Sequence[float], size: float) -> Iterator[list[int]]:
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
