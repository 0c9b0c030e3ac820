"""The portrait with a mask drawn onto it, and what the detector that ships says of both."""

from __future__ import annotations

import base64
import io

from PIL import Image, ImageDraw

from unmask.coursework.sections import Picture
from unmask.data.samples import portrait
from unmask.mask.runtime.classes import plain_words
from unmask.mask.runtime.detector import MaskDetector
from unmask.mask.runtime.drawing import draw
from unmask.text import percent

# On the portrait's 512 x 600 pixels: from the bridge of the nose over the cheeks to the chin.
_OUTLINE = (
    *((268, 208), (300, 222), (352, 250), (346, 290), (322, 326), (268, 344)),
    *((216, 328), (190, 294), (182, 250), (236, 222)),
)
_STRAPS = (
    ((184, 252), (164, 222)),
    ((190, 296), (168, 252)),
    ((351, 252), (364, 214)),
    ((346, 290), (362, 246)),
)
_PLEATS = (((188, 262), (268, 250), (348, 262)), ((196, 296), (268, 284), (342, 296)))
_CLOTH, _SHADE, _STRAP = (142, 190, 214), (104, 154, 182), (232, 236, 238)
_FINER = 4


def masked(picture: Image.Image) -> Image.Image:
    """Return the portrait with a surgical mask drawn onto it."""
    # Drawn larger and scaled down, which gives smooth edges.
    mask = Image.new("RGBA", (picture.width * _FINER, picture.height * _FINER))
    pencil = ImageDraw.Draw(mask)
    for strap in _STRAPS:
        pencil.line(_scaled(strap), fill=_STRAP, width=3 * _FINER)
    pencil.polygon(_scaled(_OUTLINE), fill=_CLOTH, outline=_SHADE, width=2 * _FINER)
    for pleat in _PLEATS:
        pencil.line(_scaled(pleat), fill=_SHADE, width=2 * _FINER, joint="curve")
    mask = mask.resize(picture.size, Image.Resampling.BOX)
    return Image.alpha_composite(picture.convert("RGBA"), mask).convert("RGB")


def looked_at() -> tuple[tuple[Picture, ...], tuple[str, ...]]:
    """Return the portrait without and with a mask as the detector sees them, and what it says.

    Raises UserError where no detector ships.
    """
    detector = MaskDetector.load()
    pictures, notes = [], []
    bare = portrait()
    for name, picture in (
        ("the portrait", bare),
        ("the portrait with a mask drawn onto it", masked(bare)),
    ):
        found = detector.detect(picture)
        faces = [
            f"{plain_words(label)} ({percent(float(row.max()))} sure)"
            for label, row in zip(found.names(), found.probabilities, strict=True)
        ]
        count = f"{len(found)} face{'s' * (len(found) != 1)}"
        told = f": {', '.join(faces)}" if faces else ""
        notes.append(f"The detector that ships finds {count} in {name}{told}.")
        buffer = io.BytesIO()
        draw(picture.copy(), found).save(buffer, "PNG")
        caption = f"{name[:1].upper()}{name[1:]}, as the detector that ships sees it."
        png = base64.b64encode(buffer.getvalue()).decode()
        pictures.append(Picture(caption, caption, png=png, small=True))
    return tuple(pictures), tuple(notes)


def _scaled(points: tuple[tuple[int, int], ...]) -> list[tuple[int, int]]:
    return [(x * _FINER, y * _FINER) for x, y in points]
