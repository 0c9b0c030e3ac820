"""Images of coloured squares, and a detector small enough to learn them by heart in seconds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from unmask.data.detection.dataset import AnnotatedImages
from unmask.mask.training.canvases import CanvasSettings
from unmask.mask.training.network import DetectorShape
from unmask.mask.training.trainer import DetectorSettings
from unmask.train.config import LoopConfig

SMALL = DetectorShape(8, (16, 16, 32, 32), (1, 1, 1, 1), 32)
COLOURS = ((40, 200, 60), (210, 50, 40), (40, 60, 220))
NAMES = ("with_mask", "without_mask", "mask_weared_incorrect")


def squares(folder: Path, count: int) -> AnnotatedImages:
    """Noise with one coloured square of each class."""
    random = np.random.default_rng(0)
    paths, boxes = [], []
    for i in range(count):
        pixels = random.integers(90, 140, (96, 128, 3), np.uint8)
        own = []
        for k, colour in enumerate(COLOURS):
            x, y = 4 + 42 * k + int(random.integers(8)), int(random.integers(4, 60))
            pixels[y : y + 28, x : x + 26] = colour
            own.append([x, y, x + 26, y + 28])
        paths.append(folder / f"{i}.png")
        Image.fromarray(pixels).save(paths[-1])
        boxes.append(np.array(own, np.float32))
    labels = tuple(np.arange(3) for _ in range(count))
    sizes = np.tile([128, 96], (count, 1))
    return AnnotatedImages(tuple(paths), sizes, tuple(boxes), labels, NAMES, "squares")


def settings(epochs: int, **canvas: object) -> DetectorSettings:
    fit = LoopConfig(epochs, batch_size=4, rate=4e-3, warmup=0.1, precision="fp32")
    still = {"mosaic": 0.0, "paste": 0.0, "turned": 0.0, "blurred": 0.0}
    plain = {"size": 128, "scales": (0.9, 1.1), **still, **canvas}
    return DetectorSettings(fit, CanvasSettings(**plain), SMALL)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Learnt:
    """Annotated images, a detector trained on them, and its ONNX file."""

    annotated: AnnotatedImages
    weights: Path
    onnx: Path
