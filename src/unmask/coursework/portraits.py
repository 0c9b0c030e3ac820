"""Portraits with masks drawn onto them, and the predictions of the face classifier and detector."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from unmask.coursework.exercise import Drawings
from unmask.coursework.sections import Picture
from unmask.data.images import Images
from unmask.data.samples import PORTRAITS, Portrait
from unmask.mask.runtime.classes import plain_words
from unmask.mask.runtime.detector import MaskDetector
from unmask.mask.runtime.drawing import draw
from unmask.mask.training.crops import square
from unmask.models.classifier import Classifier
from unmask.text import percent
from unmask.train.evaluation import logits_of

WORN = ("without a mask", "with a mask", "with a mask under the nose")
"""How a portrait is shown; the last is how a mask is worn improperly."""

# Points of a mask: across the face, -1 and 1 at its edges, and down it, 0 where the mask begins and
# 1 at the chin.
_OUTLINE = (
    *((0, 0), (0.38, 0.1), (1, 0.31), (0.93, 0.6), (0.64, 0.87), (0, 1.02)),
    *((-0.64, 0.87), (-0.93, 0.6), (-1, 0.31), (-0.38, 0.1)),
)
_STRAPS = tuple(
    ((side * x, y), (side * further, higher))
    for side in (-1, 1)
    for x, y, further, higher in ((0.99, 0.32, 1.2, 0.08), (0.92, 0.63, 1.17, 0.3))
)
_PLEATS = (((-0.93, 0.4), (0, 0.31), (0.93, 0.4)), ((-0.84, 0.65), (0, 0.56), (0.84, 0.65)))
_CLOTH, _SHADE, _STRAP = (142, 190, 214), (104, 154, 182), (232, 236, 238)
_FINER = 4
_HEIGHT, _GAP, _PAPER = 240, 8, (255, 255, 255)


@dataclass(frozen=True, eq=False)
class FaceSeen:
    """A face of a portrait, and what the classifier predicts.

    Args:
        person: who is shown.
        worn: one of WORN.
        crop: uint8[3, h, w], as the classifier gets it.
        predicted: with_mask or without_mask; a mask worn improperly counts as none.
        confidence: in the predicted class, 0 to 1.
    """

    person: str
    worn: str
    crop: NDArray[np.uint8]
    predicted: str
    confidence: float

    @property
    def right(self) -> bool:
        """Whether the predicted class agrees with what was drawn."""
        return (self.predicted == "with_mask") == (self.worn == WORN[1])


def shown(portrait: Portrait, worn: str) -> Image.Image:
    """Return a portrait as it is, or with a surgical mask drawn onto it; worn is one of WORN."""
    image = portrait.image()
    if worn == WORN[0]:
        return image
    # Drawn larger and scaled down, which gives smooth edges.
    mask = Image.new("RGBA", (image.width * _FINER, image.height * _FINER))
    pencil = ImageDraw.Draw(mask)
    thick = max(1, round((portrait.right[0] - portrait.left[0]) / 85 * _FINER))

    def placed(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
        return [_placed(portrait, x, y, below=worn == WORN[2]) for x, y in points]

    for strap in _STRAPS:
        pencil.line(placed(strap), fill=_STRAP, width=thick)
    pencil.polygon(placed(_OUTLINE), fill=_CLOTH, outline=_SHADE, width=thick)
    for pleat in _PLEATS:
        pencil.line(placed(pleat), fill=_SHADE, width=thick, joint="curve")
    mask = mask.resize(image.size, Image.Resampling.BOX)
    return Image.alpha_composite(image.convert("RGBA"), mask).convert("RGB")


def classified(classifier: Classifier) -> tuple[FaceSeen, ...]:
    """Return the predictions of a classifier of faces for every portrait, in every way of WORN."""
    facts = classifier.card.facts["faces"]
    named = [(portrait, worn) for portrait in PORTRAITS for worn in WORN]
    crops = np.stack(
        [
            square(np.asarray(shown(portrait, worn)), portrait.box, facts["size"], facts["context"])
            for portrait, worn in named
        ]
    )
    names = classifier.card.class_names
    images = Images(crops, np.zeros(len(crops), np.int64), names, "portraits")
    logits = logits_of(classifier, images, test_time=classifier.card.facts["recipe"]["test_time"])
    chances = logits.softmax(1).numpy()
    return tuple(
        FaceSeen(portrait.person, worn, crop, names[int(row.argmax())], float(row.max()))
        for (portrait, worn), crop, row in zip(named, crops, chances, strict=True)
    )


def faces_picture(faces: Sequence[FaceSeen], drawings: Drawings) -> Picture:
    """Return the faces as the classifier gets them, with its prediction below each."""
    png = drawings.faces(
        [
            (face.crop, f"{plain_words(face.predicted)}, {percent(face.confidence)}", face.right)
            for face in faces
        ],
        rows=WORN,
    )
    caption = "The faces cut out as the classifier is given them, and the class it predicts."
    return Picture(caption, caption, png=base64.b64encode(png).decode())


def detected(detector: MaskDetector) -> tuple[Picture, tuple[str, ...]]:
    """Return every portrait with what the detector finds drawn onto it, and the same in words."""
    rows = []
    notes = []
    for worn in WORN:
        row, found = [], []
        for portrait in PORTRAITS:
            image = shown(portrait, worn)
            faces = detector.detect(image)
            said = [
                f"{plain_words(label)} ({percent(float(chances.max()))})"
                for label, chances in zip(faces.names(), faces.probabilities, strict=True)
            ]
            found.append(f"{portrait.person}: {' and '.join(said) or 'no face'}")
            drawn = draw(image, faces)
            row.append(drawn.resize((round(drawn.width * _HEIGHT / drawn.height), _HEIGHT)))
        rows.append(row)
        notes.append(f"The detector that ships on the portraits {worn}: {', '.join(found)}.")
    caption = (
        "The portraits without a mask, with one, and with one under the nose, as the detector "
    )
    caption += "that ships sees them."
    buffer = io.BytesIO()
    _sheet(rows).quantize(256).save(buffer, "PNG", optimize=True)
    png = base64.b64encode(buffer.getvalue()).decode()
    return Picture(caption, caption, png=png), tuple(notes)


def _sheet(rows: Sequence[Sequence[Image.Image]]) -> Image.Image:
    width = max(sum(image.width + _GAP for image in row) for row in rows) - _GAP
    sheet = Image.new("RGB", (width, len(rows) * (_HEIGHT + _GAP) - _GAP), _PAPER)
    for i, row in enumerate(rows):
        x = 0
        for image in row:
            sheet.paste(image, (x, i * (_HEIGHT + _GAP)))
            x += image.width + _GAP
    return sheet


def _placed(portrait: Portrait, x: float, y: float, *, below: bool) -> tuple[float, float]:
    """Return a point of the mask in pixels of the enlarged image."""
    top, chin = np.array(portrait.bridge, float), np.array(portrait.chin, float)
    down = chin - top
    if below:
        # From just over the lip to under the chin.
        start = _height(portrait.lip, top, down) - 0.06
        y = start + (1.1 - start) * y
    edge = np.array(portrait.right if x > 0 else portrait.left, float)
    outwards = edge - (top + _height(edge, top, down) * down)
    point = _FINER * (top + y * down + abs(x) * outwards)
    return float(point[0]), float(point[1])


def _height(
    point: Sequence[float] | NDArray[np.float64],
    top: NDArray[np.float64],
    down: NDArray[np.float64],
) -> float:
    return float((np.asarray(point) - top) @ down / (down @ down))
