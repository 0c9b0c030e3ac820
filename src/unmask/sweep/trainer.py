"""One net of a sweep: made, trained, measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from unmask.data.images import Images
from unmask.sweep.init import draw_layers, epoch_order
from unmask.sweep.spec import NetSpec

Engine = Literal["native", "reference", "stacked"]


class Net(Protocol):
    """What a net offers, be it the kernel's or the reference."""

    def train(self, order: NDArray[np.uint32]) -> tuple[float, float, int]:
        """Train one epoch; return mean loss, accuracy and the diverged step or -1."""
        ...

    def evaluate(self, pixels: NDArray[np.uint8], labels: NDArray[np.int64]) -> tuple[float, float]:
        """Return mean loss and accuracy."""
        ...

    def probe(
        self,
        pixels: NDArray[np.uint8],
        labels: NDArray[np.int64],
        dead_pixels: NDArray[np.uint8],
    ) -> dict[str, NDArray[np.float64]]:
        """Return the per-layer statistics of LAYER_STATISTICS."""
        ...


@dataclass(frozen=True)
class Pictures:
    """Images as the nets read them: uint8[n, values], int64[n]."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    classes: int

    @staticmethod
    def of(images: Images) -> Pictures:
        """Flatten every image to a row."""
        rows = images.pixels.reshape(len(images), math.prod(images.pixels.shape[1:]))
        labels = np.ascontiguousarray(images.labels)
        return Pictures(np.ascontiguousarray(rows), labels, len(images.class_names))


@dataclass(frozen=True)
class Task:
    """What every net of a sweep has in common.

    instructions: the kernel's instruction set, which the last bits of the figures depend on.
    stop: uint8[1], set to 1 to end at once.
    """

    train: Pictures
    validation: Pictures | None
    test: Pictures | None
    probe: Pictures
    dead: Pictures
    probe_epochs: tuple[int, ...]
    engine: Engine
    device: str
    instructions: str
    stop: NDArray[np.uint8]


@dataclass
class Outcome:
    """What one net measured: curves by epoch, test figures, layer statistics by probe."""

    curves: dict[str, list[float]] = field(default_factory=dict)
    test: dict[str, float] = field(default_factory=dict)
    layers: list[dict[str, NDArray[np.float64]]] = field(default_factory=list)
    diverged_step: int = -1

    def add_epoch(
        self, loss: float, accuracy: float, validated: tuple[float, float] | None, steps: int
    ) -> None:
        """Note an epoch that ended after so many steps in all."""
        figures = {"train_loss": loss, "train_accuracy": accuracy}
        if validated is not None:
            loss, accuracy = validated
            figures |= {"validation_loss": loss, "validation_accuracy": accuracy}
        for name, value in figures.items():
            self.curves.setdefault(name, []).append(value)
        # The last update of the epoch can be the one that broke the net.
        if not math.isfinite(loss):
            self.diverged_step = steps

    def add_test(self, loss: float, accuracy: float, steps: int) -> None:
        """Note the test figures after so many steps in all."""
        self.test = {"test_loss": loss, "test_accuracy": accuracy}
        if not math.isfinite(loss):
            self.diverged_step = steps


class StoppedError(Exception):
    """The sweep was told to stop while this net trained."""


def train_net(spec: NetSpec, task: Task, epoch_done: Callable[[NetSpec], None]) -> Outcome:
    """Train a net and measure it on the way; raise StoppedError when the task is stopped."""
    net = _net(spec, task)
    outcome = Outcome()
    count = len(task.train.labels)
    steps = math.ceil(count / spec.batch_size)

    def take_probe(epoch: int) -> None:
        if epoch in task.probe_epochs:
            probe = task.probe
            outcome.layers.append(net.probe(probe.pixels, probe.labels, task.dead.pixels))

    def evaluate(pictures: Pictures) -> tuple[float, float]:
        figures = net.evaluate(pictures.pixels, pictures.labels)
        _check(task)
        return figures

    take_probe(0)
    for epoch in range(1, spec.epochs + 1):
        loss, accuracy, diverged_step = net.train(epoch_order(spec, epoch, count))
        _check(task)
        epoch_done(spec)
        if diverged_step > 0:
            outcome.diverged_step = diverged_step
            return outcome
        validated = None if task.validation is None else evaluate(task.validation)
        outcome.add_epoch(loss, accuracy, validated, epoch * steps)
        if outcome.diverged_step > 0:
            return outcome
        take_probe(epoch)
    if task.test is not None:
        outcome.add_test(*evaluate(task.test), spec.epochs * steps)
    return outcome


def train_stack(
    specs: Sequence[NetSpec], task: Task, epoch_done: Callable[[NetSpec], None]
) -> list[Outcome]:
    """Train nets that are stackable as train_net does each; return their outcomes in turn."""
    from unmask.sweep.stacked import StackedNets

    train, probe = task.train, task.probe
    nets = StackedNets(
        specs,
        (draw_layers(s, train.pixels.shape[1], train.classes) for s in specs),
        train.pixels,
        train.labels,
        device=task.device,
        stop=task.stop,
    )
    outcomes = [Outcome() for _ in specs]
    count, epochs = len(train.labels), specs[0].epochs
    steps = math.ceil(count / specs[0].batch_size)

    def going() -> list[int]:
        _check(task)
        return [i for i, outcome in enumerate(outcomes) if outcome.diverged_step < 0]

    def take_probe(epoch: int) -> None:
        if epoch in task.probe_epochs:
            for i in going():
                statistics = nets.probe(i, probe.pixels, probe.labels, task.dead.pixels)
                outcomes[i].layers.append(statistics)

    take_probe(0)
    for epoch in range(1, epochs + 1):
        trained = nets.train(np.stack([epoch_order(s, epoch, count) for s in specs]))
        _check(task)
        for i, (_, _, diverged_step) in enumerate(trained):
            epoch_done(specs[i])
            outcomes[i].diverged_step = max(outcomes[i].diverged_step, diverged_step)
        validated: list[tuple[float, float]] | None = None
        if task.validation is not None:
            validated = nets.evaluate(task.validation.pixels, task.validation.labels)
        for i in going():
            loss, accuracy, _ = trained[i]
            figures = validated[i] if validated else None
            outcomes[i].add_epoch(loss, accuracy, figures, epoch * steps)
        take_probe(epoch)
    if task.test is not None:
        tested = nets.evaluate(task.test.pixels, task.test.labels)
        for i in going():
            outcomes[i].add_test(*tested[i], epochs * steps)
    return outcomes


def training_cost(spec: NetSpec, train: Pictures) -> float:
    """Return the multiply-adds of one epoch, for an image."""
    ends = 2 * train.pixels.shape[1] + 3 * train.classes
    return float(ends * spec.width + 3 * (spec.depth - 1) * spec.width**2)


def _net(spec: NetSpec, task: Task) -> Net:
    train = task.train
    parameters = draw_layers(spec, train.pixels.shape[1], train.classes)
    if task.engine == "reference":
        from unmask.sweep.reference import ReferenceNet

        return ReferenceNet(
            spec, parameters, train.pixels, train.labels, train.classes, device=task.device
        )
    from unmask.sweep.native_net import NativeNet, require_instruction_set

    require_instruction_set(task.instructions)
    return NativeNet(
        spec,
        parameters,
        train.pixels,
        train.labels,
        train.classes,
        isa=task.instructions,
        stop=task.stop,
    )


def _check(task: Task) -> None:
    if task.stop[0]:
        raise StoppedError
