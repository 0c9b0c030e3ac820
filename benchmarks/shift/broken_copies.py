"""Deliberately broken copies of a shipped classifier, and whether unmask check names each fault.

    python benchmarks/shift/broken_copies.py mnist
    python benchmarks/shift/broken_copies.py cifar10 [--data FOLDER] [--minutes 5] [--seed 0]

Healthy, channels swapped (colour) or inverted (grey), normalisation missing, saturated logits, 10 %
of the test images taken from training, 5 % of the test labels flipped. --reports FOLDER keeps the
report of each. The last line is JSON.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
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


def flipped(source: Source, seed: int) -> Source:
    test = source.test
    rng = np.random.default_rng(seed)
    labels = test.labels.copy()
    rows = rng.choice(len(test), len(test) // 20, replace=False)
    classes = len(test.class_names)
    labels[rows] = (labels[rows] + rng.integers(1, classes, len(rows))) % classes
    return dataclasses.replace(
        source, test=Images(test.pixels, labels, test.class_names, test.name)
    )


def main() -> None:
    """Print what a check finds in each copy, and which of the faults it names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--reports", type=Path)
    parser.add_argument("--copies", nargs="+", help="the first words of those to check; all")
    settings = parser.parse_args()
    torch.set_num_threads(settings.threads)
    model = Classifier.load(settings.model)
    source = load_source(settings.model.split("-")[0], source=settings.data)
    colour = source.test.pixels.shape[1] == 3
    swap = (lambda x: x.flip(1)) if colour else (lambda x: 1 - x)
    first = "channels swapped" if colour else "inverted"
    # Each with the kind of verdict that names it, and a word that its cause must have.
    copies = {
        "healthy": (model, source, "", ""),
        first: (Fed(model, swap), source, "preprocessing", "blue" if colour else "inverted"),
        "normalisation missing": (unnormalised(model), source, "preprocessing", "normalised"),
        "saturated logits": (Fed(model, times=1000.0), source, "saturated logits", ""),
        "10 % of the test set from training": (model, leaked(source), "leak", ""),
        "5 % of the test labels flipped": (
            model,
            flipped(source, settings.seed),
            "label errors",
            "",
        ),
    }
    rows = {}
    for fault, (subject, data, kind, word) in copies.items():
        if settings.copies and not fault.startswith(tuple(settings.copies)):
            continue
        start = time.perf_counter()
        check = unmask.check(
            subject,
            data,
            minutes=settings.minutes,
            seed=settings.seed,
            questions=("preflight", "accuracy", "data", "flow"),
        )
        took = time.perf_counter() - start
        if settings.reports:
            check.save(settings.reports / fault.replace(" ", "_").replace("%", "percent"))
        serious = [v for v in check.verdicts if v.severity != "note"]
        rows[fault] = {
            "seconds": round(took, 1),
            "accuracy": check.figures().get("accuracy.accuracy"),
            "errors": [v.kind for v in serious if v.severity == "error"],
            "warnings": [v.kind for v in serious if v.severity == "warning"],
            "named": any(v.kind == kind and word in (v.cause or "") for v in serious),
        }
        print(f"{fault}: {took:.0f} s, accuracy {rows[fault]['accuracy']:.4f}")
        for v in serious:
            print(f"    {v.severity}: {v.kind}: {v.message[:110]}")
        for part in check.parts:
            print(f"    ({part.name}: {part.status}, {part.seconds:.1f} s, {part.reason})")
    named = sum(bool(row["named"]) for row in rows.values())
    print(f"{named} of {len(rows) - ('healthy' in rows)} faults named")
    print(json.dumps({"model": settings.model, "minutes": settings.minutes, "copies": rows}))


if __name__ == "__main__":
    main()
