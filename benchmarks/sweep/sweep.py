"""Seconds to train one multilayer perceptron for one epoch of MNIST: Unmask's engine and others.

Every contender trains the same nets (width 32, tanh, batch 32, SGD 0.01, Glorot-uniform, 48,000
pictures) in this one process, after a warm-up that compiles and fills the caches, and reports the
epoch's mean training loss and accuracy, as a user would want; Unmask takes its gradient statistics
too. All may use every core, but PyTorch is kept to one, which is faster for so small a net. A table
comes first, then one line of JSON.

    pip install --group bench
    python benchmarks/sweep.py
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")

import numpy as np
from rich.console import Console
from rich.table import Table

from unmask import Images, NetSpec, grid, train_sweep
from unmask.data.mnist import load_mnist
from unmask.runtime import cpu_threads, environment_stamp
from unmask.sweep import _kernel
from unmask.sweep.native_net import chosen_instruction_set

WIDTH, BATCH, RATE, CLASSES = 32, 32, 0.01, 10
OURS, KERAS, SCAN = "Unmask", "Keras on JAX, fit", "JAX, lax.scan"
LOADER, MEMORY = "PyTorch, DataLoader", "PyTorch, in memory"
TARGETS = {KERAS: 15.0, SCAN: 6.0, LOADER: 40.0}

# An epoch of training: returns nothing. A test: returns accuracy on the test pictures.
Contender = tuple[Callable[[], None], Callable[[], float]]


def floats(images: Images) -> np.ndarray:
    return images.pixels.reshape(len(images), -1).astype(np.float32) / 255


def keras_on_jax(depth: int, train: Images, test: Images) -> Contender:
    import keras

    layers = [keras.layers.Dense(WIDTH, activation="tanh") for _ in range(depth)]
    model = keras.Sequential([*layers, keras.layers.Dense(CLASSES, activation="softmax")])
    model.compile(
        keras.optimizers.SGD(RATE), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    x, y, xt = floats(train), train.labels, floats(test)

    def accuracy() -> float:
        predicted = model.predict(xt, batch_size=1000, verbose=0).argmax(1)
        return float(np.mean(predicted == test.labels))

    return lambda: model.fit(x, y, batch_size=BATCH, epochs=1, verbose=0), accuracy


def jax_scan(depth: int, train: Images, test: Images) -> Contender:
    import jax
    import jax.numpy as jnp

    sizes = [train.pixels[0].size, *[WIDTH] * depth, CLASSES]
    init = jax.nn.initializers.glorot_uniform()
    keys = jax.random.split(jax.random.key(0), depth + 1)
    parameters = [
        (init(k, (i, j)), jnp.zeros(j))
        for k, (i, j) in zip(keys, itertools.pairwise(sizes), strict=True)
    ]
    x, y, xt = jnp.asarray(floats(train)), jnp.asarray(train.labels), jnp.asarray(floats(test))

    def logits(parameters: Any, h: Any) -> Any:
        for w, b in parameters[:-1]:
            h = jnp.tanh(h @ w + b)
        return h @ parameters[-1][0] + parameters[-1][1]

    def loss(parameters: Any, x: Any, y: Any) -> Any:
        log_p = jax.nn.log_softmax(logits(parameters, x))
        accuracy = (log_p.argmax(1) == y).mean()
        return -jnp.take_along_axis(log_p, y[:, None], 1).mean(), accuracy

    def step(parameters: Any, index: Any) -> Any:
        figures, gradient = jax.value_and_grad(loss, has_aux=True)(parameters, x[index], y[index])
        return jax.tree.map(lambda p, g: p - RATE * g, parameters, gradient), figures

    @jax.jit
    def epoch(parameters: Any, key: Any) -> Any:
        order = jax.random.permutation(key, len(x)).reshape(-1, BATCH)
        return jax.lax.scan(step, parameters, order)

    state = {"parameters": parameters, "key": jax.random.key(1)}

    def run() -> None:
        state["key"], key = jax.random.split(state["key"])
        state["parameters"], figures = jax.block_until_ready(epoch(state["parameters"], key))
        assert all(np.isfinite(np.mean(f)) for f in figures)

    def accuracy() -> float:
        return float((logits(state["parameters"], xt).argmax(1) == test.labels).mean())

    return run, accuracy


def pytorch(depth: int, train: Images, test: Images, *, loader: bool) -> Contender:
    import torch
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    # More threads slow so small a net down.
    torch.set_num_threads(1)
    torch.manual_seed(0)
    sizes = [train.pixels[0].size, *[WIDTH] * depth]
    hidden = [m for i, j in itertools.pairwise(sizes) for m in (nn.Linear(i, j), nn.Tanh())]
    model = nn.Sequential(*hidden, nn.Linear(WIDTH, CLASSES))
    for m in model:
        if isinstance(m, nn.Linear):
            nn.init.xavier_uniform_(m.weight)
            nn.init.zeros_(m.bias)
    optimizer = torch.optim.SGD(model.parameters(), RATE)
    x, y, xt = torch.tensor(floats(train)), torch.tensor(train.labels), torch.tensor(floats(test))
    loss = nn.CrossEntropyLoss()
    batches = DataLoader(TensorDataset(x, y), BATCH, shuffle=True)

    def in_memory() -> Any:
        for index in torch.randperm(len(x)).split(BATCH):
            yield x[index], y[index]

    def run() -> None:
        total, correct = 0.0, 0
        for xb, yb in batches if loader else in_memory():
            optimizer.zero_grad()
            logits = model(xb)
            value = loss(logits, yb)
            value.backward()
            optimizer.step()
            total += value.item() * len(xb)
            correct += (logits.argmax(1) == yb).sum().item()
        assert np.isfinite(total)
        assert correct

    def accuracy() -> float:
        with torch.no_grad():
            return float((model(xt).argmax(1).numpy() == test.labels).mean())

    return run, accuracy


def seconds_of(run: Callable[[], object], repeats: int) -> list[float]:
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        run()
        times.append(time.perf_counter() - begun)
    return times


def measure_other(contender: Contender, repeats: int) -> dict[str, float]:
    run, accuracy = contender
    run()
    times = seconds_of(run, repeats)
    return {**summary(times), "accuracy": accuracy(), "epochs": repeats + 1}


def measure_ours(depth: int, train: Images, test: Images, epochs: int) -> dict[str, float]:
    """Two nets a core, with per-layer gradient statistics after every epoch."""
    specs = grid(depth=depth, width=WIDTH, epochs=epochs, seed=range(2 * cpu_threads()))
    history = train_sweep(specs, train, test=test)
    times = seconds_of(
        lambda: train_sweep(specs, train, test=test, probe_epochs=range(epochs + 1)), 3
    )
    per_epoch = [t / (len(specs) * epochs) for t in times]
    accuracy = float(np.median(history.test["test_accuracy"]))
    return {**summary(per_epoch), "accuracy": accuracy, "epochs": epochs}


def summary(times: list[float]) -> dict[str, float]:
    return {
        "seconds": statistics.median(times),
        "fastest": min(times),
        "slowest": max(times),
        "runs": len(times),
    }


def share_of_peak(width: int, depth: int, train: Images, peak: float) -> float:
    """One net at a time on one core, statistics on, against that core's measured peak."""
    spec = NetSpec(depth=depth, width=width, epochs=2)
    inputs = train.pixels[0].size
    flops = 2 * (2 * inputs * width + 3 * (depth - 1) * width**2 + 3 * width * CLASSES)
    seconds = seconds_of(lambda: train_sweep([spec], train, probe_epochs=(0, 1, 2), threads=1), 3)
    return flops * len(train) * spec.epochs / min(seconds) / peak


def thousand_nets() -> dict[str, float]:
    """In a process of its own, so that the peak of its memory is its own."""
    code = (
        "import json, re, time; from unmask import grid, train_sweep;"
        "from unmask.data.mnist import load_mnist;"
        "train, test = load_mnist(); train = train[:48000]; begun = time.perf_counter();"
        "train_sweep(grid(depth=20, epochs=1, seed=range(1000)), train, test=test);"
        "seconds = time.perf_counter() - begun; status = open('/proc/self/status').read();"
        "print(json.dumps([seconds, int(re.search(r'VmHWM:\\s+(\\d+)', status)[1]) / 1024]))"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    seconds, megabytes = json.loads(out.stdout)
    return {"seconds": seconds, "megabytes": megabytes}


def start_up() -> dict[str, float]:
    commands = {
        "import unmask": ["-c", "import unmask"],
        "unmask --help": ["-m", "unmask", "--help"],
    }
    return {
        name: min(
            seconds_of(lambda a=a: subprocess.run([sys.executable, *a], capture_output=True), 5)
        )
        for name, a in commands.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=3, help="epochs timed of each contender")
    repeats = parser.parse_args().repeats
    train, test = load_mnist()
    train = train[:48000]
    peak = _kernel.peak_flops(chosen_instruction_set())
    console = Console(width=110)
    table = Table(title="Seconds a net and epoch (width 32, batch 32, tanh, MNIST)")
    for column in ("", "5 layers", "20 layers", "40 layers"):
        table.add_column(column, justify="left" if not column else "right")
    makers: dict[str, Callable[[int], Contender]] = {
        LOADER: lambda d: pytorch(d, train, test, loader=True),
        MEMORY: lambda d: pytorch(d, train, test, loader=False),
        KERAS: lambda d: keras_on_jax(d, train, test),
        SCAN: lambda d: jax_scan(d, train, test),
    }
    figures: dict[str, dict[str, Any]] = {OURS: {}, **{name: {} for name in makers}}
    for depth in (5, 20, 40):
        # Ours before and after the others, and the slower counts: other load would show.
        first = measure_ours(depth, train, test, repeats + 1)
        for name, make in makers.items():
            figures[name][str(depth)] = measure_other(make(depth), repeats)
        second = measure_ours(depth, train, test, repeats + 1)
        figures[OURS][str(depth)] = max(first, second, key=lambda m: m["seconds"])
    ours = figures[OURS]
    for name, by_depth in figures.items():
        table.add_row(
            name,
            *(
                f"{m['seconds']:.4f} ({m['fastest']:.4f}-{m['slowest']:.4f}), {m['accuracy']:.3f}"
                + (f", {m['seconds'] / ours[d]['seconds']:.0f}x" if name != OURS else "")
                for d, m in by_depth.items()
            ),
        )
    console.print(table, "median (fastest-slowest), test accuracy, times ours", sep="\n")
    ratios = {
        name: min(m["seconds"] / ours[d]["seconds"] for d, m in figures[name].items())
        for name in makers
    }
    shares = {
        f"width {w}, {d} layers": share_of_peak(w, d, train, peak)
        for w in (32, 64, 128)
        for d in (5, 20, 40)
    }
    console.print(f"peak of one core: {peak / 1e9:.0f} GFLOP/s, of which ours reaches")
    for name, share in shares.items():
        console.print(f"  {name}: {share:.0%}")
    thousand, starts = thousand_nets(), start_up()
    console.print(
        f"1000 nets of 20 layers, one epoch: {thousand['seconds']:.1f} s, "
        f"{thousand['megabytes']:.0f} MB",
        *(f"{name}: {seconds:.3f} s" for name, seconds in starts.items()),
        sep="\n",
    )
    reached = {
        **{f"{t:g} times {name}": ratios[name] >= t for name, t in TARGETS.items()},
        "55 % of the peak": min(shares.values()) >= 0.55,
        "1000 nets under 60 s": thousand["seconds"] < 60,
        "1000 nets under 400 MB": thousand["megabytes"] < 400,
        "start under 0.3 s": max(starts.values()) < 0.3,
    }
    result = {
        "seconds_per_net_epoch": figures,
        "least_ratio": ratios,
        "peak_flops": peak,
        "share_of_peak": shares,
        "thousand_nets": thousand,
        "start_up_seconds": starts,
        "reached": reached,
        "threads": cpu_threads(),
        "stamp": environment_stamp(instructions=chosen_instruction_set()),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
