"""One fold of a detector's cross-validation: train it, and detect in the images it left out."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from unmask.data.detection.dataset import AnnotatedImages
from unmask.mask.evaluate.confidence import found_in
from unmask.mask.evaluate.folds import folds
from unmask.mask.runtime.calibration import Calibration
from unmask.mask.runtime.detector import MaskDetector
from unmask.mask.training.export import ENOUGH, Agreement, export_detector, quantize_detector
from unmask.mask.training.network import load_detector, network_detector
from unmask.mask.training.trainer import DetectorProgress, DetectorSettings, train_detector
from unmask.runtime import seeded, write_atomically

PRECISIONS = ("float32", "int8")
_DRAW_STREAM = 14


@dataclass(frozen=True)
class CrossValidation:
    """What the folds have in common; fold number `count` is all images, with none left out.

    Args:
        annotated: the images; every worker must reach their files.
        folder: where fold k leaves fold-k; every worker must reach it.
        settings: of the training, apart from the seed.
        count: how many folds.
        scale: pixels that the network sees for one of the image.
    """

    annotated: AnnotatedImages
    folder: Path
    settings: DetectorSettings
    count: int = 5
    scale: float = 1.6

    def fold(self, number: int) -> Path:
        """Return the folder of a fold."""
        return self.folder / f"fold-{number}"

    def split(self, number: int) -> tuple[AnnotatedImages, AnnotatedImages]:
        """Return the images that a fold is trained on, and those that it leaves out."""
        every = np.arange(len(self.annotated))
        chosen, left_out = every, every[:0]
        if number < self.count:
            chosen, left_out = folds(self.annotated, self.count)[number]
        return self.annotated[chosen], self.annotated[left_out]

    def done(self, number: int) -> bool:
        """Return whether a fold is trained and its detections are written."""
        return all((self.fold(number) / f"{p}.json").exists() for p in PRECISIONS)


def train_fold(validation: CrossValidation, number: int) -> None:
    """Train a fold on one thread and write what it detects in the images left out.

    Its folder gets a line an epoch in log, the files of train_detector, from which it resumes, and
    the detections of the network in float32 and of the exported file in 8 bits, as JSON.

    Args:
        validation: what the folds have in common.
        number: of the fold, which is also its seed.
    """
    torch.set_num_threads(1)
    out = validation.fold(number)
    annotated, _ = validation.split(number)
    settings = validation.settings
    settings = replace(settings, fit=replace(settings.fit, seed=number))
    out.mkdir(parents=True, exist_ok=True)
    with (out / "log").open("a") as log:

        def tell(p: DetectorProgress) -> None:
            if p.step == p.steps:
                log.write(
                    f"epoch {p.epoch} of {p.epochs}: face {p.face:.3f} sides {p.sides:.3f} "
                    f"classes {p.classes:.3f}, {p.seconds:.0f} s, {p.seconds_left:.0f} s left\n"
                )
                log.flush()

        train_detector(annotated, settings, directory=out, resume=True, progress=tell)
    look_at_fold(validation, number)


def look_at_fold(validation: CrossValidation, number: int) -> None:
    """Write what the detector of a trained fold finds in the images left out.

    Args:
        validation: what the folds have in common.
        number: of the fold.
    """
    out = validation.fold(number)
    annotated, left_out = validation.split(number)
    network, card = load_detector(out / "detector.safetensors")
    with tempfile.TemporaryDirectory() as folder:
        onnx = Path(folder) / "int8.onnx"
        write_onnx(onnx, out, annotated, number, Calibration(), validation.scale)
        detectors = {
            "float32": network_detector(network, card.class_names, validation.scale),
            "int8": MaskDetector.load(onnx),
        }
    for precision in PRECISIONS:
        found = found_in(detectors[precision], left_out)
        with write_atomically(out / f"{precision}.json") as file:
            file.write(json.dumps([d.as_dict() for d in found]).encode())


def write_onnx(
    path: Path,
    trained: Path,
    annotated: AnnotatedImages,
    seed: int,
    calibration: Calibration,
    scale: float,
) -> tuple[float, Agreement]:
    """Write a trained detector as ONNX in 8 bits, its ranges set by images that it was trained on.

    Args:
        path: of the ONNX file.
        trained: the folder that holds detector.safetensors.
        annotated: the images it was trained on.
        seed: draws some of these.
        calibration: of its scores.
        scale: pixels that the network should see for one of the image.

    Returns:
        What export_detector and quantize_detector return.
    """
    network, card = load_detector(trained / "detector.safetensors")
    order = seeded(seed, _DRAW_STREAM).permutation(len(annotated))
    setting, checking = annotated[order[:ENOUGH]], annotated[order[ENOUGH : 2 * ENOUGH]]
    with tempfile.TemporaryDirectory() as folder:
        floating = Path(folder) / "float32.onnx"
        difference = export_detector(network, card, floating, calibration=calibration, scale=scale)
        return difference, quantize_detector(floating, path, _opened(setting), _opened(checking))


def _opened(annotated: AnnotatedImages) -> Iterator[Image.Image]:
    return (Image.fromarray(annotated.pixels(i)) for i in range(len(annotated)))
