"""Train any number of nets at once, one net a core at a time, here or on a cluster."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from pathlib import Path

from unmask.data.images import Images
from unmask.errors import UserError
from unmask.execution.executor import Executor
from unmask.runtime import cpu_threads, environment_stamp, sha256
from unmask.sweep.blocks import train_blocks
from unmask.sweep.history import DIVERGED, FINISHED, PENDING, SweepHistory
from unmask.sweep.lots import lots, train_lot
from unmask.sweep.meter import Meter, Saver, SweepProgress
from unmask.sweep.preparation import digests, prepared
from unmask.sweep.spec import NetSpec, named
from unmask.sweep.trainer import Engine, Outcome, StoppedError, Task

__all__ = ["SweepInterrupted", "SweepProgress", "train_sweep"]

_TICK = 0.2


class SweepInterrupted(KeyboardInterrupt):
    """Ctrl-C during a sweep; history holds every net that was finished by then."""

    def __init__(self, history: SweepHistory) -> None:
        super().__init__("the sweep was interrupted")
        self.history = history


def train_sweep(
    specs: Iterable[NetSpec],
    images: Images,
    *,
    validation: Images | None = None,
    test: Images | None = None,
    probe_batch: Images | None = None,
    dead_probe: Images | None = None,
    probe_epochs: Iterable[int] = (0,),
    threads: int | None = None,
    engine: Engine | None = None,
    device: str = "cpu",
    on: Executor | None = None,
    progress: Callable[[SweepProgress], None] | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
) -> SweepHistory:
    """Train every net of specs on images and return what was measured.

    Nets read pixels / 255, flattened. Per-layer statistics are taken of probe_batch (default: the
    first 256 images of images) at the start (epoch 0) and after the other epochs in
    probe_epochs; units are judged dead over dead_probe (default: probe_batch). The result depends
    on neither threads (default: every core) nor the order of specs. engine "native" is the kernel,
    on the CPU; "stacked" trains nets of one shape together in plain PyTorch on device, to the same
    figures but for rounding, and "reference" one by one; None is native on the CPU and stacked
    elsewhere. on: who trains the nets, in blocks of seconds, to the same bits; None is this
    process. With checkpoint the history so far is saved there every few seconds, and resume goes
    on from it; without resume one that exists is refused. progress is called about five times a
    second, or for every block, and at the end. Raises UserError for what doesn't fit and, when all
    others are trained and saved, for nets that an executor failed to train; and SweepInterrupted,
    after saving, on Ctrl-C.
    """
    specs = tuple(specs)
    if not specs:
        raise UserError("a sweep needs at least one net", got="none")
    probe_batch = images[:256] if probe_batch is None else probe_batch
    dead_probe = probe_batch if dead_probe is None else dead_probe
    task = prepared(
        images,
        largest_batch=max(s.batch_size for s in specs),
        validation=validation,
        test=test,
        probe_batch=probe_batch,
        dead_probe=dead_probe,
        probe_epochs=probe_epochs,
        threads=threads,
        engine=engine,
        device=device,
        elsewhere=on is not None,
    )
    key = _key(specs, task, (images, validation, test, probe_batch, dead_probe))
    if checkpoint is not None and checkpoint.exists():
        history = _resumed(checkpoint, key, resume)
    else:
        stamp = environment_stamp(
            engine=task.engine, instructions=task.instructions, data=images.sha256, key=key
        )
        history = SweepHistory.empty(specs, task.probe_epochs, stamp)
    meter = Meter(task, history)
    # The longest first, so that no core is left alone with a long net at the end.
    waiting = [i for i, status in enumerate(history.status) if status == PENDING]
    waiting.sort(key=lambda i: -meter.cost(history.specs[i]))
    if on is None:
        moves = _train_here(task, history, waiting, meter, threads or cpu_threads())
    else:
        moves = _train_on(on, task, history, waiting, meter)
    _follow(moves, history, meter, progress, checkpoint)
    return history


def _key(specs: Sequence[NetSpec], task: Task, data: Sequence[Images | None]) -> str:
    """Return a digest of everything that the figures depend on."""
    plain = [s.as_dict() for s in specs]
    everything = [plain, task.probe_epochs, task.instructions, digests(data)]
    return sha256(json.dumps(everything).encode())


def _resumed(checkpoint: Path, key: str, resume: bool) -> SweepHistory:
    if not resume:
        raise UserError(
            f"{checkpoint.parent} already holds a sweep",
            do="resume it (--resume) or choose another folder (--out)",
        )
    history = SweepHistory.load(checkpoint)
    if history.stamp.get("key") != key:
        raise UserError(
            f"{checkpoint} belongs to another sweep",
            got="other nets, data, engine or instruction set",
            do="resume with the settings it was begun with, or choose another folder",
        )
    return history


def _follow(
    moves: Generator[None],
    history: SweepHistory,
    meter: Meter,
    progress: Callable[[SweepProgress], None] | None,
    checkpoint: Path | None,
) -> None:
    """Report and save after every move of the training, and save however it ends."""
    saver = None if checkpoint is None else Saver(checkpoint, history, meter)
    try:
        with contextlib.closing(moves):
            for _ in moves:
                if progress:
                    progress(meter.read())
                if saver:
                    saver.save_when_due()
        if progress:
            progress(meter.read())
    except KeyboardInterrupt:
        raise SweepInterrupted(history) from None
    finally:
        if saver:
            saver.save()
    if meter.failures:
        index, error = next(iter(meter.failures.items()))
        raise UserError(
            f"{len(meter.failures)} of {len(history.specs)} nets failed",
            got=f"{named(history.specs[index])}: {error}",
            do=""
            if checkpoint is None
            else f"the others are kept in {checkpoint}, resume to try again",
        )


def _train_here(
    task: Task, history: SweepHistory, waiting: Sequence[int], meter: Meter, threads: int
) -> Generator[None]:
    queue = deque(lots(task, history.specs, waiting))
    failures: list[BaseException] = []

    def work() -> None:
        while not task.stop[0] and not failures:
            try:
                lot = queue.popleft()
                outcomes = train_lot([history.specs[i] for i in lot], task, meter.epoch_done)
            except (IndexError, StoppedError):
                return
            except BaseException as error:
                failures.append(error)
                return
            with meter.lock:
                for index, outcome in zip(lot, outcomes, strict=True):
                    _record(history, index, outcome)

    # A GPU is kept busy by one thread, and shared badly by several.
    threads = 1 if task.engine == "stacked" else threads
    workers = [threading.Thread(target=work, daemon=True) for _ in range(threads)]
    try:
        for worker in workers:
            worker.start()
        while any(w.is_alive() for w in workers):
            deadline = time.monotonic() + _TICK
            for worker in workers:
                worker.join(max(0.0, deadline - time.monotonic()))
            yield
    finally:
        task.stop[0] = 1
        for worker in workers:
            if worker.ident is not None:
                worker.join()
    if failures:
        raise failures[0]


def _train_on(
    executor: Executor, task: Task, history: SweepHistory, waiting: Sequence[int], meter: Meter
) -> Generator[None]:
    blocks = train_blocks(executor, task, history.specs, waiting)
    with contextlib.closing(blocks):
        for block in blocks:
            with meter.lock:
                for index, done in block.nets:
                    if done.result is None:
                        meter.failures[index] = str(done.error)
                    else:
                        _record(history, index, done.result)
            for index, _ in block.nets:
                meter.net_done(history.specs[index])
            meter.running = block.running
            yield


def _record(history: SweepHistory, index: int, outcome: Outcome) -> None:
    for name, values in outcome.curves.items():
        history.curves[name][index, : len(values)] = values
    for name, value in outcome.test.items():
        history.test[name][index] = value
    for probe, statistics in enumerate(outcome.layers):
        for name, by_layer in statistics.items():
            history.layers[name][index, probe, : len(by_layer)] = by_layer
    history.diverged_step[index] = outcome.diverged_step
    # Written last: a net whose status is set has all its figures.
    history.status[index] = DIVERGED if outcome.diverged_step > 0 else FINISHED
