"""Train any number of nets at once, one net a core at a time."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unmask.data.images import Images
from unmask.errors import UserError, unknown
from unmask.runtime import cpu_threads, environment_stamp, sha256
from unmask.sweep.history import DIVERGED, FINISHED, PENDING, SweepHistory
from unmask.sweep.spec import NetSpec
from unmask.sweep.trainer import (
    Engine,
    Outcome,
    Pictures,
    StoppedError,
    Task,
    train_net,
    training_cost,
)

_ENGINES = ("native", "reference")
_TICK = 0.2
_SAVE_EVERY, _SAVE_SHARE = 2.0, 0.05


@dataclass(frozen=True)
class SweepProgress:
    """How far a sweep is; seconds_left is None until there is something to estimate from."""

    nets_done: int
    nets_total: int
    net_epochs_done: int
    net_epochs_total: int
    diverged: int
    seconds: float
    seconds_left: float | None


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
    engine: Engine = "native",
    device: str = "cpu",
    progress: Callable[[SweepProgress], None] | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
) -> SweepHistory:
    """Train every net of specs on images and return what was measured.

    Nets read pixels / 255, flattened. Per-layer statistics are taken of probe_batch (default: the
    first 256 pictures of images) at the start (epoch 0) and after the other epochs in
    probe_epochs; units are judged dead over dead_probe (default: probe_batch). The result depends
    on neither threads (default: every core) nor the order of specs. engine "reference" trains in
    plain PyTorch on device. With checkpoint the history so far is saved there every few seconds,
    and resume goes on from it; without resume one that exists is refused. progress is called about
    five times a second and at the end. Raises UserError for what doesn't fit, and
    SweepInterrupted, after saving, on Ctrl-C.
    """
    specs = tuple(specs)
    if engine not in _ENGINES:
        raise unknown("sweep engine", engine, _ENGINES)
    if threads is not None and threads < 1:
        raise UserError("a sweep needs at least one thread", got=threads)
    probe_batch = images[:256] if probe_batch is None else probe_batch
    dead_probe = probe_batch if dead_probe is None else dead_probe
    _validate(specs, images, validation=validation, test=test, probe=probe_batch, dead=dead_probe)
    task = Task(
        train=Pictures.of(images),
        validation=None if validation is None else Pictures.of(validation),
        test=None if test is None else Pictures.of(test),
        probe=Pictures.of(probe_batch),
        dead=Pictures.of(dead_probe),
        probe_epochs=tuple(sorted(set(probe_epochs))),
        engine=engine,
        device=device,
        stop=np.zeros(1, np.uint8),
    )
    instructions = _instructions(engine, device)
    key = _key(specs, task, instructions, (images, validation, test, probe_batch, dead_probe))
    if checkpoint is not None and checkpoint.exists():
        history = _resumed(checkpoint, key, resume)
    else:
        stamp = environment_stamp(
            engine=engine, instructions=instructions, data=images.sha256, key=key
        )
        history = SweepHistory.empty(specs, task.probe_epochs, stamp)
    return _run(task, history, threads or cpu_threads(), progress, checkpoint)


def _validate(specs: Sequence[NetSpec], images: Images, **others: Images | None) -> None:
    if not specs:
        raise UserError("a sweep needs at least one net", got="none")
    if not len(images):
        raise UserError("a sweep needs training pictures", got="none")
    largest = max(s.batch_size for s in specs)
    if largest > len(images):
        raise UserError(
            "the batch is larger than the training data",
            got=f"a batch of {largest} for {len(images)} pictures",
            do=f"choose a batch size of at most {len(images)}",
        )
    for name, data in others.items():
        if data is None:
            continue
        if not len(data):
            raise UserError(f"the {name} pictures must be at least one", got="none")
        shape, expected = data.pixels.shape[1:], images.pixels.shape[1:]
        if shape != expected or data.class_names != images.class_names:
            raise UserError(
                f"the {name} pictures don't fit the training pictures",
                got=f"{shape} with {len(data.class_names)} classes "
                f"against {expected} with {len(images.class_names)}",
                do="use pictures of one size and one list of classes",
            )


def _instructions(engine: Engine, device: str) -> str:
    if engine == "reference":
        return f"torch {device}"
    from unmask.sweep.native_net import chosen_instruction_set

    return chosen_instruction_set()


def _key(
    specs: Sequence[NetSpec], task: Task, instructions: str, data: Iterable[Images | None]
) -> str:
    """Return a digest of everything that the figures depend on."""
    hashes = [None if images is None else images.sha256 for images in data]
    everything = [[s.as_dict() for s in specs], task.probe_epochs, instructions, hashes]
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


def _run(
    task: Task,
    history: SweepHistory,
    threads: int,
    progress: Callable[[SweepProgress], None] | None,
    checkpoint: Path | None,
) -> SweepHistory:
    meter = _Meter(task, history)
    # The longest first, so that no core is left alone with a long net at the end.
    waiting = [i for i, status in enumerate(history.status) if status == PENDING]
    queue = deque(sorted(waiting, key=lambda i: -meter.cost(history.specs[i])))
    failures: list[BaseException] = []

    def work() -> None:
        while not task.stop[0] and not failures:
            try:
                index = queue.popleft()
                outcome = train_net(history.specs[index], task, meter.epoch_done)
            except (IndexError, StoppedError):
                return
            except BaseException as error:
                failures.append(error)
                return
            with meter.lock:
                _record(history, index, outcome)

    workers = [threading.Thread(target=work, daemon=True) for _ in range(threads)]
    saver = None if checkpoint is None else _Saver(checkpoint, history, meter)
    try:
        for worker in workers:
            worker.start()
        while any(w.is_alive() for w in workers):
            deadline = time.monotonic() + _TICK
            for worker in workers:
                worker.join(max(0.0, deadline - time.monotonic()))
            if progress:
                progress(meter.read())
            if saver:
                saver.save_when_due()
        if progress:
            progress(meter.read())
    except BaseException as error:
        task.stop[0] = 1
        for worker in workers:
            if worker.ident is not None:
                worker.join()
        if saver:
            saver.save()
        if isinstance(error, KeyboardInterrupt):
            raise SweepInterrupted(history) from None
        raise
    if saver:
        saver.save()
    if failures:
        raise failures[0]
    return history


class _Saver:
    """Saves the history seldom enough to cost little, often enough to lose little."""

    def __init__(self, path: Path, history: SweepHistory, meter: _Meter) -> None:
        self._path, self._history, self._meter = path, history, meter
        self._nets, self._due = meter.nets_done, time.monotonic() + _SAVE_EVERY

    def save_when_due(self) -> None:
        if time.monotonic() > self._due and self._meter.nets_done > self._nets:
            self.save()

    def save(self) -> None:
        begun, self._nets = time.monotonic(), self._meter.nets_done
        with self._meter.lock:
            self._history.save(self._path)
        ended = time.monotonic()
        self._due = ended + max(_SAVE_EVERY, (ended - begun) / _SAVE_SHARE)


class _Meter:
    """Counts what is done: the workers write, the main thread reads."""

    def __init__(self, task: Task, history: SweepHistory) -> None:
        self.lock = threading.Lock()
        self._task, self._history = task, history
        done = [s for s, status in zip(history.specs, history.status, strict=True) if status]
        self._epochs = sum(s.epochs for s in done)
        self._epochs_total = sum(s.epochs for s in history.specs)
        self._work, self._fresh_work = sum(map(self.cost, done)), 0.0
        self._work_total = sum(map(self.cost, history.specs))
        self._begun = time.monotonic()

    def cost(self, spec: NetSpec) -> float:
        return training_cost(spec, self._task.train) * spec.epochs

    @property
    def nets_done(self) -> int:
        return int(np.count_nonzero(self._history.status))

    def epoch_done(self, spec: NetSpec) -> None:
        with self.lock:
            self._epochs += 1
            self._fresh_work += training_cost(spec, self._task.train)

    def read(self) -> SweepProgress:
        with self.lock:
            seconds = time.monotonic() - self._begun
            left = self._work_total - self._work - self._fresh_work
            return SweepProgress(
                nets_done=self.nets_done,
                nets_total=len(self._history.specs),
                net_epochs_done=self._epochs,
                net_epochs_total=self._epochs_total,
                diverged=int(np.count_nonzero(self._history.status == DIVERGED)),
                seconds=seconds,
                seconds_left=seconds / self._fresh_work * left if self._fresh_work else None,
            )


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
