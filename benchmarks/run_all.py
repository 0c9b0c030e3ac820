"""Every headline figure that this machine can measure in one go, with its goal beside it.

A table in Markdown comes first, then one line of JSON. --quick takes a few minutes on two cores;
without it samples are ten times as large. What needs another machine, another library or hours is
named below the table with its own command. A figure that can't be measured says why.

    python benchmarks/run_all.py --quick [--only NAME ...] [--out TABLE.md]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from unmask.runtime import cpu_threads, environment_stamp

SAMPLES = Path(__file__).parents[1] / "src/unmask/data/samples"
ELSEWHERE = {
    "sweep beside Keras and JAX": "benchmarks/sweep/sweep.py",
    "seconds to 99.3 % on MNIST": "benchmarks/train/mnist.py",
    "seconds to 88.49 % on CIFAR-10": "benchmarks/train/cifar10.py",
    "faults found and false alarms": "benchmarks/flow/faults.py, posted.py, healthy.py",
    "robust accuracy beside AutoAttack": "benchmarks/fool/reference.py",
    "smallest changes": "benchmarks/fool/distances.py",
    "average precision of the detector": "benchmarks/mask/folds.py",
    "the server under load": "benchmarks/scale/serve.py",
    "efficiency on a cluster": "benchmarks/scale/scale.py",
}


@dataclass(frozen=True)
class Goal:
    """What a figure should be: at least or at most a limit, in a unit."""

    sign: str
    limit: float
    unit: str

    def met(self, value: float) -> bool:
        return value >= self.limit if self.sign == ">=" else value <= self.limit

    def __str__(self) -> str:
        return f"{self.sign} {self.limit:g} {self.unit}"


@dataclass(frozen=True)
class Figure:
    """One measured value: how it was measured, of how many, and its spread or interval."""

    value: float
    unit: str
    of: str
    spread: str = ""


Measure = Callable[[bool], Figure]
FIGURES: dict[str, tuple[Measure, Goal | None]] = {}


def figure(name: str, goal: Goal | None = None) -> Callable[[Measure], Measure]:
    def add(measure: Measure) -> Measure:
        FIGURES[name] = measure, goal
        return measure

    return add


def command(arguments: list[str], runs: int) -> Figure:
    """Time a whole process; the first run, which fills the file cache, doesn't count."""
    took = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        took.append(1000 * (time.perf_counter() - start))
    timed = took[1:]
    spread = f"{min(timed):.0f} to {max(timed):.0f}"
    return Figure(statistics.median(timed), "ms", f"median of {runs} processes", spread)


@figure("import unmask", Goal("<=", 50, "ms over python -c pass"))
def import_time(quick: bool) -> Figure:
    runs = 7 if quick else 30
    bare = command(["-c", "pass"], runs).value
    found = command(["-c", "import unmask"], runs)
    return Figure(
        found.value - bare, "ms", f"{found.of}, less {bare:.0f} ms of Python", found.spread
    )


@figure("unmask --help", Goal("<=", 150, "ms"))
def help_time(quick: bool) -> Figure:
    return command(["-m", "unmask", "--help"], 5 if quick else 30)


@figure("unmask mask detect photo.jpg", Goal("<=", 400, "ms"))
def detect_time(quick: bool) -> Figure:
    photo = str(SAMPLES / "obama.jpg")
    return command(["-m", "unmask", "mask", "detect", photo], 5 if quick else 30)


def sweep_fraction(width: int, quick: bool) -> Figure:
    from unmask import NetSpec, train_sweep
    from unmask.data.mnist import load_mnist
    from unmask.sweep import _kernel
    from unmask.sweep.native_net import chosen_instruction_set

    images = load_mnist()[0][:48_000]  # So many that what a sweep does once weighs little.
    cores, depth = cpu_threads(), 20
    specs = [
        NetSpec(depth=depth, width=width, batch_size=32, epochs=1, activation="tanh", seed=seed)
        for seed in range(cores)
    ]
    # Forward, the gradient on weights and the gradient on values: three products a layer.
    each = 2 * (2 * 784 + 3 * (depth - 1) * width + 3 * 10) * width * len(images)
    peak = _kernel.peak_flops(chosen_instruction_set())
    fractions = []
    for _ in range(10 if quick else 30):
        start = time.perf_counter()
        train_sweep(specs, images, probe_epochs=())
        fractions.append(100 * each / (time.perf_counter() - start) / peak)
    name = f"{cores} nets of {depth} layers at once, {chosen_instruction_set()}, best of"
    spread = f"{min(fractions):.0f} to {max(fractions):.0f}"
    return Figure(max(fractions), "% of peak", f"{name} {len(fractions)}", spread)


@figure("sweep, width 32", Goal(">=", 80, "% of peak"))
def sweep_32(quick: bool) -> Figure:
    return sweep_fraction(32, quick)


@figure("sweep, width 128", Goal(">=", 88, "% of peak"))
def sweep_128(quick: bool) -> Figure:
    return sweep_fraction(128, quick)


def test_accuracy(name: str, images: object, quick: bool) -> Figure:
    from unmask.data.images import Images
    from unmask.models.classifier import Classifier
    from unmask.stats import wilson
    from unmask.train.evaluation import evaluate

    assert isinstance(images, Images)
    found = evaluate(Classifier.load(name), images)
    right, count = int((found.predictions == found.labels).sum()), len(images)
    low, high = wilson(right, count)
    return Figure(
        100 * right / count, "%", f"{count:,} test images", f"{100 * low:.2f} to {100 * high:.2f}"
    )


@figure("accuracy of mnist", Goal(">=", 99.6, "%"))
def mnist(quick: bool) -> Figure:
    from unmask.data.mnist import load_mnist

    return test_accuracy("mnist", load_mnist()[1], quick)


@figure("accuracy of cifar10", Goal(">=", 93.5, "%"))
def cifar10(quick: bool) -> Figure:
    from unmask.data.sources import load_source

    images = load_source("cifar10").test
    assert images is not None
    return test_accuracy("cifar10", images[:2000] if quick else images, quick)


@figure("audit of 1,000 images of mnist", Goal("<=", 180, "s"))
def audit_time(quick: bool) -> Figure:
    import unmask

    def took(count: int) -> tuple[float, float]:
        start = time.perf_counter()
        found = unmask.audit("mnist", "mnist", images=count)
        return time.perf_counter() - start, float(found.robust(max(found.plan.eps)).value)

    if not quick:
        seconds, robust = took(1000)
        return Figure(seconds, "s", "one run", f"robust {robust:.1%}")
    # What every audit costs, and what 100 images more do, pairs among them.
    (few, _), (more, robust) = took(100), took(200)
    part = f"{few:.0f} s for 100 and {more:.0f} s for 200 of them, continued"
    return Figure(few + 9 * (more - few), "s", part, f"robust {robust:.1%}")


@figure("a corruption, 224 px")
def corruption_time(quick: bool) -> Figure:
    from unmask.shift.corruptions.registry import corrupt, corruptions

    images = torch.rand(4 if quick else 32, 3, 224, 224)
    names = list(corruptions())
    start = time.process_time()
    for name in names:
        corrupt(images, name, 3)
    each = 1000 * (time.process_time() - start) / len(images) / len(names)
    return Figure(each, "ms of processor an image", f"mean of {len(names)} corruptions")


@figure("mask detector, 640 x 480")
def detector_time(quick: bool) -> Figure:
    from PIL import Image

    from unmask.mask.runtime.detector import MaskDetector

    detector = MaskDetector.load()
    with Image.open(SAMPLES / "obama.jpg") as opened:
        image = np.asarray(opened.convert("RGB").resize((640, 480)))
    took = []
    for _ in range(20 if quick else 200):
        start = time.perf_counter()
        detector.detect(image)
        took.append(1000 * (time.perf_counter() - start))
    timed = sorted(took[2:])
    spread = f"{timed[0]:.1f} to {timed[-1]:.1f}"
    return Figure(statistics.median(timed), "ms", f"median of {len(timed)}, decoded", spread)


def measured(name: str, quick: bool) -> dict[str, object]:
    measure, goal = FIGURES[name]
    row: dict[str, object] = {"name": name, "goal": "" if goal is None else str(goal)}
    try:
        with contextlib.redirect_stdout(sys.stderr):
            found = measure(quick)
    except Exception as error:  # one figure that can't be had must not hide the others
        line = (str(error).splitlines() or [""])[0][:150]
        return row | {"failed": f"{type(error).__name__}: {line}"}
    met = None if goal is None or not math.isfinite(found.value) else goal.met(found.value)
    return row | asdict(found) | {"met": met}


def table(rows: list[dict[str, object]], quick: bool) -> str:
    stamp = environment_stamp()
    libraries = ", ".join(f"{k} {v}" for k, v in stamp["libraries"].items())
    lines = [
        f"{stamp['processor']}, {cpu_threads()} cores, Python {stamp['python']}, {libraries}, "
        f"Unmask {stamp['unmask']}{', --quick' if quick else ''}",
        "",
        "| figure | measured | spread or 95 % interval | of | goal | met |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        if "failed" in row:
            lines.append(f"| {row['name']} | not measured: {row['failed']} | | | {row['goal']} | |")
            continue
        met = {True: "yes", False: "no", None: ""}[row["met"]]  # type: ignore[index]
        lines.append(
            f"| {row['name']} | {row['value']:.4g} {row['unit']} | {row['spread']} | {row['of']} "
            f"| {row['goal']} | {met} |"
        )
    others = "; ".join(f"{what}: `{where}`" for what, where in ELSEWHERE.items())
    return "\n".join([*lines, "", f"Measured by commands of their own: {others}.", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller samples: a few minutes")
    parser.add_argument("--only", nargs="+", choices=sorted(FIGURES), metavar="NAME")
    parser.add_argument("--out", type=Path, help="where the table is written too")
    options = parser.parse_args()
    rows = []
    for name in options.only or FIGURES:
        print(f"measuring {name}", file=sys.stderr)
        rows.append(measured(name, options.quick))
    text = table(rows, options.quick)
    if options.out is not None:
        options.out.write_text(text)
    print(text)
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
