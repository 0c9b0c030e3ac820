"""What mnist.py and cifar10.py of this folder share: the others' runs, and ours."""

from __future__ import annotations

import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from unmask.data.images import Images
from unmask.models.classifier import Classifier
from unmask.train import EpochFigures, History, fit
from unmask.train.evaluation import accuracy, logits_of
from unmask.train.recipes import Recipe, prepared


@dataclass(frozen=True)
class Task:
    """Pictures to train on, pictures to measure accuracy on, and the accuracy to exceed."""

    name: str
    train: Images
    validation: Images
    target: float


def ours(chosen: Recipe, task: Task, seed: int, *, validate_from: int = 1) -> History:
    """Train by a recipe until the target is exceeded, or to the end of its schedule."""
    config = replace(chosen.config, seed=seed, target=task.target, validate_from=validate_from)
    model = prepared(replace(chosen, config=config), task.train, seed=seed)
    history = fit(model, task.train, config, validation=task.validation)
    for e in history.epochs:
        found = e.validation_averaged or e.validation_accuracy or 0.0
        tell(f"Unmask, seed {seed}", {"epoch": e.epoch, "seconds": e.seconds, "accuracy": found})
    return history


def tell(name: str, record: dict[str, Any]) -> None:
    """Say on standard error how far a run is: what is printed at the end is the figures alone."""
    print(
        f"{name}: epoch {record['epoch']}, {record['seconds']:.0f} s, {record['accuracy']:.4f}",
        file=sys.stderr,
        flush=True,
    )


def first_above(history: History, target: float) -> EpochFigures | None:
    """The first epoch whose validation, with averaged views where there are any, exceeds it."""
    for figures in history.epochs:
        reached = figures.validation_averaged or figures.validation_accuracy or 0.0
        if reached > target:
            return figures
    return None


def keras(
    task: Task, python: str, *, epochs: int, seed: int = 0, folder: str | None = None
) -> list[dict[str, Any]]:
    """The document's way in Keras, in a process of its own: one record an epoch.

    folder: where the run is kept after every epoch, and goes on if it lies there already.
    """
    script = Path(__file__).with_name("keras_recipe.py")
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "pictures.npz"
        np.savez(
            file,
            x=task.train.pixels,
            y=task.train.labels,
            xv=task.validation.pixels,
            yv=task.validation.labels,
        )
        command = [python, str(script), task.name, str(file), "--epochs", str(epochs)]
        command += ["--target", str(task.target), "--seed", str(seed)]
        if folder:
            command += ["--folder", folder]
        records = []
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
            assert running.stdout
            for line in running.stdout:
                if line.startswith("{"):
                    records.append(json.loads(line))
                    tell("Keras on JAX", records[-1])
    if running.returncode:
        raise SystemExit(f"Keras's run failed with exit status {running.returncode}")
    return records


class Pictures(Dataset[Any]):
    """One picture at a time, flipped and shifted as torchvision's transforms would."""

    def __init__(self, images: Images, reach: int) -> None:
        self.images, self.reach = images, reach

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        picture = torch.from_numpy(self.images.pixels[i]).float() / 255
        if self.reach:
            if torch.rand(()) < 0.5:
                picture = picture.flip(2)
            height, width = picture.shape[1:]
            padded = nn.functional.pad(picture, [self.reach] * 4, mode="reflect")
            top, left = torch.randint(0, 2 * self.reach + 1, (2,)).tolist()
            picture = padded[:, top : top + height, left : left + width]
        return picture, int(self.images.labels[i])


def pytorch(
    model: Classifier, task: Task, *, reach: int, epochs: int, seed: int = 0
) -> Iterator[dict[str, Any]]:
    """The document's network and recipe in plain PyTorch, fp32, DataLoader: one record an epoch."""
    torch.manual_seed(seed)
    batches = DataLoader(Pictures(task.train, reach), 64, shuffle=True)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    spent, labels = 0.0, torch.from_numpy(task.validation.labels)
    for epoch in range(1, epochs + 1):
        begun = time.perf_counter()
        model.train()
        for x, y in batches:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        spent += time.perf_counter() - begun
        found = accuracy(logits_of(model, task.validation), labels)
        record = {
            "epoch": epoch,
            "seconds": spent,
            "pictures": epoch * len(task.train),
            "accuracy": found,
        }
        tell("PyTorch", record)
        yield record
        if found > task.target:
            break


def seconds_an_epoch(records: list[dict[str, Any]]) -> float:
    """The median seconds of the epochs after the first, which compiles."""
    marks = [0.0, *(r["seconds"] for r in records)]
    times = [b - a for a, b in itertools.pairwise(marks)]
    return statistics.median(times[1:] or times)


def subset(images: Images, count: int | None) -> Images:
    """The first count pictures of a fixed shuffle, or all of them."""
    if count is None:
        return images
    return images[np.random.default_rng(0).permutation(len(images))[:count]]
