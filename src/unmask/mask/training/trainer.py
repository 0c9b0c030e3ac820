"""Train the detector on annotated images, on one core or many."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unmask.data.detection.dataset import AnnotatedImages
from unmask.errors import UserError
from unmask.mask.training.canvases import Canvases, CanvasSettings
from unmask.mask.training.colour import recoloured
from unmask.mask.training.loss import losses, targets
from unmask.mask.training.network import DetectorCard, DetectorShape, FaceNetwork, save_detector
from unmask.runtime import seeded, write_atomically
from unmask.saved_state import check_keys, damaged
from unmask.train.averaging import Average
from unmask.train.config import FitConfig
from unmask.train.device import autocast, drawing_from, pick_device
from unmask.train.optimizers import descend, optimizers
from unmask.train.schedules import SCHEDULES
from unmask.train.state import load_run, save_run

_CANVAS_STREAM, _COLOUR_STREAM, _ORDER_STREAM = 11, 12, 13
# Of the classes' cross-entropy: the root of their rarity would trust the few there are too much.
_RARITY_POWER = 1 / 3
_MOST_GRADIENT = 10.0
# Disks may take a second to have three files for certain.
_SECONDS_BETWEEN_SAVES = 15.0


@dataclass(frozen=True)
class DetectorSettings:
    """Every setting of a detector's training but the images.

    fit: epochs, batch, optimiser, schedule, averaging, precision and seed; what it says of
    classifiers' images plays no part. Canvases are made as canvas says.
    """

    fit: FitConfig = field(
        default_factory=lambda: FitConfig(
            epochs=80,
            batch_size=16,
            optimizer="muon_adamw",
            rate=0.04,
            bias_rate=2e-3,
            head_rate=2e-3,
            weight_decay=0.05,
            warmup=0.1,
            averaging="ema",
            averaging_horizon=300,
        )
    )
    canvas: CanvasSettings = field(default_factory=CanvasSettings)
    shape: DetectorShape = field(default_factory=DetectorShape)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain


@dataclass(frozen=True)
class DetectorProgress:
    """How far a run is: losses are means over the epoch so far, seconds_left an estimate."""

    epoch: int
    epochs: int
    step: int
    steps: int
    face: float
    sides: float
    classes: float
    seconds: float
    seconds_left: float


def train_detector(
    annotated: AnnotatedImages,
    settings: DetectorSettings,
    *,
    directory: Path,
    resume: bool = False,
    device: str = "auto",
    progress: Callable[[DetectorProgress], None] | None = None,
) -> FaceNetwork:
    """Train from nothing and return the network in eval mode, with its averaged weights.

    directory gets checkpoint.safetensors, history.jsonl and detector.safetensors after an epoch,
    four times a minute at most; the last can be loaded at any moment, and with resume a run goes on
    after the epoch that was kept to the very weights it would have had. progress is called after
    every step. Raises UserError for images without faces, a checkpoint of another run, and a loss
    that isn't finite.
    """
    if not annotated.counts.sum():
        raise UserError("there is no face to train on", got=annotated.name)
    run = _Run(annotated, settings, pick_device(device), progress)
    file = directory / "checkpoint.safetensors"
    if resume and file.exists():
        run.restore(file)
    saved = time.perf_counter()
    while len(run.epochs) < settings.fit.epochs:
        run.train_epoch()
        over = len(run.epochs) == settings.fit.epochs
        if over or time.perf_counter() - saved >= _SECONDS_BETWEEN_SAVES:
            run.save(directory)
            saved = time.perf_counter()
    run.use_average()
    return run.network


class _Run:
    """One training run between two epochs."""

    def __init__(
        self,
        annotated: AnnotatedImages,
        settings: DetectorSettings,
        device: torch.device,
        progress: Callable[[DetectorProgress], None] | None,
    ) -> None:
        self.settings, self.device, self.progress = settings, device, progress
        with drawing_from(settings.fit.seed, torch.device("cpu")):
            network = FaceNetwork(len(annotated.class_names), settings.shape)
        self.network: FaceNetwork = network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.canvases = Canvases(annotated, settings.canvas)
        self.steps = max(1, round(self.canvases.repeats.sum() / settings.fit.batch_size))
        self.optimizers = optimizers(self.network, settings.fit)
        self.average = Average(self.network, settings.fit)
        self.class_weights = rarity_weights(annotated.counts).to(device)
        self.card = DetectorCard(annotated.class_names, settings.shape, {"data": annotated.sha256})
        self.epochs: list[dict[str, float]] = []
        self.key = {"settings": settings.as_dict(), "data": annotated.sha256}

    def train_epoch(self) -> None:
        """Train one epoch and note its figures."""
        fit, epoch, began = self.settings.fit, len(self.epochs), time.perf_counter()
        random = seeded(fit.seed, _ORDER_STREAM, epoch)
        order = np.resize(self.canvases.order(random), self.steps * fit.batch_size)
        sums, total_steps = np.zeros(3), self.steps * fit.epochs
        self.network.train()
        for i, batch in enumerate(np.split(order, self.steps)):
            step = epoch * self.steps + i
            height = SCHEDULES[fit.schedule](step, total_steps, fit.warmup, fit.end)
            sums += self._step(batch, step, height)
            self.average.update(step + 1, total_steps)
            self._report(i + 1, sums / (i + 1), time.perf_counter() - began)
        if not np.isfinite(sums).all():
            raise UserError(
                f"the loss is not finite in epoch {epoch + 1}: training diverged",
                got=float(sums.sum()),
                do=f"lower the learning rate, {fit.rate:g}",
            )
        face, sides, classes = (sums / self.steps).tolist()
        seconds = time.perf_counter() - began + (self.epochs[-1]["seconds"] if self.epochs else 0)
        self.epochs.append(
            {
                "epoch": epoch + 1,
                "face": face,
                "sides": sides,
                "classes": classes,
                "rate": fit.rate * height,
                "seconds": seconds,
            }
        )

    def _step(self, batch: Any, step: int, height: float) -> Any:
        fit, size = self.settings.fit, self.settings.canvas.size
        made = [
            self.canvases.make(int(picture), seeded(fit.seed, _CANVAS_STREAM, step, place))
            for place, picture in enumerate(batch)
        ]
        stacked = torch.from_numpy(np.stack([canvas.pixels for canvas in made]))
        pixels = recoloured(stacked, seeded(fit.seed, _COLOUR_STREAM, step)).to(self.device)
        wanted = targets([canvas.faces for canvas in made], size, size).to(self.device)
        with autocast(self.device, fit.precision):
            heads = self.network(pixels)
        parts = losses(heads, wanted, self.class_weights)
        descend(self.optimizers, parts.total, height, most_gradient=_MOST_GRADIENT)
        return np.array([float(v.detach()) for v in (parts.face, parts.sides, parts.classes)])

    def _report(self, step: int, means: Any, spent: float) -> None:
        if self.progress is None:
            return
        epochs = self.settings.fit.epochs
        seconds = spent + (self.epochs[-1]["seconds"] if self.epochs else 0)
        done = len(self.epochs) + step / self.steps
        face, sides, classes = (float(v) for v in means)
        self.progress(
            DetectorProgress(
                epoch=len(self.epochs) + 1,
                epochs=epochs,
                step=step,
                steps=self.steps,
                face=face,
                sides=sides,
                classes=classes,
                seconds=seconds,
                seconds_left=seconds / done * (epochs - done),
            )
        )

    def use_average(self) -> None:
        """Give the network its averaged weights, for good, and set it to eval mode."""
        with torch.no_grad():
            state = self.network.state_dict()
            for name, tensor in self.average.state.items():
                state[name].copy_(tensor)
        self.network.eval()

    def save(self, directory: Path) -> None:
        """Write the checkpoint, the history and the averaged weights."""
        header = {"key": self.key, "epochs": self.epochs}
        save_run(directory / "checkpoint.safetensors", self._states(), self.optimizers, header)
        with write_atomically(directory / "history.jsonl") as file:
            file.writelines(json.dumps(epoch).encode() + b"\n" for epoch in self.epochs)
        with self.average.applied():
            save_detector(directory / "detector.safetensors", self.network, self.card)

    def restore(self, file: Path) -> None:
        """Go back to where the checkpoint was written."""
        header, _ = load_run(file, self.key, self._states(), self.optimizers)
        check_keys(header, ("key", "epochs"), file)
        if not (isinstance(header["epochs"], list) and header["epochs"]) or any(
            not isinstance(epoch, dict) or epoch.get("epoch") != number
            for number, epoch in enumerate(header["epochs"], 1)
        ):
            raise damaged(file, "its epochs aren't numbered 1, 2, 3, ...")
        self.epochs = header["epochs"]

    def _states(self) -> dict[str, dict[str, Tensor]]:
        return {"model": self.network.state_dict(), "average": self.average.state}


def rarity_weights(counts: Any) -> Tensor:
    """Return float[k]: the cube root of how many times rarer than the commonest each class is."""
    held = np.maximum(counts, 1)
    return torch.from_numpy(((held.max() / held) ** _RARITY_POWER).astype(np.float32))
