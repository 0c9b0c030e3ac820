"""Nets that train while somebody looks on, a slice of an epoch at a time."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from unmask.data.images import Images
from unmask.data.mnist import load_mnist
from unmask.errors import UserError
from unmask.flow.profile import IMAGES, NoPrediction, Prediction
from unmask.flow.theory import predict, weight_layers
from unmask.runtime import cpu_threads
from unmask.sweep.init import draw_layers, epoch_order
from unmask.sweep.native_net import fastest_net
from unmask.sweep.spec import NetSpec
from unmask.sweep.trainer import Pictures

MAX_DEPTH, MAX_WIDTH, MAX_NETS, MAX_EPOCHS = 100, 256, 8, 20
_TRAINED, _TESTED = 6000, 2000
# A slice takes about this long, and a whole run at most that.
_SLICE, _LONGEST = 0.7, 45.0
_FIRST_SLICE, _LEAST = 8, 2


@dataclass
class Curve:
    """One net: epochs seen, loss and accuracy of the slices until then, and how it ended.

    test: accuracy on test images, once it is done. diverged: whether its loss left the numbers.
    """

    epochs: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)
    test: float | None = None
    diverged: bool = False


@dataclass
class LiveRun:
    """Nets of one setting that differ by their seed alone."""

    spec: NetSpec
    curves: list[Curve]
    seconds: float = 0.0
    cut_short: bool = False

    @property
    def done(self) -> bool:
        """Whether every net has come to its end."""
        return all(c.diverged or c.test is not None for c in self.curves)


@lru_cache(maxsize=1)
def pictures() -> tuple[Images, Images]:
    """Return the training and the test images: a part of MNIST, the same for every run."""
    train, test = load_mnist()
    return train[:_TRAINED], test[:_TESTED]


def checked(spec: NetSpec, nets: int) -> NetSpec:
    """Return the spec if the page has time for it. Raises UserError."""
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
    """Train nets of seeds 0, 1, ... side by side; yield the same run again as it grows.

    Ends early, cut short, after 45 seconds. Closing the iterator stops the nets at once. Raises
    UserError for what takes too long.
    """
    checked(spec, nets)
    train, test = (Pictures.of(images) for images in pictures())
    stop = np.zeros(1, np.uint8)
    run = LiveRun(spec, [Curve() for _ in range(nets)])
    threads = cpu_threads()
    begun = time.monotonic()

    def trained(seed: int) -> Iterator[None]:
        of_seed = replace(spec, seed=seed)
        parameters = draw_layers(of_seed, train.pixels.shape[1], train.classes)
        net = fastest_net(of_seed, parameters, train.pixels, train.labels, train.classes, stop=stop)
        curve, seen, batches = run.curves[seed], 0, _FIRST_SLICE
        for epoch in range(1, spec.epochs + 1):
            rest = epoch_order(of_seed, epoch, len(train.labels))
            while len(rest):
                # What is left of the epoch goes in equal parts: a short one would be all noise.
                parts = max(1, round(len(rest) / (batches * spec.batch_size)))
                size = math.ceil(len(rest) / parts / spec.batch_size) * spec.batch_size
                part, rest = np.split(rest, [size])
                since = time.monotonic()
                loss, accuracy, diverged_step = net.train(np.ascontiguousarray(part))
                took = time.monotonic() - since
                # All nets share the cores, so each gets its part of a slice's time.
                wanted = _SLICE / math.ceil(nets / threads)
                batches = max(_LEAST, int(batches * min(2.0, wanted / max(took, 1e-6))))
                if diverged_step > 0 or not math.isfinite(loss):
                    curve.diverged = True
                    return
                seen += len(part)
                curve.epochs.append(seen / len(train.labels))
                curve.losses.append(loss)
                curve.accuracies.append(accuracy)
                if time.monotonic() - begun > _LONGEST:
                    run.cut_short = True
                    break
                yield
            if run.cut_short:
                break
        curve.test = net.evaluate(test.pixels, test.labels)[1]

    alive = [trained(seed) for seed in range(nets)]
    with ThreadPoolExecutor(threads) as pool:
        try:
            while alive:
                going = pool.map(lambda net: next(net, _ENDED) is not _ENDED, alive)
                alive = list(itertools.compress(alive, list(going)))
                run.seconds = time.monotonic() - begun
                yield run
        finally:
            stop[0] = 1


_ENDED = object()


def profile_at_start(spec: NetSpec) -> Prediction | NoPrediction:
    """Return the gradient of every layer before training, measured and predicted by theory."""
    train = pictures()[0][:IMAGES]
    flat = Pictures.of(train)
    parameters = draw_layers(spec, flat.pixels.shape[1], flat.classes)
    net = fastest_net(spec, parameters, flat.pixels, flat.labels, flat.classes)
    measured = net.probe(flat.pixels, flat.labels, flat.pixels)
    layers = weight_layers(spec, flat.pixels.shape[1], flat.classes)
    inputs: NDArray[np.float64] = flat.pixels / 255
    expected = predict(spec.activation, layers, inputs, flat.labels, loss=spec.loss)
    if not np.isfinite(expected.gradient_rms).all():
        return NoPrediction("its signal leaves the range of numbers")
    forward = measured["activation_rms"].copy()
    forward[-1] = np.nan
    names = tuple(str(k) for k in range(1, len(layers) + 1))
    return Prediction(
        names,
        spec.activation,
        len(flat.labels),
        layers,
        expected,
        measured["gradient_rms"],
        forward,
    )
