"""Exercise 2 A's and C's networks and recipes in Keras 3 on JAX, one JSON line an epoch.

    python benchmarks/train/keras_recipe.py mnist pictures.npz --epochs 3

The archive holds x, y (training) and xv, yv (to measure accuracy on), uint8 NCHW and int64. With
--folder a run that was stopped goes on after its last whole epoch, whose model lies there beside
history.jsonl; the lines of the epochs before are printed again.
mnist.py and cifar10.py of this folder write it and run this in a process of its own, so that
nothing else shares the cores or the memory.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np
from keras import layers


def mnist_layers() -> list[Any]:
    blocks = [
        layer
        for width in (32, 64, 128)
        for layer in (
            layers.Conv2D(width, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(2),
        )
    ]
    return [*blocks, layers.Flatten(), layers.Dense(128, activation="relu")]


def cifar10_layers() -> list[Any]:
    made: list[Any] = [
        layers.RandomFlip("horizontal"),
        layers.RandomTranslation(0.1, 0.1, fill_mode="reflect"),
    ]
    for width, rate in ((32, 0.2), (64, 0.3), (128, 0.4)):
        for _ in range(2):
            made += [
                layers.Conv2D(width, 3, padding="same", activation="relu"),
                layers.BatchNormalization(),
            ]
        made += [layers.MaxPooling2D(2), layers.Dropout(rate)]
    made += [layers.Flatten(), layers.Dense(128, activation="relu")]
    return [*made, layers.BatchNormalization(), layers.Dropout(0.5)]


def new_model(network: str, shape: tuple[int, ...]) -> Any:
    made = mnist_layers() if network == "mnist" else cifar10_layers()
    model = keras.Sequential([keras.Input(shape), *made, layers.Dense(10, activation="softmax")])
    model.compile(
        keras.optimizers.Adam(1e-3),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    return model


def model_of(folder: Path, epoch: int) -> Path:
    return folder / f"epoch-{epoch}.keras"


def done_in(folder: Path) -> list[dict[str, Any]]:
    file = folder / "history.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def keep(model: Any, folder: Path, line: dict[str, Any]) -> None:
    """Write the model before the line that tells of it, so that a line is never without one."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save(model_of(folder, line["epoch"]))
    with (folder / "history.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    model_of(folder, line["epoch"] - 1).unlink(missing_ok=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("network", choices=("mnist", "cifar10"))
    parser.add_argument("pictures")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--target", type=float, default=1.0, help="stop when accuracy exceeds it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where a run that was stopped can go on")
    arguments = parser.parse_args()
    keras.utils.set_random_seed(arguments.seed)
    with np.load(arguments.pictures) as saved:
        x, xv = (saved[k].transpose(0, 2, 3, 1).astype(np.float32) / 255 for k in ("x", "xv"))
        y, yv = saved["y"], saved["yv"]
    folder = arguments.folder
    done = done_in(folder) if folder else []
    for line in done:
        print(json.dumps(line), flush=True)
    if done:
        model = keras.models.load_model(model_of(folder, done[-1]["epoch"]))
        keras.utils.set_random_seed(arguments.seed + len(done))
    else:
        model = new_model(arguments.network, x.shape[1:])
    spent = done[-1]["seconds"] if done else 0.0
    accuracy = done[-1]["accuracy"] if done else 0.0
    epoch = len(done)
    while epoch < arguments.epochs and accuracy <= arguments.target:
        epoch += 1
        begun = time.perf_counter()
        history = model.fit(x, y, batch_size=64, epochs=1, verbose=0)
        spent += time.perf_counter() - begun
        accuracy = model.evaluate(xv, yv, batch_size=500, verbose=0)[1]
        line = {
            "epoch": epoch,
            "seconds": spent,
            "pictures": epoch * len(x),
            "train_accuracy": history.history["accuracy"][0],
            "accuracy": accuracy,
        }
        if folder:
            keep(model, folder, line)
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
