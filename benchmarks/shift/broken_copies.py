"""Deliberately broken copies of a shipped classifier, and whether unmask check names each fault.

    python benchmarks/shift/broken_copies.py mnist [CIFAR-10's folder] [MINUTES]

Healthy, channels swapped (colour) or inverted (grey), normalisation missing, saturated logits, 10 %
of the test images taken from training, 5 % of the test labels flipped.
"""

from __future__ import annotations

import copy
import dataclasses
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import unmask
from unmask.data.images import Images
from unmask.data.sources import Source, load_source
from unmask.models.classifier import Classifier


class Fed(nn.Module):
    """A model whose input or output is changed."""

    def __init__(self, model: nn.Module, before: object = None, times: float = 1.0) -> None:
        super().__init__()
        self.model, self.before, self.times = model, before, times

    def forward(self, pixels: Tensor) -> Tensor:
        if callable(self.before):
            pixels = self.before(pixels)
        return self.model(pixels) * self.times


def unnormalised(model: Classifier) -> nn.Module:
    broken = copy.deepcopy(model)
    broken.mean.zero_()
    broken.std.fill_(1.0)
    # An import path gives such a module, which says nothing of its mean and deviation.
    return Fed(broken)


def leaked(source: Source) -> Source:
    test = source.test
    n = len(test) // 10
    pixels, labels = test.pixels.copy(), test.labels.copy()
    pixels[:n], labels[:n] = source.train.pixels[:n], source.train.labels[:n]
    return dataclasses.replace(source, test=Images(pixels, labels, test.class_names, test.name))


def flipped(source: Source) -> Source:
    test = source.test
    rng = np.random.default_rng(0)
    labels = test.labels.copy()
    rows = rng.choice(len(test), len(test) // 20, replace=False)
    classes = len(test.class_names)
    labels[rows] = (labels[rows] + rng.integers(1, classes, len(rows))) % classes
    return dataclasses.replace(
        source, test=Images(test.pixels, labels, test.class_names, test.name)
    )


def main(name: str, place: str = "", minutes: float = 1.0) -> None:
    """Print what a check says of each copy."""
    torch.set_num_threads(1)
    model = Classifier.load(name)
    source = load_source(name.split("-")[0], source=Path(place) if place else None)
    colour = source.test.pixels.shape[1] == 3
    swap = (lambda x: x.flip(1)) if colour else (lambda x: 1 - x)
    copies = {
        "healthy": (model, source),
        "channels swapped" if colour else "inverted": (Fed(model, swap), source),
        "normalisation missing": (unnormalised(model), source),
        "saturated logits": (Fed(model, times=1000.0), source),
        "10 % of the test set from training": (model, leaked(source)),
        "5 % of the test labels flipped": (model, flipped(source)),
    }
    for fault, (subject, data) in copies.items():
        start = time.perf_counter()
        check = unmask.check(
            subject, data, minutes=minutes, questions=("preflight", "accuracy", "data", "flow")
        )
        took = time.perf_counter() - start
        print(f"{fault}: {took:.0f} s, accuracy {check.figures().get('accuracy.accuracy'):.4f}")
        for v in check.verdicts:
            if v.severity != "note":
                print(f"    {v.severity}: {v.kind}: {v.message[:110]}")
        for part in check.parts:
            if part.status == "failed":
                print(f"    {part.name} failed: {part.reason}")


if __name__ == "__main__":
    main(*sys.argv[1:3], *(float(m) for m in sys.argv[3:4]))
