"""The generator attack of Exercise 2: images by classes, in the report's way and in ours."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from unmask.coursework.cells import all_of
from unmask.coursework.exercise import Drawings, Progress
from unmask.coursework.generator.attack import generator_attack
from unmask.coursework.sections import Cell, Picture
from unmask.data.images import Images
from unmask.fool.grid import Grid, fool_grid
from unmask.fool.norms import Threat
from unmask.fool.victim import Victim
from unmask.models.classifier import Classifier

REPORT_WAY, SMALLEST = "the report's way", "the smallest change"
_MODES = {REPORT_WAY: "course-report", SMALLEST: "fast"}


@dataclass(frozen=True, eq=False)
class Fooled:
    """The grids of both ways.

    Args:
        grids: by REPORT_WAY and SMALLEST.
    """

    grids: dict[str, Grid]

    def reached(self, way: str) -> Cell:
        """Return whether every image, saved with 8 bits, is predicted as its target class."""
        grid = self.grids[way]
        outcome = grid.outcome
        return all_of(
            "all",
            int(outcome.reached_saved.sum()),
            len(grid.rows),
            f"As saved with 8 bits and read back, {way}; mean L2 {outcome.l2.mean():.2f}, largest "
            f"change of a value {255 * outcome.linf.mean():.1f}/255 (mean), SSIM "
            f"{outcome.similarity.mean():.3f} (mean).",
        )

    def picture(self, way: str, caption: str, draw: Drawings) -> Picture:
        """Return the grid as a figure."""
        png = draw.grid(self.grids[way])
        return Picture(caption, caption, png=base64.b64encode(png).decode())

    def read_by(self, reader: Classifier, way: str) -> int:
        """Return for how many changed images another classifier predicts their own class."""
        grid = self.grids[way]
        with torch.no_grad():
            said = reader(torch.from_numpy(grid.changed)).argmax(1).numpy()
        return int(np.sum(said == grid.labels[grid.rows]))


def fool(
    classifier: Classifier, pictures: Images, names: Sequence[str], title: str, progress: Progress
) -> Fooled:
    """Change each image until the classifier predicts each other class, in both ways.

    Args:
        classifier: the one to fool.
        pictures: the images, uint8[n, c, h, w].
        names: what each image is, in words.
        title: of the grids.
        progress: called when a way begins.
    """
    subject = Victim.of(classifier, "the classifier", kind="Unmask's")
    pixels = torch.from_numpy(pictures.pixels).float() / 255
    labels = torch.from_numpy(pictures.labels)
    found = {}
    for way, mode in _MODES.items():
        progress(f"fooling it, {way}", None)
        found[way] = fool_grid(
            subject,
            pixels,
            labels,
            names=names,
            title=title,
            attack=partial(generator_attack, mode=mode),
            mode=mode,
            threat=Threat.parse("l2"),
            stamp={},
        )
    return Fooled(found)
