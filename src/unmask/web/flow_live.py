"""The page's nets, which train while a visitor watches, a slice of an epoch at a time."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from unmask.data.images import Images
from unmask.data.mnist import load_mnist
from unmask.errors import UserError
from unmask.flow.profile import IMAGES, NoPrediction, Prediction
from unmask.flow.theory import predict, weight_layers
from unmask.sweep.engine import train_sweep
from unmask.sweep.pool import Pool, Training
from unmask.sweep.spec import NetSpec
from unmask.sweep.task import FlatImages, default_engine, prepared
from unmask.sweep.trainer import Observer, Outcome

MAX_DEPTH, MAX_WIDTH, MAX_NETS, MAX_EPOCHS = 100, 256, 8, 20
_TRAINED, _TESTED = 6000, 2000
# Seconds that a slice takes, about, and that a whole run takes at most.
_SLICE, _LONGEST = 0.7, 45.0
_FIRST_SLICE, _LEAST = 8, 2


@dataclass
class Curve:
    """The learning curve of one net, and how it ended.

    Args:
        epochs: seen by the end of each slice.
        losses: the mean loss of each slice.
        accuracies: the accuracy of each slice, 0 to 1.
        test: accuracy on test images, once it is done.
        diverged: whether its loss became infinite or NaN.
    """

    epochs: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)
    test: float | None = None
    diverged: bool = False

    def add(self, epochs: float, loss: float, accuracy: float) -> None:
        """Append a slice of so many epochs."""
        self.epochs.append((self.epochs[-1] if self.epochs else 0.0) + epochs)
        self.losses.append(loss)
        self.accuracies.append(accuracy)

    def end(self, outcome: Outcome) -> None:
        """Record how the net ended."""
        self.diverged = outcome.diverged_step > 0
        self.test = None if self.diverged else outcome.test["test_accuracy"]


@dataclass
class LiveRun:
    """Nets of one setting that differ only by their seed.

    Args:
        spec: the setting.
        curves: one for each net.
        seconds: since the start.
        cut_short: whether the time limit ended it.
    """

    spec: NetSpec
    curves: list[Curve]
    seconds: float = 0.0
    cut_short: bool = False

    @property
    def done(self) -> bool:
        """Whether every net has ended."""
        return all(c.diverged or c.test is not None for c in self.curves)


@lru_cache(maxsize=1)
def live_images() -> tuple[Images, Images]:
    """Return the training and the test images: a subset of MNIST, the same for every run."""
    train, test = load_mnist()
    return train[:_TRAINED], test[:_TESTED]


def checked(spec: NetSpec, nets: int) -> NetSpec:
    """Return the spec if the page has time for it.

    Args:
        spec: the setting.
        nets: how many of it.

    Raises:
        UserError: when a size is out of the page's range.
    """
    for name, value, most in (
        ("depth", spec.depth, MAX_DEPTH),
        ("width", spec.width, MAX_WIDTH),
        ("number of epochs", spec.epochs, MAX_EPOCHS),
        ("number of nets", nets, MAX_NETS),
    ):
        if not 1 <= value <= most:
            raise UserError(f"the {name} must lie in 1 to {most}", got=value)
    return spec


def train_live(spec: NetSpec, nets: int) -> Iterator[LiveRun]:
    """Train nets of seeds 0, 1, ... side by side, as a sweep does.

    Args:
        spec: the setting; its seed is not used.
        nets: how many of it.

    Yields:
        The same run again as it grows. It ends early, cut short, after 45 seconds. Closing the
        iterator stops the nets at once.

    Raises:
        UserError: when a size is out of the page's range.
    """
    checked(spec, nets)
    train, test = live_images()
    task = prepared(
        train,
        largest_batch=spec.batch_size,
        test=test,
        probe_batch=train[:1],
        dead_probe=train[:1],
        # Not stacked: each net trains its own slices.
        engine=default_engine(elsewhere=True),
    )
    run = LiveRun(spec, [Curve() for _ in range(nets)])
    seen = _Slices(run, spec.batch_size, len(train))
    specs = [replace(spec, seed=seed) for seed in range(nets)]
    # A thread for each net, even with fewer cores, so that the visitor sees all curves grow.
    with Pool(Training(specs, task), range(nets), nets, seen) as pool:
        while pool.busy:
            for done in pool.ended():
                if done.result is None:
                    raise RuntimeError(done.error)
                run.curves[done.index].end(done.result)
            seconds = time.monotonic() - seen.begun
            if seconds - run.seconds > _SLICE or not pool.busy:
                run.seconds = seconds
                yield run


class _Slices(Observer):
    """Cuts epochs into slices of a second or less, and appends each to its net's curve."""

    def __init__(self, run: LiveRun, batch_size: int, images: int) -> None:
        self.begun = time.monotonic()
        self._run, self._batch_size, self._images = run, batch_size, images
        self._batches = [_FIRST_SLICE] * len(run.curves)

    def parts(self, net: int, order: NDArray[np.uint32]) -> Iterator[NDArray[np.uint32]]:
        """Yield slices that take about _SLICE seconds each, until time is up."""
        rest = order
        while len(rest):
            if time.monotonic() - self.begun > _LONGEST:
                self._run.cut_short = True
                return
            # The rest of the epoch is cut into equal slices: a short one would be all noise.
            parts = max(1, round(len(rest) / (self._batches[net] * self._batch_size)))
            size = math.ceil(len(rest) / parts / self._batch_size) * self._batch_size
            part, rest = np.split(rest, [size])
            since = time.monotonic()
            yield np.ascontiguousarray(part)
            faster = min(2.0, _SLICE / max(time.monotonic() - since, 1e-6))
            self._batches[net] = max(_LEAST, int(self._batches[net] * faster))

    def part_done(self, net: int, images: int, loss: float, accuracy: float) -> None:
        """Append a slice to the net's curve."""
        if math.isfinite(loss):
            self._run.curves[net].add(images / self._images, loss, accuracy)


def profile_at_start(spec: NetSpec) -> Prediction | NoPrediction:
    """Return the gradient of every layer before training, as measured and as theory predicts."""
    train = live_images()[0][:IMAGES]
    start = replace(spec, epochs=0, batch_size=min(spec.batch_size, len(train)))
    measured = train_sweep([start], train, probe_batch=train).layers
    flat = FlatImages.of(train)
    layers = weight_layers(spec, flat.pixels.shape[1], flat.classes)
    inputs: NDArray[np.float64] = flat.pixels / 255
    expected = predict(spec.activation, layers, inputs, flat.labels, loss=spec.loss)
    if not np.isfinite(expected.gradient_rms).all():
        return NoPrediction("its signal leaves the range of numbers")
    forward = measured["activation_rms"][0, 0].copy()
    forward[-1] = np.nan
    names = tuple(str(k) for k in range(1, len(layers) + 1))
    return Prediction(
        names,
        spec.activation,
        len(flat.labels),
        layers,
        expected,
        measured["gradient_rms"][0, 0],
        forward,
    )
