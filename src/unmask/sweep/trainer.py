"""The training of one net of a sweep, or of a stack of them: create, train, measure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from unmask.sweep.init import draw_layers, epoch_order
from unmask.sweep.spec import Nets, NetSpec
from unmask.sweep.task import FlatImages, Task

_NETS_GROUPED = 4096


class Net(Protocol):
    """The interface of a net, whether the kernel's or the reference."""

    def train(self, order: NDArray[np.uint32]) -> tuple[float, float, int]:
        """Train one epoch and return mean loss, accuracy and the diverged step or -1.

        Args:
            order: uint32[m] into the training images.
        """
        ...

    def evaluate(self, pixels: NDArray[np.uint8], labels: NDArray[np.int64]) -> tuple[float, float]:
        """Return the mean loss and the accuracy.

        Args:
            pixels: uint8[m, d].
            labels: int64[m].
        """
        ...

    def probe(
        self,
        pixels: NDArray[np.uint8],
        labels: NDArray[np.int64],
        dead_pixels: NDArray[np.uint8],
    ) -> dict[str, NDArray[np.float64]]:
        """Return the per-layer statistics of LAYER_STATISTICS, float64[layers] each.

        Args:
            pixels: uint8[m, d], of the mini-batch.
            labels: int64[m].
            dead_pixels: uint8[k, d], over which units are judged dead.
        """
        ...


@dataclass
class Outcome:
    """The measurements of one net.

    Args:
        curves: by a name in history.CURVES, a value an epoch.
        test: by a name in history.TEST_FIGURES.
        layers: for each probe, the statistics of LAYER_STATISTICS, float64[layers].
        diverged_step: the first step (from 1) with a loss that is not finite, or -1.
    """

    curves: dict[str, list[float]] = field(default_factory=dict)
    test: dict[str, float] = field(default_factory=dict)
    layers: list[dict[str, NDArray[np.float64]]] = field(default_factory=list)
    diverged_step: int = -1

    def add_epoch(
        self, loss: float, accuracy: float, validated: tuple[float, float] | None, steps: int
    ) -> None:
        """Add the figures of an epoch.

        Args:
            loss: the mean over its training images.
            accuracy: likewise, 0 to 1.
            validated: loss and accuracy on the validation images, None without.
            steps: taken since the start.
        """
        figures = {"train_loss": loss, "train_accuracy": accuracy}
        if validated is not None:
            loss, accuracy = validated
            figures |= {"validation_loss": loss, "validation_accuracy": accuracy}
        for name, value in figures.items():
            self.curves.setdefault(name, []).append(value)
        # The last update of the epoch can be the one that made the net diverge.
        if not math.isfinite(loss):
            self.diverged_step = steps

    def add_test(self, loss: float, accuracy: float, steps: int) -> None:
        """Add the figures on the test images.

        Args:
            loss: the mean.
            accuracy: 0 to 1.
            steps: taken since the start.
        """
        self.test = {"test_loss": loss, "test_accuracy": accuracy}
        if not math.isfinite(loss):
            self.diverged_step = steps


class StoppedError(Exception):
    """The sweep was stopped while this net trained."""


class Observer:
    """Is called while nets train, with the number of each; this one does nothing."""

    def parts(self, net: int, order: NDArray[np.uint32]) -> Iterator[NDArray[np.uint32]]:
        """Yield an epoch's order whole, or in parts that end where a mini-batch does.

        Args:
            net: its number.
            order: uint32[m] into the training images.

        Yields:
            Successive parts of the order. An epoch whose parts end early is the net's last.
        """
        yield order

    def part_done(self, net: int, images: int, loss: float, accuracy: float) -> None:
        """Receive the figures of a part of an epoch.

        Args:
            net: its number.
            images: how many the part has.
            loss: the mean over them.
            accuracy: likewise, 0 to 1.
        """

    def epoch_done(self, net: int) -> None:
        """Receive that an epoch of the net has ended."""


UNOBSERVED = Observer()


def lots(task: Task, nets: Nets, indices: Sequence[int] | NDArray[np.int64]) -> Iterator[list[int]]:
    """Yield the indices in lots for train_lot: one net each, or as many as fit into a stack.

    Args:
        task: names the engine.
        nets: all nets of the sweep.
        indices: the numbers of those to train.
    """
    if task.engine != "stacked":
        yield from ([int(i)] for i in indices)
        return
    from unmask.sweep.stack import most_in_a_stack, stackable

    for start in range(0, len(indices), _NETS_GROUPED):
        alike: dict[object, list[int]] = {}
        for i in indices[start : start + _NETS_GROUPED]:
            alike.setdefault(stackable(nets[i]), []).append(int(i))
        for members in alike.values():
            size = most_in_a_stack(nets[members[0]], task.train.pixels.shape[1])
            yield from (members[i : i + size] for i in range(0, len(members), size))


def train_lot(
    nets: Nets, lot: Sequence[int], task: Task, observer: Observer = UNOBSERVED
) -> list[Outcome]:
    """Train the nets of a lot.

    Args:
        nets: all nets of the sweep.
        lot: the numbers of some of them, as lots yields them.
        task: what they have in common.
        observer: is called while they train.

    Returns:
        Their outcomes, in the lot's order.

    Raises:
        StoppedError: the task is stopped.
    """
    if task.engine == "stacked":
        return _train_stack([nets[i] for i in lot], lot, task, observer)
    return [_train_net(nets[i], i, task, observer) for i in lot]


def _train_net(spec: NetSpec, index: int, task: Task, observer: Observer) -> Outcome:
    net = _net(spec, task)
    outcome = Outcome()
    count = len(task.train.labels)
    steps = math.ceil(count / spec.batch_size)

    def take_probe(epoch: int) -> None:
        if epoch in task.probe_epochs:
            probe = task.probe
            outcome.layers.append(net.probe(probe.pixels, probe.labels, task.dead.pixels))

    def evaluate(images: FlatImages) -> tuple[float, float]:
        figures = net.evaluate(images.pixels, images.labels)
        _check(task)
        return figures

    take_probe(0)
    for epoch in range(1, spec.epochs + 1):
        parts: list[tuple[int, float, float]] = []
        for part in observer.parts(index, epoch_order(spec, epoch, count)):
            loss, accuracy, diverged_step = net.train(part)
            _check(task)
            if diverged_step > 0:
                observer.epoch_done(index)
                outcome.diverged_step = diverged_step
                return outcome
            observer.part_done(index, len(part), loss, accuracy)
            parts.append((len(part), loss, accuracy))
        if sum(images for images, _, _ in parts) < count:
            break
        observer.epoch_done(index)
        validated = None if task.validation is None else evaluate(task.validation)
        outcome.add_epoch(*_mean(parts), validated, epoch * steps)
        if outcome.diverged_step > 0:
            return outcome
        take_probe(epoch)
    if task.test is not None:
        outcome.add_test(*evaluate(task.test), spec.epochs * steps)
    return outcome


def _mean(parts: Iterable[tuple[int, float, float]]) -> tuple[float, float]:
    """Return the loss and accuracy of an epoch; those of a single part are unchanged to the bit."""
    images, losses, accuracies = zip(*parts, strict=True)
    if len(images) == 1:
        return losses[0], accuracies[0]
    return float(np.average(losses, weights=images)), float(np.average(accuracies, weights=images))


def _train_stack(
    specs: Sequence[NetSpec], lot: Sequence[int], task: Task, observer: Observer
) -> list[Outcome]:
    from unmask.sweep.stack import StackedNets

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
            observer.epoch_done(lot[i])
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


def training_cost(spec: NetSpec, train: FlatImages) -> float:
    """Return the multiply-adds of training on one image, forward and backward.

    Args:
        spec: the net.
        train: the training images, for their size and classes.
    """
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
