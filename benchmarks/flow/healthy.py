"""False alarms on healthy trainings: networks and settings that others made, on MNIST.

The image classifiers are those of the transformers and timm libraries, drawn at random as they
draw them, at small widths, at 32 and 224 px; the other trainings are the first examples of the
libraries' own documentation. Where a training gets an error, --train trains it and the twin that
the error's fix makes of it: the error is false unless the twin learns more. A table first, then one
line of JSON.

    python benchmarks/flow/healthy.py [--train] [--only NAME ...] [--rows FILE]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from healthy_models import Training, adamw, trainings
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional

from unmask.data.mnist import load_mnist
from unmask.flow.check import check_flow
from unmask.runtime import environment_stamp, seeded
from unmask.verdict import Verdict

BATCH, STEPS, TRAIN_STEPS = 32, 10, 150
# The accuracy on unseen images that a mended twin must gain, for the error to be right.
BETTER = 0.05


def batches(steps: int, size: int, split: str = "train") -> Iterator[tuple[Tensor, Tensor]]:
    """Yield standardised MNIST in three channels, in half the batch at 224 px."""
    images = load_mnist()[0 if split == "train" else 1]
    g = seeded(31, int(split == "train"))
    for _ in range(steps):
        rows = g.integers(len(images), size=BATCH if size == 32 else BATCH // 2)
        x = torch.from_numpy(np.array(images.pixels[rows])).float() / 255
        x = functional.pad((x - 0.1307) / 0.3081, (2, 2, 2, 2), value=-0.424)
        if size != 32:
            x = functional.interpolate(x, size=(size, size), mode="bilinear")
        yield x.expand(-1, 3, -1, -1).contiguous(), torch.from_numpy(np.array(images.labels[rows]))


def loss_of(output: Any, targets: Tensor) -> Tensor:
    return functional.cross_entropy(getattr(output, "logits", output), targets)


def learnt(training: Training) -> float:
    """Return the accuracy on unseen images after TRAIN_STEPS steps."""
    torch.manual_seed(0)
    model = training.make().train()
    optimizer = training.optimizer(model.parameters())
    for x, y in batches(TRAIN_STEPS, training.size):
        optimizer.zero_grad()
        loss_of(model(x), y).backward()
        optimizer.step()
    model.eval()
    right = []
    with torch.no_grad():
        for x, y in batches(20, training.size, "test"):
            output = model(x)
            right.append((getattr(output, "logits", output).argmax(1) == y).float().mean().item())
    return sum(right) / len(right)


def twin(training: Training, verdict: Verdict) -> Training:
    """Return the training with an error's fix: the rate, the dropout, or the initialisation."""
    if verdict.fix.startswith("learning rate"):
        rate = float(verdict.fix.split()[-1])
        return replace(training, optimizer=adamw(rate))

    def make() -> nn.Module:
        model = training.make()
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = min(module.p, 0.2)
            elif verdict.kind == "dropout too strong":
                continue
            elif isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight)
            elif "Norm" in type(module).__name__ and hasattr(module, "weight"):
                nn.init.ones_(module.weight)
        return model

    return replace(training, make=make)


def checked(training: Training, train: bool) -> dict[str, Any]:
    """Return what the check says of a training, and what came of an error."""
    torch.manual_seed(0)
    start = time.perf_counter()
    pairs = list(batches(STEPS, training.size))
    check = check_flow(training.make().train(), loss_of, pairs, optimizer=training.optimizer)
    seconds = time.perf_counter() - start
    errors = check.at_least("error")
    row: dict[str, Any] = {
        "training": training.name,
        "settings": training.settings,
        "errors": [f"{v.kind} ({v.subject})" for v in errors],
        "warnings": [v.kind for v in check.verdicts if v.severity == "warning"],
        "seconds": seconds,
    }
    if train and errors:
        row |= {"accuracy": learnt(training), "mended": learnt(twin(training, errors[0]))}
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", action="store_true", help="train those that get an error")
    parser.add_argument("--only", nargs="*", help="names of trainings")
    parser.add_argument("--rows", type=Path, help="keep results in this file, and go on from it")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    console = Console()
    rows: dict[str, dict[str, Any]] = {}
    if arguments.rows and arguments.rows.exists():
        lines = arguments.rows.read_text().splitlines()
        rows = {row["training"]: row for row in map(json.loads, lines)}
    for training in trainings():
        if training.name in rows or (arguments.only and training.name not in arguments.only):
            continue
        row = rows[training.name] = checked(training, arguments.train)
        console.print(f"{training.name}: {', '.join(row['errors']) or 'no error'}", markup=False)
        if arguments.rows:
            with arguments.rows.open("a") as file:
                file.write(json.dumps(row) + "\n")
    table = Table("training", "settings", "errors", "warnings", "seconds", "accuracy", "mended")
    for row in rows.values():
        table.add_row(
            row["training"],
            row["settings"],
            "; ".join(row["errors"]),
            "; ".join(row["warnings"]),
            f"{row['seconds']:.1f}",
            *(f"{row[k]:.2f}" if k in row else "" for k in ("accuracy", "mended")),
        )
    console.print(table)
    alarms = [r for r in rows.values() if r["errors"]]
    false = [r for r in alarms if "mended" not in r or r["mended"] < r["accuracy"] + BETTER]
    console.print(f"{len(alarms)} errors on {len(rows)} trainings; {len(false)} of them false")
    print(
        json.dumps(
            {
                "trainings": list(rows.values()),
                "false_errors": len(false),
                "stamp": environment_stamp(threads=1),
            }
        )
    )


if __name__ == "__main__":
    main()
