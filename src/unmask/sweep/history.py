"""The result of a sweep: every net's losses, accuracies and per-layer gradient statistics."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unmask.runtime import write_atomically
from unmask.saved_state import check_array, check_keys, damaged, parse_json, read_arrays, reading
from unmask.sweep.spec import NetSpec

PENDING, FINISHED, DIVERGED = 0, 1, 2
STATUS_NAMES = ("pending", "finished", "diverged")

CURVES = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy")
TEST_FIGURES = ("test_loss", "test_accuracy")
LAYER_STATISTICS = (
    "gradient_max",
    "gradient_mean",
    "gradient_rms",
    "activation_rms",
    "slope_mean_square",
    "saturated",
    "dead",
)


@dataclass(frozen=True)
class SweepHistory:
    """The outcome of a sweep, one row a net.

    NaN stands where there is no value: epochs and layers that a net doesn't have, everything after
    divergence, phi' of the softmax layer.

    Args:
        specs: of the nets.
        curves: by a name in CURVES, float32[nets, epochs]; training figures are the mean over the
            epoch's mini-batches.
        test: by a name in TEST_FIGURES, float32[nets].
        layers: by a name in LAYER_STATISTICS, float64[nets, probes, layers]. Layer 1 is nearest the
            input and the last is the softmax layer. gradient_max, gradient_mean and gradient_rms
            are of |dE/dW| over the layer's weights; activation_rms is of its outputs;
            slope_mean_square is the mean of phi'(v)^2; saturated is the fraction of (unit, image)
            pairs with |phi'| under 5 % of its supremum; dead is the fraction of units with |phi'|
            under 0.1 % of its supremum for every image of the probe set.
        probe_epochs: when layers were measured: 0 at the start, or after that epoch.
        status: uint8[nets], an index into STATUS_NAMES.
        diverged_step: int64[nets], the first step (from 1) with a loss that is not finite, or -1.
        stamp: the provenance, in plain values.

    Raises:
        ValueError: an array doesn't have one row a net.

    Example:
        >>> history = unmask.train_sweep(
        ...     [unmask.NetSpec(depth=2, epochs=1)],
        ...     unmask.load_data("mnist", part="train", count=64),
        ... )
        >>> history.layers["gradient_mean"].shape  # nets, probed epochs, layers
        (1, 1, 3)
    """

    specs: tuple[NetSpec, ...]
    curves: dict[str, NDArray[np.float32]]
    test: dict[str, NDArray[np.float32]]
    layers: dict[str, NDArray[np.float64]]
    probe_epochs: tuple[int, ...]
    status: NDArray[np.uint8]
    diverged_step: NDArray[np.int64]
    stamp: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.specs)
        tables: list[NDArray[Any]] = [self.status, self.diverged_step]
        for group in (self.curves, self.test, self.layers):
            tables += group.values()
        if any(len(table) != n for table in tables):
            raise ValueError(f"every array of a SweepHistory has one row a net ({n})")

    @staticmethod
    def empty(
        specs: tuple[NetSpec, ...], probe_epochs: tuple[int, ...], stamp: dict[str, Any]
    ) -> SweepHistory:
        """Return a history with every net pending and every figure NaN.

        Args:
            specs: of the nets.
            probe_epochs: when layers are measured.
            stamp: the provenance, in plain values.
        """
        n = len(specs)
        epochs = max((s.epochs for s in specs), default=0)
        layers = max((s.depth for s in specs), default=0) + 1
        return SweepHistory(
            specs=specs,
            curves={k: np.full((n, epochs), np.nan, np.float32) for k in CURVES},
            test={k: np.full(n, np.nan, np.float32) for k in TEST_FIGURES},
            layers={
                k: np.full((n, len(probe_epochs), layers), np.nan, np.float64)
                for k in LAYER_STATISTICS
            },
            probe_epochs=probe_epochs,
            status=np.zeros(n, np.uint8),
            diverged_step=np.full(n, -1, np.int64),
            stamp=stamp,
        )

    def save(self, path: Path) -> None:
        """Write the history to one compressed .npz file, whole or not at all."""
        header = {
            "specs": [s.as_dict() for s in self.specs],
            "probe_epochs": list(self.probe_epochs),
            "stamp": self.stamp,
        }
        arrays: dict[str, Any] = {
            **{f"curves/{k}": v for k, v in self.curves.items()},
            **{f"test/{k}": v for k, v in self.test.items()},
            **{f"layers/{k}": v for k, v in self.layers.items()},
            "status": self.status,
            "diverged_step": self.diverged_step,
            "header": np.frombuffer(json.dumps(header).encode(), np.uint8),
        }
        with write_atomically(path) as file:
            np.savez_compressed(file, **arrays)

    @staticmethod
    def load(path: Path) -> SweepHistory:
        """Return the history that save wrote.

        Args:
            path: of the .npz file.

        Raises:
            UserError: the file is missing or damaged.
        """
        arrays = read_arrays(path)
        with reading(path):
            header = parse_json(arrays.pop("header").tobytes(), path)
            check_keys(header, ("specs", "probe_epochs", "stamp"), path)
            specs = tuple(NetSpec(**s) for s in header["specs"])
            probes = header["probe_epochs"]
            if not all(type(epoch) is int and epoch >= 0 for epoch in probes):
                raise ValueError(f"probe_epochs are {probes}")
            if not isinstance(header["stamp"], dict):
                raise ValueError("the stamp must be names and values")
        # Checked against the shapes of a history of these nets, without allocating one.
        n = len(specs)
        epochs = max((s.epochs for s in specs), default=0)
        layers = max((s.depth for s in specs), default=0) + 1
        groups: dict[str, dict[str, NDArray[Any]]] = {}
        for group, names, dtype, shape in (
            ("curves", CURVES, np.float32, (n, epochs)),
            ("test", TEST_FIGURES, np.float32, (n,)),
            ("layers", LAYER_STATISTICS, np.float64, (n, len(probes), layers)),
        ):
            groups[group] = {
                k: check_array(arrays, f"{group}/{k}", path, dtype=dtype, shape=shape)
                for k in names
            }
        status = check_array(arrays, "status", path, dtype=np.uint8, shape=(n,))
        if np.any(status >= len(STATUS_NAMES)):
            raise damaged(path, f"a status of {status.max()}, of which {DIVERGED} is the last")
        step = check_array(arrays, "diverged_step", path, dtype=np.int64, shape=(n,))
        return SweepHistory(
            specs=specs,
            **groups,
            probe_epochs=tuple(probes),
            status=status,
            diverged_step=step,
            stamp=header["stamp"],
        )
