"""The inputs of a model over a training: their size, the images that come again, the labels."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unmask.flow.measure.placement import Placement

# Images whose fingerprints are kept, entries for a fingerprint, passes whose size is measured.
KEPT, ENTRIES, PASSES = 200_000, 64, 16
# Images kept for a fit of the labels, pixels of each, and passes until there are enough.
FIT, PIXELS, FIT_PASSES = 512, 256, 24
# The most batches whose labels are counted, and the most labels of each; the labels a class from
# which on a batch should hold most of the classes.
BATCHES, LABELS, ENOUGH = 2_000, 4_096, 3
# Batches whose labels are counted together, which costs a tenth of one by one.
TOGETHER = 32
# The batches in which images that come again are counted, the fewest images and entries of such.
COUNTED, FEWEST, WIDE = 32, 8, 16
# The rows and columns of an image that tell the brightness of its channels; the fewest images.
PLACES, FEW = 8, 64
# Channels of colours, perhaps with one of opacity.
_COLOURS = (3, 4)


Colours = tuple[float, float, float]
Batch = tuple[int, tuple[int, ...]] | None


@dataclass(frozen=True)
class InputFacts:
    """The inputs of training passes and of passes without gradients, and the labels of batches.

    Args:
        train: (mean, standard deviation) of the entries of training inputs, None where there were
            none, or they were computed by another network.
        validation: the same of passes without gradients.
        validated: the number of images in passes without gradients.
        seen: the fraction of those that also occurred in training, bit for bit.
        colours: how far the means of three channels of validation images lie from those of training
            images, in standard deviations of the entries, the standard errors, and how far the
            first lies from the last in training; None where there are no such images.
        classes: the number of labels of each class.
        batches: the number of batches of labels.
        few: the number of batches that held at most half of the classes that as many labels hold
            when they are drawn at random, rare classes as rarely as they are.
        rows: the mean squares of differences between numbers of a row of images with three or four
            channels, by how far they lie apart, 0 to twice the channels; empty where there are
            none.
        placed: by how a mask is turned, the masks that fit their image better as they are, and
            those that fit it better turned; see Placement.
        checked: the number of labels of each class in passes without gradients.
        alike: for each of the first batches, its images and how many of them are different; of
            images with fractions, since codes and flags come again.
    """

    train: tuple[float, float] | None = None
    validation: tuple[float, float] | None = None
    validated: int = 0
    seen: float = 0.0
    colours: tuple[Colours, Colours, float] | None = None
    classes: dict[int, int] = field(default_factory=dict)
    batches: int = 0
    few: int = 0
    alike: tuple[tuple[int, int], ...] = ()
    rows: tuple[float, ...] = ()
    placed: dict[str, tuple[int, int]] = field(default_factory=dict)
    checked: dict[int, int] = field(default_factory=dict)


class _Rows:
    """How numbers of a row differ with their distance, of images that may have been reshaped."""

    def __init__(self) -> None:
        self._sums: list[NDArray[np.float64]] = []

    def add(self, x: Tensor) -> None:
        if x.ndim != 4 or x.shape[1] not in _COLOURS or x.shape[3] <= 4 * x.shape[1]:
            return
        if len(self._sums) < PASSES:
            few, far = array_of(x[:FEWEST]), 2 * x.shape[1]
            apart = [np.square(few[..., k:] - few[..., : few.shape[3] - k]) for k in range(far + 1)]
            self._sums.append(np.array([d.mean(dtype=np.float64) for d in apart]))

    def read(self) -> tuple[float, ...]:
        if len({len(s) for s in self._sums}) != 1:
            return ()
        return tuple(np.mean(self._sums, axis=0).tolist())


class _Moments:
    def __init__(self) -> None:
        self.rows: list[tuple[float, float]] = []

    def add(self, x: Tensor) -> None:
        if len(self.rows) < PASSES:
            self.rows.append((float(x.float().mean()), float(x.float().square().mean())))

    def read(self) -> tuple[float, float] | None:
        if not self.rows:
            return None
        mean, square = (sum(c) / len(self.rows) for c in zip(*self.rows, strict=True))
        return mean, math.sqrt(max(square - mean * mean, 0.0))


class _Channels:
    """The means over images of the means of their three channels, and how these vary."""

    def __init__(self) -> None:
        self.images = 0
        self._sums = torch.zeros(3, 3, dtype=torch.float64)

    def add(self, x: Tensor) -> None:
        if x.ndim != 4 or x.shape[1] != 3:
            return
        few = x[:, :, :: max(1, x.shape[2] // PLACES), :: max(1, x.shape[3] // PLACES)].double()
        means = few.mean((2, 3))
        self.images += len(x)
        squares = few.square().mean((2, 3))
        self._sums += torch.stack([means.sum(0), means.square().sum(0), squares.sum(0)])

    def read(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the means, the squares of their standard errors, and the mean square."""
        mean, square, entries = self._sums / self.images
        return mean, (square - mean.square()).clamp_min(0) / self.images, entries


class InputLedger:
    """Records the inputs of one model; only for images on this computer's CPU."""

    def __init__(self) -> None:
        self._train, self._validation = _Moments(), _Moments()
        self._colours = _Channels(), _Channels()
        self._in_rows = _Rows()
        self._placement = Placement()
        # The last images, while masks are compared with them.
        self._images: Tensor | None = None
        self._seen: list[NDArray[np.int64]] = []
        self._checked: list[NDArray[np.int64]] = []
        self._counts = [0, 0]
        # Whether training inputs have a gradient, and so are no data.
        self._computed = False
        self._latest: Batch = None
        self._factors: NDArray[np.int64] = np.empty(0, np.int64)
        self._pairs: list[tuple[Tensor, Tensor]] = []
        self._rows: Tensor | None = None
        self._fits = 0
        self._alike: list[tuple[int, int]] = []
        # For each batch, the number of its labels and that of their classes.
        self._batches: list[tuple[int, int]] = []
        self._classes: Counter[int] = Counter()
        self._others: Counter[int] = Counter()
        # The labels of batches that are still to be counted.
        self._labels: list[NDArray[Any]] = []

    def trained(self, args: Any, probed: bool) -> None:
        """Record a training pass's inputs."""
        x = _images(args)
        if x is None:
            self._fits += 1
            return
        if any(isinstance(a, Tensor) and a.requires_grad for a in args):
            # What another network computes changes as that one learns.
            self._computed = True
        if probed:
            self._train.add(x)
        self._colours[0].add(x)
        self._in_rows.add(x)
        self._images = None if self._placement.complete else x
        self._add(x, self._seen, 0)
        flat = x.flatten(1)
        wide = len(x) >= FEWEST and flat.shape[1] >= WIDE
        # A row that is whole numbers may be a code.
        if len(self._alike) < COUNTED and wide and bool((flat[0] != flat[0].round()).any()):
            self._alike.append((len(x), len(np.unique(self._seen[-1]))))
        self._rows = None
        if not self.complete:
            self._rows = flat[:, :: max(1, flat.shape[1] // PIXELS)].clone()
            self._fits += 1

    def labelled(self, target: Any) -> None:
        """Count the labels of a batch, and record them beside the last images."""
        x, self._rows = self._rows, None
        self._count(target)
        if x is None or not isinstance(target, Tensor) or target.ndim != 1:
            return
        if len(target) == len(x) and not target.is_floating_point():
            self._pairs.append((x, target.detach().clone()))

    def masked(self, target: Any) -> None:
        """Compare masks with the last images."""
        x, self._images = self._images, None
        if x is not None and isinstance(target, Tensor) and target.ndim > 2:
            self._placement.add(x, target)

    def checked(self, target: Any) -> None:
        """Count the labels of a batch in a pass without gradients."""
        if not isinstance(target, Tensor) or target.ndim != 1 or target.is_floating_point():
            return
        if target.is_cpu and max(len(target), self._others.total()) < LABELS:
            self._others.update(target.tolist())

    def _count(self, target: Any) -> None:
        if not isinstance(target, Tensor) or target.ndim != 1 or not target.is_cpu:
            return
        counted = len(self._batches) + len(self._labels)
        if target.is_floating_point() or counted >= BATCHES or not 0 < len(target) <= LABELS:
            return
        self._labels.append(array_of(target).copy())
        if len(self._labels) == TOGETHER:
            self._count_kept()

    def _count_kept(self) -> None:
        """Count the labels of the batches that were kept for it."""
        if not self._labels:
            return
        sizes = [len(labels) for labels in self._labels]
        classes, codes = np.unique(np.concatenate(self._labels), return_inverse=True)
        self._classes.update(dict(zip(classes.tolist(), np.bincount(codes).tolist(), strict=True)))
        batch = np.repeat(np.arange(len(sizes)), sizes)
        own = np.bincount(np.unique(batch * len(classes) + codes) // len(classes))
        self._batches += zip(sizes, own.tolist(), strict=True)
        self._labels = []

    def validated(self, args: Any) -> None:
        """Record the inputs of a pass without gradients."""
        x = _images(args)
        if x is not None:
            self._validation.add(x)
            self._colours[1].add(x)
            before = len(self._checked)
            self._add(x, self._checked, 1)
            self._latest = batch_of(args) if len(self._checked) > before else None

    def withdraw(self, batch: Batch) -> None:
        """Forget the last pass without gradients if it was of this batch."""
        if batch is not None and self._latest == batch:
            self._counts[1] -= len(self._checked.pop())
            self._latest = None

    @property
    def complete(self) -> bool:
        """Return whether there are enough images for a fit of the labels, or no more will come."""
        return self._fits >= FIT_PASSES or sum(len(x) for x, _ in self._pairs) >= FIT

    def pairs(self) -> list[tuple[Tensor, Tensor]]:
        """Return the images, a few pixels of each, and their labels, and forget them."""
        pairs, self._pairs = self._pairs, []
        self._fits = FIT_PASSES
        return pairs

    def read(self) -> InputFacts:
        """Return the facts so far."""
        seen = 0.0
        if self._checked and self._seen:
            checked = np.concatenate(self._checked)
            seen = float(np.isin(checked, np.concatenate(self._seen)).mean())
        self._count_kept()
        k = len(self._classes)
        sizes = {n: self._expected(n) for n in {n for n, _ in self._batches} if n >= ENOUGH * k}
        few = sum(n in sizes and 2 * own <= sizes[n] + 0.5 for n, own in self._batches)
        return InputFacts(
            None if self._computed else self._train.read(),
            self._validation.read(),
            self._counts[1],
            seen,
            None if self._computed else self._shift(),
            dict(self._classes),
            len(self._batches),
            few,
            tuple(self._alike),
            () if self._computed else self._in_rows.read(),
            {name: (a, b) for name, (a, b) in self._placement.counts.items()},
            dict(self._others),
        )

    def _shift(self) -> tuple[Colours, Colours, float] | None:
        if min(c.images for c in self._colours) < FEW:
            return None
        (a, e, square), (b, f, _) = (c.read() for c in self._colours)
        size = float((square - a.square()).clamp_min(0).mean().sqrt())
        if not 0 < size < math.inf:
            return None
        shift, error = ((b - a) / size).tolist(), ((e + f).sqrt() / size).tolist()
        apart = float(a[0] - a[2]) / size
        return (shift[0], shift[1], shift[2]), (error[0], error[1], error[2]), apart

    def _expected(self, n: int) -> float:
        """Return how many classes n labels hold on average when they are drawn at random."""
        total = sum(self._classes.values())
        return sum(1 - (1 - count / total) ** n for count in self._classes.values())

    def _add(self, x: Tensor, to: list[NDArray[np.int64]], which: int) -> None:
        if self._counts[which] >= KEPT:
            return
        self._counts[which] += len(x)
        few = array_of(x).reshape(len(x), -1)
        few = few[:, :: max(1, few.shape[1] // ENTRIES)][:, :ENTRIES]
        words = np.ascontiguousarray(few, np.float32).view(np.int32)
        if len(self._factors) != words.shape[1]:
            drawn = np.random.default_rng(7).integers(1, 1 << 31, words.shape[1])
            self._factors = np.bitwise_or(drawn, 1)
        # A sum of whole numbers doesn't depend on its order: equal images give equal bits.
        to.append(words @ self._factors)


def array_of(x: Tensor) -> NDArray[Any]:
    """Return a tensor's values in its own memory; a step has no time for many calls of torch.

    Args:
        x: on the CPU, without a gradient; bfloat16, which NumPy doesn't know, is converted.
    """
    return (x.float() if x.dtype == torch.bfloat16 else x).numpy()


def first_in(args: Any) -> Tensor | None:
    """Return the first tensor of a call's arguments, which may stand in a list."""
    flat = [x for a in args for x in (a if isinstance(a, (tuple, list)) else (a,))]
    return next((x for x in flat if isinstance(x, Tensor)), None)


def batch_of(args: Any) -> Batch:
    """Return a key that distinguishes batches in memory, None where there are no images."""
    x = _images(args)
    return None if x is None else (x.data_ptr(), tuple(x.shape))


def _images(args: Any) -> Tensor | None:
    """Return the inputs where they are a batch of floating-point images or rows, or None."""
    tensors = [a for a in args if isinstance(a, Tensor)]
    x = tensors[0] if len(tensors) == 1 else None
    if x is None or x.ndim < 2 or not x.is_floating_point() or not x.is_cpu:
        return None
    if x.numel() <= len(x):
        return None
    return x.detach() if x.requires_grad else x
