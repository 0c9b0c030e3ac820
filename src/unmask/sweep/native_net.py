"""One net on the C++ kernel, with the interface of the reference net."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from unmask.errors import UserError, unknown
from unmask.models.activations import IN_KERNEL
from unmask.sweep.history import LAYER_STATISTICS
from unmask.sweep.init import LayerParameters, Parameters
from unmask.sweep.spec import LOSSES, OPTIMIZERS, NetSpec

try:
    from unmask.sweep import _kernel
except ImportError:  # Built where there was no C++ compiler.
    _kernel = None  # type: ignore[assignment]

ISA_VARIABLE = "UNMASK_ISA"


def has_kernel() -> bool:
    """Return whether this installation was built with the C++ kernel."""
    return _kernel is not None


def instruction_sets() -> list[str]:
    """Return the instruction sets of the kernel that this processor runs, the fastest first."""
    return list(_kernel.instruction_sets()) if has_kernel() else []


def chosen_instruction_set() -> str:
    """Return the instruction set in the environment variable UNMASK_ISA, or the fastest available.

    Raises:
        UserError: the kernel isn't built, or the processor has no such instructions.
    """
    available = instruction_sets()
    if not available:
        raise UserError(
            "this installation has no C++ kernel",
            do="leave out engine='native', or install a C++20 compiler (g++ 11, clang 14) and "
            "unmask again",
        )
    name = os.environ.get(ISA_VARIABLE) or available[0]
    if name not in available:
        raise unknown(f"instruction set in {ISA_VARIABLE}", name, available)
    return name


def require_instruction_set(name: str) -> None:
    """Raise UserError unless this processor runs the instruction set that a sweep began with."""
    available = instruction_sets()
    if name not in available:
        raise UserError(
            f"a processor doesn't run the {name} instructions that the sweep began with",
            got=", ".join(available) or "an installation without the C++ kernel",
            do=f"begin the sweep with {ISA_VARIABLE} set to one that every machine has",
        )


class NativeNet:
    """A multilayer perceptron whose every operation runs in the kernel, without the GIL.

    Args:
        spec: the net.
        parameters: (float32[n_in, n_out], float32[n_out]) of every layer in turn, copied.
        train_pixels: uint8[n, d], read as pixels / 255.
        train_labels: int64[n], 0 to classes - 1.
        classes: how many.
        isa: the instruction set, by default chosen_instruction_set's.
        stop: uint8[1]; when it turns from 0 to 1 the running operation ends within a layer's time
            and returns meaningless figures.

    Raises:
        UserError: the kernel has no such activation, or isn't built.
    """

    def __init__(
        self,
        spec: NetSpec,
        parameters: Iterable[LayerParameters],
        train_pixels: NDArray[np.uint8],
        train_labels: NDArray[np.int64],
        classes: int,
        *,
        isa: str | None = None,
        stop: NDArray[np.uint8] | None = None,
    ) -> None:
        if spec.activation not in IN_KERNEL:
            raise UserError(
                "the kernel has no such activation",
                got=repr(spec.activation),
                do="train with engine='stacked', or write it in C++ too: docs/extending.md",
            )
        self._pixels, self._labels, self._classes = train_pixels, train_labels, classes
        self._stop = np.zeros(1, np.uint8) if stop is None else stop
        sizes = [train_pixels.shape[1], *[spec.width] * spec.depth, classes]
        self._shapes = list(itertools.pairwise(sizes))
        self._mlp = _kernel.NativeMlp(
            isa or chosen_instruction_set(),
            train_pixels.shape[1],
            classes,
            spec.depth,
            spec.width,
            spec.batch_size,
            IN_KERNEL.index(spec.activation),
            LOSSES.index(spec.loss),
            OPTIMIZERS.index(spec.optimizer),
            spec.learning_rate,
        )
        for layer, (weights, biases) in enumerate(parameters):
            self._mlp.set_layer(layer, weights, biases)
            if self._stop[0]:
                break

    def train(self, order: NDArray[np.uint32]) -> tuple[float, float, int]:
        """Train one epoch; see ReferenceNet.train.

        Args:
            order: uint32[m] into the training images.

        Returns:
            Mean loss, accuracy and the diverged step or -1.
        """
        loss, accuracy, diverged_step, _ = self._mlp.train(
            self._pixels, self._labels, order, self._stop
        )
        return loss, accuracy, diverged_step

    def evaluate(self, pixels: NDArray[np.uint8], labels: NDArray[np.int64]) -> tuple[float, float]:
        """Return the mean loss and the accuracy; see ReferenceNet.evaluate.

        Args:
            pixels: uint8[m, d].
            labels: int64[m].
        """
        loss, accuracy, _ = self._mlp.evaluate(pixels, labels, self._stop)
        return loss, accuracy

    def probe(
        self,
        pixels: NDArray[np.uint8],
        labels: NDArray[np.int64],
        dead_pixels: NDArray[np.uint8],
    ) -> dict[str, NDArray[np.float64]]:
        """Return the per-layer statistics of LAYER_STATISTICS, float64[layers] each.

        Args:
            pixels: uint8[m, d], of the mini-batch.
            labels: int64[m].
            dead_pixels: uint8[k, d], over which units are judged dead.
        """
        out = np.empty((len(self._shapes), len(LAYER_STATISTICS)))
        self._mlp.probe(
            pixels, labels, dead_pixels, np.zeros(len(dead_pixels), np.int64), out, self._stop
        )
        return {name: out[:, i].copy() for i, name in enumerate(LAYER_STATISTICS)}

    def gradients(
        self, pixels: NDArray[np.uint8], labels: NDArray[np.int64]
    ) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """Return dE/dW and dE/db of every layer, float64, E the mean loss over the images.

        Args:
            pixels: uint8[m, d].
            labels: int64[m].
        """
        out = np.empty(sum((i + 1) * j for i, j in self._shapes))
        self._mlp.gradients(pixels, labels, out)
        result, start = [], 0
        for i, j in self._shapes:
            weights = out[start : start + i * j].reshape(i, j)
            result.append((weights, out[start + i * j : start + (i + 1) * j]))
            start += (i + 1) * j
        return result

    def parameters(self) -> Parameters:
        """Return copies of every layer's weights and biases."""
        copies: Parameters = []
        for layer, (i, j) in enumerate(self._shapes):
            weights, biases = np.empty((i, j), np.float32), np.empty(j, np.float32)
            self._mlp.get_layer(layer, weights, biases)
            copies.append((weights, biases))
        return copies
