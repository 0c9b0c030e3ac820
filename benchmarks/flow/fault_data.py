"""The sets that the fault benchmark trains on: MNIST, and three made by seed."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from fault_models import Recipe
from torch import Tensor

from unmask.data.mnist import load_mnist
from unmask.runtime import seeded

TRAIN, VALIDATION = 8000, 2000


@dataclass(frozen=True)
class Split:
    """Training and validation images or vectors, with their classes."""

    x: Tensor
    y: Tensor
    validation_x: Tensor
    validation_y: Tensor
    classes: int

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.x.shape[1:])


@functools.cache
def load(name: str) -> Split:
    """Return one of the sets, inputs standardised, in a fixed order."""
    makers = {
        "mnist": lambda: _mnist(small=False),
        "mnist small": lambda: _mnist(small=True),
        "clusters": _clusters,
        "teacher": _teacher,
        "gratings": _gratings,
    }
    x, y, classes = makers[name]()
    x = (x - x.mean()) / x.std()
    return Split(x[:TRAIN], y[:TRAIN], x[TRAIN:], y[TRAIN:], classes)


def inputs(recipe: Recipe, x: Tensor) -> Tensor:
    """Return the inputs as the recipe feeds them."""
    return x * recipe.input_gain + recipe.input_offset


def batches(recipe: Recipe, split: Split, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the recipe's training batches, drawn by its seed."""
    g = seeded(21, recipe.seed)
    for _ in range(steps):
        rows = torch.from_numpy(g.integers(len(split.x), size=recipe.batch))
        yield inputs(recipe, split.x[rows]), split.y[rows]


def _mnist(small: bool) -> tuple[Tensor, Tensor, int]:
    images, _ = load_mnist()
    count = TRAIN + VALIDATION
    x = torch.from_numpy(np.array(images.pixels[:count])).float() / 255
    if small:
        x = torch.nn.functional.avg_pool2d(x, 2)
    return x, torch.from_numpy(np.array(images.labels[:count])), 10


def _clusters() -> tuple[Tensor, Tensor, int]:
    """Ten classes of two Gaussian clusters each, in 40 dimensions."""
    g = seeded(22)
    centres = g.normal(size=(20, 40)) * 1.1
    which = g.integers(20, size=TRAIN + VALIDATION)
    x = centres[which] + g.normal(size=(TRAIN + VALIDATION, 40))
    return torch.from_numpy(x).float(), torch.from_numpy(which % 10), 10


def _teacher() -> tuple[Tensor, Tensor, int]:
    """Four classes: the signs of two fixed quadratic forms of 16 numbers."""
    g = seeded(23)
    x = g.normal(size=(TRAIN + VALIDATION, 16))
    first = x[:, :4].sum(1) + 0.5 * x[:, 0] * x[:, 1]
    second = x[:, 4:8].sum(1) + 0.5 * x[:, 4] * x[:, 5]
    y = 2 * (first > 0) + (second > 0)
    return torch.from_numpy(x).float(), torch.from_numpy(y.astype(np.int64)), 4


def _gratings() -> tuple[Tensor, Tensor, int]:
    """Six orientations of a striped pattern of random phase and pitch, 12 x 12, with noise."""
    g = seeded(24)
    n = TRAIN + VALIDATION
    y = g.integers(6, size=n)
    angle, phase = y * math.pi / 6, g.uniform(0, 2 * math.pi, n)
    pitch = g.uniform(1.2, 1.8, n)
    rows, columns = np.mgrid[:12, :12]
    along = np.cos(angle)[:, None, None] * rows + np.sin(angle)[:, None, None] * columns
    x = np.sin(pitch[:, None, None] * along + phase[:, None, None])
    x = x + 0.5 * g.normal(size=x.shape)
    return torch.from_numpy(x[:, None]).float(), torch.from_numpy(y), 6
