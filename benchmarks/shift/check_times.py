"""How long unmask check takes, and how much memory: MNIST's classifier, and a 224 px ResNet-18.

    python benchmarks/shift/check_times.py
    python benchmarks/shift/check_times.py --only mnist

Each in a process of its own: the shipped MNIST classifier on MNIST within --minutes 1 (asked: a
full report in under 60 s on two cores), and a ResNet-18 with random weights on 2,000 made-up colour
images of 224 px within the default 5 minutes (asked: done by then, under 3 GB). The last line is
JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

CASES = {"mnist": 1.0, "resnet18": 5.0}
IMAGES, SIDE, CLASSES = 2000, 224, 10


def made_up(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return images of a colour and a wave of each class under noise, uint8, and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count)
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    pixels = np.empty((count, 3, SIDE, SIDE), np.uint8)
    for i, label in enumerate(labels):
        wave = np.sin(2 * np.pi * ((1 + label) * x + rng.uniform() + label * y))
        tint = rng.uniform(0.5, 1.0, (3, 1, 1))
        noise = rng.normal(0, 20, (3, SIDE, SIDE))
        pixels[i] = np.clip(128 + 80 * wave * tint + noise, 0, 255).astype(np.uint8)
    return pixels, labels.astype(np.int64)


def checked(case: str) -> None:
    """Check one case in this process, and print what it took."""
    start = time.perf_counter()
    import torch

    import unmask
    from unmask.data.images import Images

    if case == "mnist":
        model, data = "mnist", "mnist"
    else:
        from transformers import ResNetConfig, ResNetForImageClassification

        torch.manual_seed(0)
        sizes = {"embedding_size": 64, "hidden_sizes": [64, 128, 256, 512], "depths": [2, 2, 2, 2]}
        config = ResNetConfig(**sizes, layer_type="basic", num_labels=CLASSES)
        model = ResNetForImageClassification(config).eval()
        names = tuple(map(str, range(CLASSES)))
        data = Images(*made_up(IMAGES, 0), names, "made up")
    loaded = time.perf_counter() - start
    found = unmask.check(model, data, minutes=CASES[case])
    with tempfile.TemporaryDirectory() as folder:
        found.save(Path(folder))
    print(
        json.dumps(
            {
                "case": case,
                "minutes": CASES[case],
                "threads": torch.get_num_threads(),
                "seconds": round(time.perf_counter() - start, 1),
                "seconds_before": round(loaded, 1),
                "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
                "errors": [v.kind for v in found.verdicts if v.severity == "error"],
                "parts": {p.name: [p.status, round(p.seconds, 1), p.reason] for p in found.parts},
            }
        )
    )


def main() -> None:
    """Print a table of each case, then one line of JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", choices=tuple(CASES))
    parser.add_argument("--here", choices=tuple(CASES), help=argparse.SUPPRESS)
    settings = parser.parse_args()
    if settings.here:
        checked(settings.here)
        return
    rows = []
    for case in [settings.only] if settings.only else CASES:
        command = [sys.executable, __file__, "--here", case]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ)
        row = json.loads(done.stdout.strip().splitlines()[-1])
        rows.append(row)
        took = f"{row['seconds']:.0f} s of {60 * row['minutes']:.0f}, {row['peak_gb']:.2f} GB"
        errors = ", ".join(row["errors"]) or "none"
        print(f"{case}: {took}, {row['threads']} threads, errors: {errors}")
        for name, (status, seconds, reason) in row["parts"].items():
            print(f"    {name:12} {status:8} {seconds:7.1f} s  {reason}")
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
