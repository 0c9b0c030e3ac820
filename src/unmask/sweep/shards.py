"""Sweeps of more nets than one process should hold: their measurements go into shards on disk."""

from __future__ import annotations

import contextlib
import json
import math
import tempfile
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unmask.data.images import Images
from unmask.errors import UserError
from unmask.execution.executor import Done, Executor
from unmask.execution.shards import Arrays, read_shards, shard_file, write_shard, write_shards
from unmask.runtime import cpu_threads, environment_stamp, write_atomically
from unmask.saved_state import check_array, damaged, holds
from unmask.sweep.driver import Block, Figures, drive
from unmask.sweep.history import DIVERGED, FINISHED, TEST_FIGURES
from unmask.sweep.meter import SweepProgress, multiply_adds
from unmask.sweep.pool import Ended, Training, train_block
from unmask.sweep.spec import Nets
from unmask.sweep.task import Task, digests, prepared

_KEY_FILE = "key.json"
# The size of a shard of nets that train here: some seconds of every thread, or several full stacks
# of a GPU. Only SIGKILL loses the nets that wait for their shard.
_MULTIPLY_ADDS_A_THREAD, _NETS_A_SHARD = 2e11, 4096


class ShardsInterrupted(KeyboardInterrupt):
    """Ctrl-C during a sharded sweep.

    Args:
        done: how many nets are kept.
        total: how many there are.
    """

    def __init__(self, done: int, total: int) -> None:
        super().__init__("the sweep was interrupted")
        self.done, self.total = done, total


@dataclass(frozen=True, eq=False)
class Scores:
    """What a sharded sweep keeps in memory.

    Args:
        accuracy: float32[nets], on the test images, 0 to 1, NaN where the net diverged.
        status: uint8[nets], an index into STATUS_NAMES.
        stamp: the provenance, in plain values.
    """

    accuracy: NDArray[np.float32]
    status: NDArray[np.uint8]
    stamp: dict[str, Any]


def train_in_shards(
    nets: Nets,
    images: Images,
    test: Images,
    *,
    key: dict[str, Any],
    folder: Path | None = None,
    resume: bool = False,
    threads: int | None = None,
    device: str = "cpu",
    on: Executor | None = None,
    progress: Callable[[SweepProgress], None] | None = None,
) -> Scores:
    """Train nets as train_sweep does, to the same bits, and keep in memory only the score of each.

    Args:
        nets: nets of one batch size, made when they are needed; what makes them goes to the
            workers.
        images: what they are trained on.
        test: what they are scored on.
        key: plain values that distinguish these nets from others.
        folder: gets a shard for each block of nets, written by the process that trained it: net
            int64[k], test_loss and test_accuracy float32[k], diverged_step int64[k]. None: nothing
            stays on disk.
        resume: don't train the nets again that the folder holds; without it, a folder that holds
            some is refused.
        threads: see train_sweep.
        device: see train_sweep.
        on: see train_sweep.
        progress: see train_sweep.

    Returns:
        The score of every net.

    Raises:
        UserError: something doesn't fit, the folder can't be written or, when all others are
            trained and kept, nets failed.
        ShardsInterrupted: Ctrl-C, with all finished nets kept.
    """
    if not len(nets):
        raise UserError("a sweep needs at least one net", got="none")
    task = prepared(
        images,
        largest_batch=nets[0].batch_size,
        test=test,
        probe_batch=images[:1],
        dead_probe=images[:1],
        threads=threads,
        device=device,
        elsewhere=on is not None,
    )
    whole = {"nets": key, "instructions": task.instructions, "data": digests([images, test])}
    with contextlib.ExitStack() as stack:
        where = folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        _claim(where, json.dumps(whole, sort_keys=True), resume)
        block = (threads or cpu_threads()) * _MULTIPLY_ADDS_A_THREAD
        sink = _ShardSink(nets, task, where, math.inf if task.engine == "stacked" else block)
        try:
            drive(nets, task, sink, threads=threads, on=on, progress=progress, kept=folder)
        except KeyboardInterrupt:
            raise ShardsInterrupted(int(np.count_nonzero(sink.status)), len(nets)) from None
    stamp = environment_stamp(
        engine=task.engine, instructions=task.instructions, data=images.sha256
    )
    return Scores(sink.accuracy, sink.status, stamp)


def _claim(folder: Path, text: str, resume: bool) -> None:
    """Mark the folder as this sweep's; raise UserError when it holds another."""
    file = folder / _KEY_FILE
    if file.exists():
        if not resume:
            raise UserError(
                f"{folder.parent} already holds a sweep",
                do="resume it (--resume) or choose another folder (--out)",
            )
        if not holds(file, text):
            raise UserError(
                f"{folder} belongs to another sweep",
                got="other nets, data or instruction set",
                do="resume with the settings it was begun with, or choose another folder",
            )
        return
    with write_atomically(file) as out:
        out.write(text.encode())


class _ShardSink:
    """Keeps a score and a status of every net in memory, and its figures in shards in a folder.

    Nets that train here wait until they are as much work as block, in multiply-adds.
    """

    def __init__(self, nets: Nets, task: Task, folder: Path, block: float) -> None:
        self.accuracy = np.full(len(nets), np.nan, np.float32)
        self.status = np.zeros(len(nets), np.uint8)
        self._nets, self._task, self._folder, self._block = nets, task, folder, block
        self._waiting: Ended = []
        self._work = 0.0
        self._next = self._restore()

    def keep(self, ended: Ended) -> None:
        """Keep the scores, and write a shard when there are enough nets for one."""
        self._note(Figures.of(ended))
        trained = [done for done in ended if done.result is not None]
        self._waiting += trained
        self._work += sum(multiply_adds(self._nets[done.index], self._task) for done in trained)
        if self._work >= self._block or len(self._waiting) >= _NETS_A_SHARD:
            self.save(at_once=True)

    def keep_from(
        self, on: Executor, training: Training, blocks: Iterable[Block]
    ) -> Generator[Done[Figures]]:
        """Yield the figures of blocks whose shards their workers have written."""
        first = self._next
        ended = write_shards(on, train_shard, training, enumerate(blocks, first), self._folder)
        with contextlib.closing(ended):
            for done in ended:
                if done.result is not None:
                    self._note(done.result)
                yield Done(done.index - first, done.result, done.error)

    def save(self, *, at_once: bool) -> None:
        """Write a shard of the nets that wait for one."""
        if at_once and self._waiting:
            write_shard(self._folder, self._next, _arrays(self._waiting))
            self._next += 1
            self._waiting, self._work = [], 0.0

    def _note(self, figures: Figures) -> None:
        self.accuracy[figures.nets] = figures.accuracy
        self.status[figures.nets] = np.where(figures.diverged, DIVERGED, FINISHED)

    def _restore(self) -> int:
        """Read the shards that exist and return the number of the next one."""
        following = 0
        for number, shard in read_shards(self._folder):
            file = shard_file(self._folder, number)
            nets = check_array(shard, "net", file, dtype=np.int64, shape=(None,))
            count = len(nets)
            accuracy = check_array(shard, "test_accuracy", file, dtype=np.float32, shape=(count,))
            step = check_array(shard, "diverged_step", file, dtype=np.int64, shape=(count,))
            if count and not 0 <= nets.min() <= nets.max() < len(self.status):
                raise damaged(file, f"it names a net that isn't among the {len(self.status)}")
            self._note(Figures(nets, accuracy, step > 0, ()))
            following = number + 1
        return following


def train_shard(training: Training, block: Block) -> tuple[Figures, Arrays]:
    """Train the nets of a block on a worker.

    Args:
        training: what all blocks read.
        block: int64[k], the numbers of the nets.

    Returns:
        The figures for the driver and the arrays of the shard.
    """
    ended = train_block(training, block)
    return Figures.of(ended), _arrays(ended)


def _arrays(ended: Ended) -> Arrays:
    trained = [(done.index, done.result) for done in ended if done.result is not None]
    return {
        "net": np.array([net for net, _ in trained], np.int64),
        **{
            name: np.array([outcome.test.get(name, math.nan) for _, outcome in trained], np.float32)
            for name in TEST_FIGURES
        },
        "diverged_step": np.array([outcome.diverged_step for _, outcome in trained], np.int64),
    }
