"""What GradientProbe and a watch cost: training steps with and without, in one process.

Two copies of a network train in turns of one step, one of them in trainings of a few hundred steps
with the probe at its default interval, its early steps included. The ratio is that of the mean
step, put together from the medians of plain steps, of probed ones and of those between, so that a
moment in which the machine is slow counts for neither. A watch sees every training of its process,
so rounds with it and without it take turns, each a whole training; the ratio is of their medians.
A table comes first, then one line of JSON.

    python benchmarks/flow/probe.py [--threads N]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.nn import functional

from unmask.flow.check import check_flow
from unmask.flow.measure.probe import DEFAULT_EVERY, GradientProbe
from unmask.flow.watch import Watch
from unmask.runtime import environment_stamp

WARM_UP = 20
TARGETS = {"MNIST MLP": 1.05, "CIFAR CNN": 1.02}


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(784, 256),
        nn.ReLU(),
        nn.Linear(256, 256),
        nn.ReLU(),
        nn.Linear(256, 10),
    )


def cnn(width: int = 16) -> nn.Module:
    layers: list[nn.Module] = []
    for n_in, n_out in ((3, width), (width, 2 * width), (2 * width, 4 * width)):
        layers += [nn.Conv2d(n_in, n_out, 3, padding=1), nn.BatchNorm2d(n_out), nn.ReLU()]
        layers += [nn.Conv2d(n_out, n_out, 3, padding=1), nn.BatchNorm2d(n_out), nn.ReLU()]
        layers += [nn.MaxPool2d(2)]
    layers += [nn.Flatten(), nn.Linear(4 * width * 16, 10)]
    return nn.Sequential(*layers)


def million() -> nn.Module:
    """The usual example for MNIST: 1.2 million parameters."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(0.25),
        nn.Flatten(),
        nn.Linear(9216, 128),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(128, 10),
    )


def twelve_million() -> nn.Module:
    """A residual network of 12 million parameters for images of 224 px, as ResNet-18 is built."""

    class Block(nn.Module):
        def __init__(self, n_in: int, n_out: int, stride: int) -> None:
            super().__init__()
            self.first = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
            self.second = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
            self.norms = nn.ModuleList(nn.BatchNorm2d(n_out) for _ in range(2))
            self.skip = nn.Conv2d(n_in, n_out, 1, stride) if stride > 1 else nn.Identity()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            z = self.norms[0](self.first(x)).relu()
            return (self.norms[1](self.second(z)) + self.skip(x)).relu()

    widths = (64, 64, 128, 256, 512)
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    layers += [nn.MaxPool2d(3, 2, 1)]
    for i, (n_in, n_out) in enumerate(pairwise(widths)):
        layers += [Block(n_in, n_out, 1 + (i > 0)), Block(n_out, n_out, 1)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000))


def step_times(
    make: Callable[[], nn.Module], shape: tuple[int, ...], batch: int, steps: int, rounds: int
) -> dict[str, list[float]]:
    """Return seconds of every plain step, and of the probed loop's steps, probed or between."""
    torch.manual_seed(0)
    batches = [(torch.rand(batch, *shape), torch.randint(10, (batch,))) for _ in range(8)]
    plain, watched = make(), make()
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.01, momentum=0.9) for m in (plain, watched)]

    def step(which: int, i: int) -> float:
        model, optimizer = (plain, watched)[which], optimizers[which]
        x, y = batches[i % len(batches)]
        start = time.perf_counter()
        optimizer.zero_grad()
        functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        return time.perf_counter() - start

    for i in range(WARM_UP):
        step(0, i)
        step(1, i)
    found: dict[str, list[float]] = {"plain": [], "probed": [], "between": []}
    for _ in range(rounds):
        times = []
        with GradientProbe(watched) as probe:
            for i in range(steps):
                found["plain"].append(step(0, i))
                times.append(step(1, i))
        at = {stats.step for stats in probe.history}
        for i, seconds in enumerate(times):
            found["probed" if i in at else "between"].append(seconds)
    return found


def watch_times(
    make: Callable[[], nn.Module], shape: tuple[int, ...], batch: int, steps: int, rounds: int
) -> dict[str, list[float]]:
    """Return seconds of whole trainings, plain and watched in turns."""
    torch.manual_seed(0)
    batches = [(torch.rand(batch, *shape), torch.randint(10, (batch,))) for _ in range(8)]

    def training() -> float:
        model = make()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        start = time.perf_counter()
        for i in range(steps):
            x, y = batches[i % len(batches)]
            optimizer.zero_grad()
            functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        return time.perf_counter() - start

    training()
    found: dict[str, list[float]] = {"plain": [], "watched": []}
    for _ in range(rounds):
        found["plain"].append(training())
        with Watch():
            found["watched"].append(training())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=12)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    work: dict[str, Any] = {
        "MNIST MLP": (mlp, (1, 28, 28), 128, 5 * DEFAULT_EVERY, arguments.rounds),
        "CIFAR CNN": (cnn, (3, 32, 32), 32, 3 * DEFAULT_EVERY, max(arguments.rounds // 3, 3)),
    }
    columns = ("network", "plain ms", "between ms", "probed ms", "steps probed", "ratio", "target")
    table = Table(*columns)
    results: dict[str, Any] = {}
    for name, job in work.items():
        times = step_times(*job)
        plain, probed, between = (
            statistics.median(times[k]) for k in ("plain", "probed", "between")
        )
        share = len(times["probed"]) / len(times["plain"])
        ratio = (share * probed + (1 - share) * between) / plain
        table.add_row(
            name,
            *(f"{1e3 * t:.3f}" for t in (plain, between, probed)),
            f"{share:.1%}",
            f"{ratio:.3f}",
            f"{TARGETS[name]:.2f}",
        )
        results[name] = {
            "plain_seconds": plain,
            "between_seconds": between,
            "probed_seconds": probed,
            "share_of_steps_probed": share,
            "ratio": ratio,
            "steps": len(times["plain"]),
            "target": TARGETS[name],
        }
    watched: dict[str, Any] = {}
    for name, (make, shape, batch, steps, rounds) in work.items():
        times = watch_times(make, shape, batch, steps, max(rounds // 2, 3))
        plain, seen = (statistics.median(times[k]) for k in ("plain", "watched"))
        watched[name] = {
            "plain_seconds": plain,
            "watched_seconds": seen,
            "ratio": seen / plain,
            "steps": steps,
            "rounds": len(times["plain"]),
            "target": 1.05,
        }
    checks: dict[str, Any] = {}
    for name, make, shape, batch, target in (
        ("CNN at 28 px", million, (1, 28, 28), 64, 3.0),
        ("residual network at 224 px", twelve_million, (3, 224, 224), 8, 20.0),
    ):
        model = make()
        pair = (torch.rand(batch, *shape), torch.randint(10, (batch,)))
        start = time.perf_counter()
        check_flow(model, functional.cross_entropy, pair, optimizer=torch.optim.Adam)
        checks[name] = {
            "parameters": sum(p.numel() for p in model.parameters()),
            "images_a_step": batch,
            "seconds": time.perf_counter() - start,
            "target": target,
        }
    console = Console()
    console.print(table)
    for name, row in watched.items():
        console.print(f"watched: {name}, {row['steps']} steps: {row['ratio']:.3f} times plain")
    results["watch"] = watched
    for name, row in checks.items():
        console.print(
            f"check of a {name}, {row['parameters']:,} parameters, 10 steps of "
            f"{row['images_a_step']}: {row['seconds']:.2f} s (asked: {row['target']:g})"
        )
    results["check"] = checks
    print(json.dumps({**results, "stamp": environment_stamp(threads=arguments.threads)}))


if __name__ == "__main__":
    main()
