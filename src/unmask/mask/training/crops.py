"""Faces cut out of annotated images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unmask.data.detection.dataset import AnnotatedImages
from unmask.data.images import Images
from unmask.data.listing import skipped
from unmask.errors import UserError
from unmask.mask.evaluate.matching import face_sides


@dataclass(frozen=True, eq=False)
class FaceCrops:
    """Faces cut out of images.

    Args:
        images: one labelled square for each face.
        picture: int64[n], the index of the image that each face comes from.
        sides: float64[n], of the faces in pixels there (face_sides).
        warnings: a line for each image left out.
    """

    images: Images
    picture: NDArray[np.int64]
    sides: NDArray[np.float64]
    warnings: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: NDArray[np.integer[Any]] | NDArray[np.bool_]) -> FaceCrops:
        return FaceCrops(self.images[index], self.picture[index], self.sides[index], self.warnings)


def crops(annotated: AnnotatedImages, size: int, context: float) -> FaceCrops:
    """Return every annotated face as 3 x size x size pixels.

    The square is centred on the box. Beyond the image the edge pixels repeat. It is scaled by a
    bicubic filter wide enough not to alias. Images that can't be read are left out with a warning.

    Args:
        annotated: the images with their faces.
        size: side of the crops in pixels.
        context: what is added on either side, as a fraction of the box's longer side.

    Raises:
        UserError: when no image can be read or none has a face.
    """
    pixels: list[NDArray[np.uint8]] = []
    kept: list[int] = []
    warnings = []
    for i in range(len(annotated)):
        try:
            picture = annotated.pixels(i)
        except UserError as error:
            warnings.append(skipped((annotated.paths[i].name,), str(error)))
            continue
        pixels += [square(picture, box, size, context) for box in annotated.boxes[i]]
        kept.append(i)
    if not pixels:
        raise UserError(
            f"no face can be cut out of {annotated.name}", got=(*warnings, "no faces")[0]
        )
    boxes = np.concatenate([annotated.boxes[i] for i in kept])
    images = Images(
        np.stack(pixels),
        np.concatenate([annotated.labels[i] for i in kept]),
        annotated.class_names,
        annotated.name,
    )
    picture_of = np.repeat(np.array(kept), [len(annotated.boxes[i]) for i in kept])
    return FaceCrops(images, picture_of, face_sides(boxes), tuple(warnings))


def square(
    picture: NDArray[np.uint8],
    box: Sequence[float] | NDArray[np.float32],
    size: int,
    context: float,
) -> NDArray[np.uint8]:
    """Return the square about a box as crops cuts it out, uint8[3, size, size].

    Args:
        picture: uint8[h, w, 3] in RGB.
        box: xyxy in pixels.
        size: side of the result in pixels.
        context: see crops.
    """
    from PIL import Image

    x1, y1, x2, y2 = (float(v) for v in box)
    half = max(x2 - x1, y2 - y1) * (0.5 + context)
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    # Some pixels more than the square needs, for the filter to reach across its edge.
    left, top = int(x - half) - 3, int(y - half) - 3
    right, bottom = int(x + half) + 4, int(y + half) + 4
    columns = np.clip(np.arange(left, right), 0, picture.shape[1] - 1)
    rows = np.clip(np.arange(top, bottom), 0, picture.shape[0] - 1)
    part = Image.fromarray(picture[rows[:, None], columns])
    scaled = part.resize(
        (size, size),
        Image.Resampling.BICUBIC,
        box=(x - half - left, y - half - top, x + half - left, y + half - top),
    )
    return np.asarray(scaled).transpose(2, 0, 1)
