"""Train the detector on annotated images, on one core or many."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unmask.data.detection.dataset import AnnotatedImages
from unmask.errors import UserError
from unmask.mask.training.canvases import Canvases, CanvasSettings
from unmask.mask.training.colour import Colours
from unmask.mask.training.loss import losses, targets
from unmask.mask.training.network import DetectorShape, FaceNetwork, detector_card, save_detector
from unmask.runtime import seeded
from unmask.train.config import LoopConfig
from unmask.train.device import autocast, drawing_from, pick_device, placed
from unmask.train.distributed import processes
from unmask.train.history import EpochRecord
from unmask.train.loop import Descent, Progress

_CANVAS_STREAM, _COLOUR_STREAM, _ORDER_STREAM = 11, 12, 13
# Weights of the classes: the square root of their rarity would give few faces too much weight.
_RARITY_POWER = 1 / 3
_MOST_GRADIENT = 10.0


@dataclass(frozen=True)
class DetectorSettings:
    """Every setting of a detector's training but the images.

    Args:
        fit: epochs, batch size, optimiser, schedule, averaging, precision and seed.
        canvas: how the training images are made.
        shape: the network's widths and depths.
    """

    fit: LoopConfig = field(
        default_factory=lambda: LoopConfig(
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


@dataclass(frozen=True, kw_only=True)
class DetectorProgress(Progress):
    """How far a run is.

    Args:
        face: the mean loss of the heat over the epoch so far.
        sides: that of the boxes.
        classes: that of the classes.
        epoch, step and the rest: see Progress.
    """

    face: float
    sides: float
    classes: float


def train_detector(
    annotated: AnnotatedImages,
    settings: DetectorSettings,
    *,
    directory: Path,
    resume: bool = False,
    device: str = "auto",
    progress: Callable[[DetectorProgress], None] | None = None,
) -> FaceNetwork:
    """Train a new detector and return the network in eval mode, with its averaged weights.

    Args:
        annotated: what is trained on.
        settings: every setting.
        directory: gets checkpoint.safetensors, history.jsonl and detector.safetensors after an
            epoch, four times a minute at most; the last can be loaded at any moment.
        resume: continue after the last checkpoint, to the very weights of an uninterrupted run.
        device: auto, cpu, cuda or cuda:N.
        progress: called about five times a second, and after the last step of each epoch.

    Raises:
        UserError: there is no face, the checkpoint is damaged or of another run, or the loss isn't
            finite.
    """
    if not annotated.counts.sum():
        raise UserError("there is no face to train on", got=annotated.name)
    run = DetectorRun(annotated, settings, pick_device(device), progress)
    file = directory / "checkpoint.safetensors"
    if resume:
        run.restore(file)
    run.run(file)
    run.average.settle()
    return run.network.eval()


@dataclass(frozen=True)
class DetectorEpoch(EpochRecord):
    """The figures of one epoch.

    Args:
        epoch: from 1.
        face: the mean loss of the heat.
        sides: that of the boxes.
        classes: that of the classes.
        rate: the learning rate at its end.
        seconds: since the run began.
    """

    epoch: int
    face: float
    sides: float
    classes: float
    rate: float
    seconds: float


class DetectorRun(Descent[DetectorEpoch]):
    """A detector's training, which keeps the averaged weights of its last epoch.

    Args:
        annotated: what is trained on.
        settings: every setting.
        device: where it trains.
        progress: see train_detector.
    """

    record = DetectorEpoch
    seconds_between_saves = 15.0
    # Before the loop was shared, a detector's settings held those of a classifier's images too.
    dropped = ("augmentation", "label_smoothing", "target", "test_time", "validate_from")

    def __init__(
        self,
        annotated: AnnotatedImages,
        settings: DetectorSettings,
        device: torch.device,
        progress: Callable[[DetectorProgress], None] | None,
    ) -> None:
        fit = settings.fit
        with drawing_from(fit.seed, torch.device("cpu")):
            network = FaceNetwork(len(annotated.class_names), settings.shape)
        self.network = placed(network, device)
        self.settings, self.progress = settings, progress
        self.canvases = Canvases(annotated, settings.canvas)
        if processes().count > 1:
            raise UserError(
                "a detector trains in one process", got=processes().count, do="leave torchrun out"
            )
        super().__init__(
            self.network,
            fit,
            steps=max(1, round(self.canvases.repeats.sum() / fit.batch_size)),
            key={"settings": settings.as_dict(), "data": annotated.sha256},
            sums=3,
            reports=progress is not None,
            most_gradient=_MOST_GRADIENT,
        )
        self.class_weights = rarity_weights(annotated.counts).to(device)
        self.card = detector_card(annotated.class_names, settings.shape, {"data": annotated.sha256})
        self.order: NDArray[np.int64] = np.empty((0, 0), np.int64)

    def begin(self, epoch: int) -> None:
        """Draw the order in which images come."""
        batch = self.settings.fit.batch_size
        order = self.canvases.order(seeded(self.seed, _ORDER_STREAM, epoch))
        self.order = np.resize(order, self.steps * batch).reshape(self.steps, batch)

    def step(self, step: int) -> int:
        """Train on this process's canvases of a batch, and add their losses."""
        fit, size = self.settings.fit, self.settings.canvas.size
        images, count = self.order[step % self.steps], self.together.count
        part = self.together.part(len(images))
        made = [
            self.canvases.make(int(images[place]), seeded(fit.seed, _CANVAS_STREAM, step, place))
            for place in range(len(images))[part]
        ]
        stacked = torch.from_numpy(np.stack([canvas.pixels for canvas in made]))
        colours = Colours.drawn(len(images), seeded(fit.seed, _COLOUR_STREAM, step))
        pixels = colours[part].applied(stacked).to(self.device)
        wanted = targets([canvas.faces for canvas in made], size, size).to(self.device)
        with autocast(self.device, fit.precision):
            heads = self.learner(pixels)
        # Gradients are averaged over processes, whose parts may differ by any number of faces.
        faces = self.together.summed(torch.tensor(wanted.faces, dtype=torch.float64))
        parts = losses(heads, wanted, self.class_weights, max(float(faces), 1.0) / count)
        self.descend(parts.total, step)
        for k, part_loss in enumerate((parts.face, parts.sides, parts.classes)):
            self.sums[k] += part_loss.detach()
        return 1

    def tell(self, where: Progress, means: list[float], spent: float) -> None:
        """Report the losses of the epoch so far; see Loop.tell."""
        assert self.progress
        face, sides, classes = means
        self.progress(DetectorProgress(**vars(where), face=face, sides=sides, classes=classes))

    def note(self, means: list[float], spent: float) -> DetectorEpoch:
        """Return the epoch's figures; see Loop.note."""
        face, sides, classes = means
        return DetectorEpoch(
            len(self.epochs) + 1, face, sides, classes, rate=self.rate, seconds=self.seconds
        )

    def save(self, file: Path) -> None:
        """Write the averaged weights, the history and, last, the checkpoint."""
        with self.averaged():
            save_detector(file.with_name("detector.safetensors"), self.network, self.card)
        super().save(file)


def rarity_weights(counts: Any) -> Tensor:
    """Return float32[k], the cube root of how many times rarer each class is than the most common.

    Args:
        counts: int[k], the faces of each class.
    """
    held = np.maximum(counts, 1)
    return torch.from_numpy(((held.max() / held) ** _RARITY_POWER).astype(np.float32))
