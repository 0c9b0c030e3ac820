"""The sample images that ship with Unmask; samples/README.md states their sources."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources

import numpy as np
from PIL import Image

from unmask.data.cifar10 import CLASSES
from unmask.data.images import Images

Point = tuple[float, float]

_CIFAR10_LABELS = (3, 8, 8, 0, 6, 6, 1, 6, 3, 1, 0, 9, 5, 7, 9, 8, 5, 7, 8, 6)


@dataclass(frozen=True)
class Portrait:
    """A portrait of one person in the public domain, and where its face lies.

    Args:
        name: the file's name without its suffix.
        person: who is shown.
        bridge: the middle of the nose bridge, as (x, y) in pixels.
        lip: the middle of the upper lip.
        chin: the middle of the chin.
        left: the left edge of the face, as in the image, at the height of the nose.
        right: the right edge at the same height.
    """

    name: str
    person: str
    bridge: Point
    lip: Point
    chin: Point
    left: Point
    right: Point

    def image(self) -> Image.Image:
        """Return the image in RGB."""
        return _open(f"{self.name}.jpg")

    @property
    def box(self) -> tuple[float, float, float, float]:
        """The face from the forehead to the chin, as x1, y1, x2, y2 in pixels."""
        height = self.chin[1] - self.bridge[1]
        return (
            self.left[0],
            self.bridge[1] - 0.7 * height,
            self.right[0],
            self.chin[1] + 0.04 * height,
        )


PORTRAITS = (
    Portrait("hopper", "Grace Hopper", (268, 208), (268, 270), (268, 344), (182, 250), (352, 250)),
    Portrait(
        "collins", "Eileen Collins", (191, 122), (190, 154), (188, 196), (143, 146), (237, 143)
    ),
    Portrait("obama", "Barack Obama", (244, 150), (246, 205), (248, 286), (166, 200), (338, 198)),
    Portrait("biden", "Joe Biden", (290, 252), (286, 334), (283, 412), (162, 310), (375, 300)),
)


def portrait() -> Image.Image:
    """Return the portrait of Grace Hopper, 512 x 600 in RGB."""
    return PORTRAITS[0].image()


def cifar10_sample() -> Images:
    """Return the first 20 test images of CIFAR-10, bit for bit (A. Krizhevsky, 2009)."""
    strip = np.asarray(_open("cifar10.png"))
    pixels = strip.reshape(32, len(_CIFAR10_LABELS), 32, 3).transpose(1, 3, 0, 2)
    labels = np.array(_CIFAR10_LABELS, np.int64)
    return Images(np.ascontiguousarray(pixels), labels, CLASSES, "CIFAR-10 test (first 20)")


def _open(name: str) -> Image.Image:
    with (resources.files("unmask.data") / "samples" / name).open("rb") as file:
        return Image.open(file).convert("RGB")
