"""Exercise 2 A's and C's networks and recipes in Keras 3 on JAX, one JSON line an epoch.

    python benchmarks/keras_document.py mnist pictures.npz --epochs 3

The archive holds x, y (training) and xv, yv (to measure accuracy on), uint8 NCHW and int64.
benchmarks/mnist.py and benchmarks/cifar.py write it and run this in a process of its own, so that
nothing else shares the cores or the memory.
"""

from __future__ import annotations

import argparse
import json
import os
import time
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("network", choices=("mnist", "cifar10"))
    parser.add_argument("pictures")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--target", type=float, default=1.0, help="stop when accuracy exceeds it")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    keras.utils.set_random_seed(arguments.seed)
    with np.load(arguments.pictures) as saved:
        x, xv = (saved[k].transpose(0, 2, 3, 1).astype(np.float32) / 255 for k in ("x", "xv"))
        y, yv = saved["y"], saved["yv"]
    made = mnist_layers() if arguments.network == "mnist" else cifar10_layers()
    model = keras.Sequential(
        [keras.Input(x.shape[1:]), *made, layers.Dense(10, activation="softmax")]
    )
    model.compile(
        keras.optimizers.Adam(1e-3),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    spent = 0.0
    for epoch in range(1, arguments.epochs + 1):
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
        print(json.dumps(line), flush=True)
        if accuracy > arguments.target:
            break


if __name__ == "__main__":
    main()
