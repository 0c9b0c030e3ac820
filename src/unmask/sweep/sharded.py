"""Sweeps of more nets than one process should hold: what each measured lies in shards on disk."""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unmask.data.images import Images
from unmask.errors import UserError
from unmask.execution.executor import Executor
from unmask.execution.local import LocalExecutor
from unmask.execution.shards import read_shards, shard_file, write_shards
from unmask.runtime import cpu_threads, environment_stamp, write_atomically
from unmask.saved_state import check_array, damaged
from unmask.sweep.blocks import block_size, cut, multiply_adds
from unmask.sweep.history import DIVERGED, FINISHED, PENDING
from unmask.sweep.lots import Nets
from unmask.sweep.meter import SweepProgress
from unmask.sweep.preparation import digests, prepared
from unmask.sweep.shard_work import Training, train_block
from unmask.sweep.spec import named
from unmask.sweep.trainer import Task

_KEY_FILE = "key.json"
# Of a block that trains here: some seconds of every thread, or several full stacks of a GPU. Only
# SIGKILL loses what one has trained so far.
_MULTIPLY_ADDS_A_THREAD, _NETS_A_BLOCK = 2e11, 4096


class ShardsInterrupted(KeyboardInterrupt):
    """Ctrl-C during a sharded sweep; done of total nets are kept."""

    def __init__(self, done: int, total: int) -> None:
        super().__init__("the sweep was interrupted")
        self.done, self.total = done, total


@dataclass(frozen=True, eq=False)
class Scores:
    """What a sharded sweep keeps in memory of its nets.

    accuracy: float32[nets], on the test images, NaN where the net diverged. status: uint8[nets],
    an index into STATUS_NAMES.
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
    """Train nets as train_sweep does, to the same bits, and keep of each in memory only its score.

    nets: of one batch size, made when they are needed; what makes them is sent to the workers. key:
    what tells these nets from others, plain values. folder gets a shard a block of nets, written by
    who trained it: net int64[k], test_loss and test_accuracy float32[k], diverged_step int64[k].
    With resume the nets that are there are not trained again; without resume a folder that holds
    some is refused. threads, device and on: see train_sweep. Raises UserError for what doesn't fit,
    for a folder that can't be written and, when all others are trained and kept, for nets that
    failed; and ShardsInterrupted on Ctrl-C, with all finished nets kept.
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
        sweep = _Sharded(nets, task, progress or (lambda _: None))
        first = sweep.restore(where)
        try:
            if on is None:
                sweep.train_here(threads or cpu_threads(), where, first)
            else:
                sweep.train_on(on, where, first)
        except KeyboardInterrupt:
            raise ShardsInterrupted(int(np.count_nonzero(sweep.status)), len(nets)) from None
    if sweep.failure is not None:
        index, error = sweep.failure
        raise UserError(
            f"{sweep.failed} of {len(nets)} nets failed",
            got=f"{named(nets[index])}: {error}",
            do="" if folder is None else f"the others are kept in {folder}, resume to try again",
        )
    stamp = environment_stamp(
        engine=task.engine, instructions=task.instructions, data=images.sha256
    )
    return Scores(sweep.accuracy, sweep.status, stamp)


def _claim(folder: Path, text: str, resume: bool) -> None:
    """Make the folder that of this sweep. Raises UserError when it holds another."""
    file = folder / _KEY_FILE
    if file.exists():
        if not resume:
            raise UserError(
                f"{folder.parent} already holds a sweep",
                do="resume it (--resume) or choose another folder (--out)",
            )
        if file.read_text() != text:
            raise UserError(
                f"{folder} belongs to another sweep",
                got="other nets, data or instruction set",
                do="resume with the settings it was begun with, or choose another folder",
            )
        return
    with write_atomically(file) as out:
        out.write(text.encode())


class _Sharded:
    """The driver's part: a score, a status and a cost for every net, and what is in flight."""

    def __init__(self, nets: Nets, task: Task, progress: Callable[[SweepProgress], None]) -> None:
        self._nets, self._task, self._progress = nets, task, progress
        self._epochs = nets[0].epochs
        costs = (multiply_adds(nets[i], task) for i in range(len(nets)))
        self._costs = np.fromiter(costs, np.float64, len(nets))
        self.accuracy = np.full(len(nets), np.nan, np.float32)
        self.status = np.zeros(len(nets), np.uint8)
        self.failed = 0
        self.failure: tuple[int, str] | None = None
        self._done, self._diverged = 0, 0
        self._work, self._work_left = 0.0, 0.0
        self._running: int | None = None
        self._begun = time.monotonic()

    def restore(self, folder: Path) -> int:
        """Take over the shards that are there; return the number of the next one."""
        following = 0
        for number, shard in read_shards(folder):
            file = shard_file(folder, number)
            nets = check_array(shard, "net", file, dtype=np.int64, shape=(None,))
            count = len(nets)
            accuracy = check_array(shard, "test_accuracy", file, dtype=np.float32, shape=(count,))
            step = check_array(shard, "diverged_step", file, dtype=np.int64, shape=(count,))
            if count and not 0 <= nets.min() <= nets.max() < len(self.status):
                raise damaged(file, f"it names a net that isn't among the {len(self.status)}")
            self._record(nets, accuracy, step > 0)
            following = number + 1
        self._done = int(np.count_nonzero(self.status))
        return following

    def train_here(self, threads: int, folder: Path, first: int) -> None:
        """Train the nets that are left in this process, a net a thread or all on a GPU."""
        order = self._left()
        costs = self._costs[order]
        if self._task.engine == "stacked":
            # A GPU is kept busy by one thread, and shared badly by several.
            threads, blocks = 1, cut(order, np.ones(len(order)), _NETS_A_BLOCK)
        else:
            each = max(_MULTIPLY_ADDS_A_THREAD, costs.max(initial=0.0))
            blocks = cut(order, costs, threads * each)
        training = Training(self._nets, self._task, threads, self._ended)
        self._train(LocalExecutor(), training, blocks, folder, first)

    def train_on(self, on: Executor, folder: Path, first: int) -> None:
        """Train the nets that are left on an executor."""
        order = self._left()
        costs = self._costs[order]
        blocks = cut(order, costs, block_size(float(costs.sum()), on.workers))
        self._running = min(on.workers, len(order))
        self._train(on, Training(self._nets, self._task), blocks, folder, first)

    def _left(self) -> NDArray[np.int64]:
        """Return the nets to train, the longest first, so that none is left alone at the end."""
        left = np.flatnonzero(self.status == PENDING)
        self._work_left = float(self._costs[left].sum())
        return left[np.argsort(-self._costs[left], kind="stable")]

    def _train(
        self,
        on: Executor,
        training: Training,
        blocks: Iterable[Sequence[int]],
        folder: Path,
        first: int,
    ) -> None:
        flying: dict[int, NDArray[np.int64]] = {}

        def numbered() -> Iterator[tuple[int, NDArray[np.int64]]]:
            for number, block in enumerate(blocks, first):
                flying[number] = np.array(block, np.int64)
                yield number, flying[number]

        self._report()
        ended = write_shards(on, train_block, training, numbered(), folder)
        with contextlib.closing(ended):
            for done in ended:
                block, figures = flying.pop(done.index), done.result
                if figures is None:
                    self._fail((int(i), str(done.error)) for i in block)
                else:
                    self._record(figures.nets, figures.accuracy, figures.diverged)
                    self._fail(figures.failures)
                    if figures.interrupted:
                        raise KeyboardInterrupt
                if self._running is not None:
                    self._running = min(on.workers, len(flying))
                    self._ended(() if figures is None else figures.nets)
        self._report()

    def _record(
        self, nets: NDArray[np.int64], accuracy: NDArray[np.float32], diverged: NDArray[np.bool_]
    ) -> None:
        self.accuracy[nets] = accuracy
        self.status[nets] = np.where(diverged, DIVERGED, FINISHED)
        self._diverged += int(np.count_nonzero(diverged))

    def _fail(self, failures: Iterable[tuple[int, str]]) -> None:
        for failure in failures:
            self.failed += 1
            self.failure = self.failure or failure

    def _ended(self, nets: Sequence[int] | NDArray[np.int64]) -> None:
        self._done += len(nets)
        self._work += float(self._costs[np.asarray(nets, np.int64)].sum())
        self._report()

    def _report(self) -> None:
        seconds = time.monotonic() - self._begun
        left = self._work_left - self._work
        total = len(self._nets)
        self._progress(
            SweepProgress(
                nets_done=self._done,
                nets_total=total,
                net_epochs_done=self._done * self._epochs,
                net_epochs_total=total * self._epochs,
                diverged=self._diverged,
                failed=self.failed,
                running=self._running,
                seconds=seconds,
                seconds_left=seconds / self._work * left if self._work else None,
            )
        )
