"""Sweeps whose figures fit into memory: every net's curves and statistics in one history."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unmask.data.images import Images
from unmask.data.load import load_beside, load_training
from unmask.errors import UserError
from unmask.execution.executor import Done, Executor
from unmask.runtime import environment_stamp, sha256
from unmask.sweep.driver import Block, Figures, drive
from unmask.sweep.history import DIVERGED, FINISHED, SweepHistory
from unmask.sweep.meter import SweepProgress
from unmask.sweep.pool import Ended, Training, train_block
from unmask.sweep.spec import NetSpec
from unmask.sweep.task import Engine, Task, digests, prepared
from unmask.sweep.trainer import Outcome

__all__ = ["SweepInterrupted", "SweepProgress", "train_sweep"]

_SAVE_EVERY, _SAVE_SHARE = 2.0, 0.05


class SweepInterrupted(KeyboardInterrupt):
    """Ctrl-C during a sweep.

    Args:
        history: holds every net that was finished by then.
    """

    def __init__(self, history: SweepHistory) -> None:
        super().__init__("the sweep was interrupted")
        self.history = history


def train_sweep(
    specs: Iterable[NetSpec],
    images: Any,
    *,
    validation: Any = None,
    test: Any = None,
    probe_batch: Any = None,
    dead_probe: Any = None,
    probe_epochs: Iterable[int] = (0,),
    threads: int | None = None,
    engine: Engine | None = None,
    device: str = "cpu",
    on: Executor | None = None,
    progress: Callable[[SweepProgress], None] | None = None,
    checkpoint: str | Path | None = None,
    resume: bool = False,
) -> SweepHistory:
    """Train every net of a sweep and return what was measured.

    The result depends on neither threads, the executor nor the order of specs. Nets read
    pixels / 255, flattened.

    Args:
        specs: the nets.
        images: what they are trained on, as load_data takes it; of a name or folder its training
            images. The other images are given likewise.
        validation: images for a loss and an accuracy after every epoch.
        test: images for a loss and an accuracy at the end.
        probe_batch: images of the per-layer statistics; default: the first 256 of images.
        dead_probe: images over which units are judged dead; default: probe_batch.
        probe_epochs: when the statistics are taken; 0 is before training.
        threads: how many nets train at once; default: one a core.
        engine: "native" is the C++ kernel, on the CPU; "stacked" trains nets of one shape together
            in PyTorch, to the same figures but for rounding, and "reference" one by one. None is
            native on the CPU and stacked elsewhere.
        device: a PyTorch device for the engines "stacked" and "reference".
        on: trains the nets in blocks of seconds, to the same bits; None is this process.
        progress: called about five times a second, or for every block, and at the end.
        checkpoint: a file that gets the history so far every few seconds and at the end.
        resume: continue from the checkpoint; without it, one that exists is refused.

    Returns:
        The history, one row a net, in the order of specs.

    Raises:
        UserError: something doesn't fit, there is no checkpoint to resume from, it can't be
            written, or, when all others are trained and saved, nets failed.
        SweepInterrupted: Ctrl-C, after saving.

    Example:
        >>> images = unmask.load_data("mnist", part="train", count=200)
        >>> history = unmask.train_sweep(unmask.grid(depth=[1, 3], epochs=2), images)
        >>> history.curves["train_loss"].shape  # nets, epochs
        (2, 2)
    """
    specs = _nets(specs)
    checkpoint = None if checkpoint is None else Path(checkpoint)
    if checkpoint is None and resume:
        raise UserError("there is nothing to resume from", do="give the checkpoint")
    if checkpoint is not None and checkpoint.is_dir():
        raise UserError(
            "the checkpoint is a folder", got=str(checkpoint), do="name a file in it: history.npz"
        )
    images = load_training(images)
    validation, test, probe_batch, dead_probe = (
        None if given is None else load_beside(given, images)
        for given in (validation, test, probe_batch, dead_probe)
    )
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
    last = max(s.epochs for s in specs)
    if task.probe_epochs and task.probe_epochs[-1] > last:
        raise UserError(
            "no net reaches an epoch at which layers are measured",
            got=f"epoch {task.probe_epochs[-1]} of {last}",
            do=f"give 0 to {last}",
        )
    key = _key(specs, task, (images, validation, test, probe_batch, dead_probe))
    if checkpoint is not None and checkpoint.exists():
        history = _resumed(checkpoint, key, resume)
    else:
        stamp = environment_stamp(
            engine=task.engine, instructions=task.instructions, data=images.sha256, key=key
        )
        history = SweepHistory.empty(specs, task.probe_epochs, stamp)
    sink = _HistorySink(history, checkpoint)
    try:
        drive(specs, task, sink, threads=threads, on=on, progress=progress, kept=checkpoint)
    except KeyboardInterrupt:
        raise SweepInterrupted(history) from None
    return history


def _nets(specs: Iterable[NetSpec]) -> tuple[NetSpec, ...]:
    if isinstance(specs, NetSpec):
        raise UserError("a sweep takes a list of nets", got="one NetSpec", do="put it into a list")
    nets = tuple(specs)
    if not nets:
        raise UserError("a sweep needs at least one net", got="none")
    for net in nets:
        if not isinstance(net, NetSpec):
            raise UserError(
                "this is no NetSpec", got=type(net).__name__, do="NetSpec(...) or unmask.grid(...)"
            )
    return nets


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


class _HistorySink:
    """Keeps figures in a history, and saves that to a file seldom enough to cost little."""

    def __init__(self, history: SweepHistory, file: Path | None) -> None:
        self._history, self._file = history, file
        self._saved, self._due = self._nets_kept(), time.monotonic() + _SAVE_EVERY

    @property
    def status(self) -> NDArray[np.uint8]:
        """The status of the history."""
        return self._history.status

    def keep(self, ended: Ended) -> None:
        """Write outcomes into the history."""
        for done in ended:
            if done.result is not None:
                _record(self._history, done.index, done.result)

    def keep_from(
        self, on: Executor, training: Training, blocks: Iterable[Block]
    ) -> Generator[Done[Figures]]:
        """Yield the figures of blocks whose outcomes came from the executor."""
        with contextlib.closing(on.run(train_block, training, blocks)) as ended:
            for done in ended:
                if done.result is None:
                    yield Done(done.index, None, done.error)
                    continue
                self.keep(done.result)
                yield Done(done.index, Figures.of(done.result), None)

    def save(self, *, at_once: bool) -> None:
        """Save the history to its file, if it has one."""
        begun, kept = time.monotonic(), self._nets_kept()
        if self._file is None or not (at_once or (begun > self._due and kept > self._saved)):
            return
        self._history.save(self._file)
        ended = time.monotonic()
        self._saved = kept
        self._due = ended + max(_SAVE_EVERY, (ended - begun) / _SAVE_SHARE)

    def _nets_kept(self) -> int:
        return int(np.count_nonzero(self._history.status))


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
