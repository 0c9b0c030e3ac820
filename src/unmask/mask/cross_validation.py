"""One fold of a detector's cross-validation: trained, and looked at with what it left out."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from unmask.data.annotated import AnnotatedPictures
from unmask.mask.faces import folds
from unmask.mask.looking import found_in
from unmask.mask.training import DetectorProgress, DetectorSettings, train_detector
from unmask.runtime import write_atomically

VIEWS = ("single", "mirrored")


@dataclass(frozen=True)
class CrossValidation:
    """What the folds have in common; fold `count` is all pictures, with none left out.

    folder: where fold k leaves fold-k, seen by every worker, as are the pictures. scale: pixels the
    network sees for one of the picture.
    """

    annotated: AnnotatedPictures
    folder: Path
    settings: DetectorSettings
    count: int = 5
    scale: float = 1.6

    def fold(self, number: int) -> Path:
        """Return the folder of a fold."""
        return self.folder / f"fold-{number}"

    def done(self, number: int) -> bool:
        """Return whether a fold is trained and its detections are there."""
        return all((self.fold(number) / f"{view}.json").exists() for view in VIEWS)


def train_fold(validation: CrossValidation, number: int) -> None:
    """Train a fold on one thread and write what it finds in the pictures left out.

    Its seed is its number. Its folder gets a line an epoch in log, what train_detector leaves, from
    which it goes on where it was stopped, and the detections of VIEWS as JSON.
    """
    torch.set_num_threads(1)
    annotated, out = validation.annotated, validation.fold(number)
    every = np.arange(len(annotated))
    chosen, left_out = every, every[:0]
    if number < validation.count:
        chosen, left_out = folds(annotated, validation.count)[number]
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

        network = train_detector(
            annotated[chosen], settings, directory=out, resume=True, progress=tell
        )
    for view in VIEWS:
        found = found_in(
            network, annotated[left_out], scale=validation.scale, flip=view == "mirrored"
        )
        with write_atomically(out / f"{view}.json") as file:
            file.write(json.dumps([d.as_dict() for d in found]).encode())
