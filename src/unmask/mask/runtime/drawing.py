"""Boxes with words beside them drawn on an image, and faces made unrecognisable."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from unmask.mask.runtime.calibration import FULL_SIDE, Calibration
from unmask.mask.runtime.classes import Colour, colour_of, short_words
from unmask.mask.runtime.detections import NOT_JUDGED_NAME, Detections

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

# The least size of an image to draw on: on a smaller one, words could not be read.
LEAST_SIDE = 400
# Words may cover this fraction of an image; an image of a crowd is enlarged, within limits, until
# they cover no more.
MOST_COVERED = 0.2
_MOST_GROWN = 2000
_SMALLEST_TEXT = 12
_BLACK, _WHITE = (0, 0, 0), (255, 255, 255)
# The area of a face's words, with letters of height 1.
_TAG_AREA = 7.0
# A hidden face keeps no more than this many values a side, whatever its size.
HIDDEN_CELLS = 5
# A low confidence is enough to hide a face: a few false positives are better than one face seen.
# The first is a calibrated score. The second is the network's own, below which the scores of a
# detector that isn't calibrated are noise.
HIDE_SCORE, HIDE_RAW = 0.001, 0.1
# How far a head reaches beyond its face, as a fraction of the box: to the sides, up and down.
_ASIDE, _ABOVE, _BELOW = 0.3, 0.45, 0.2


class _Place(NamedTuple):
    left: float
    top: float
    right: float
    bottom: float

    def shared(self, others: NDArray[np.float32]) -> float:
        """Return how much of its area, in pixels, lies in boxes[n, 4], each counted separately."""
        if not len(others):
            return 0.0
        width = np.minimum(self.right, others[:, 2]) - np.maximum(self.left, others[:, 0])
        height = np.minimum(self.bottom, others[:, 3]) - np.maximum(self.top, others[:, 1])
        return float((np.maximum(width, 0) * np.maximum(height, 0)).sum())


def draw(
    picture: Image.Image,
    found: Detections,
    *,
    numbers: NDArray[np.int64] | None = None,
    note: str = "",
    grow: bool = True,
) -> Image.Image:
    """Return the RGB image with a box and words for every face; the given image is drawn on.

    Args:
        picture: an RGB image.
        found: its faces.
        numbers: int64[n], of the faces' tracks, shown before the words; None for none.
        note: shown in the corner.
        grow: whether the image may be returned larger, by a whole factor, when both sides are under
            LEAST_SIDE pixels or when the words would cover more than MOST_COVERED of it.
    """
    scale = _growth(picture.size, len(found)) if grow else 1
    if scale > 1:
        picture = picture.resize((picture.width * scale, picture.height * scale))
    pencil = ImageDraw.Draw(picture)
    boxes = found.boxes * scale
    line = max(2, round(max(picture.size) / 400))
    names = found.names()
    colours = [colour_of(name, found.class_names) for name in names]
    for box, colour in zip(boxes, colours, strict=True):
        _outline(pencil, box, colour, line)
    text = _text_size(picture.size, len(found))
    taken = boxes
    # The largest first, since their words fit in the fewest places.
    sizes = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    for i in np.argsort(-sizes, kind="stable"):
        words = short_words(names[i])
        if numbers is not None:
            words = f"{numbers[i]} {words}"
        wordings = [words]
        if names[i] != NOT_JUDGED_NAME:
            # Nothing is certain, so 99 % is the most that is shown.
            confidence = min(float(found.probabilities[i, found.labels[i]]), 0.99)
            wordings.insert(0, f"{words} {confidence:.0%}")
        place = _write(pencil, wordings, boxes[i], colours[i], text, line, taken)
        taken = np.vstack([taken, np.array(place, np.float32)])
    if note:
        _tag(pencil, note, _Place(line, line, 0, 0), _font(round(text * 1.2)), _BLACK)
    return picture


def hide_threshold(calibration: Calibration) -> float:
    """Return the calibrated score in (0, 1] from which on a head is hidden under a calibration."""
    noise = calibration.confidence(np.array([HIDE_RAW]), np.array([FULL_SIDE]))
    return max(HIDE_SCORE, float(noise[0]))


def heads(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the region to hide for faces in boxes[n, 4]: their heads, float32[n, 4] in pixels."""
    wide, high = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    reach = (-_ASIDE * wide, -_ABOVE * high, _ASIDE * wide, _BELOW * high)
    return np.asarray(boxes + np.stack(reach, 1), np.float32)


def hide(picture: Image.Image, boxes: NDArray[np.float32]) -> None:
    """Make the heads of faces in an RGB image unrecognisable, in the image itself.

    Each becomes at most HIDDEN_CELLS x HIDDEN_CELLS mean colours with smooth transitions; what they
    don't hold can't be recovered.

    Args:
        picture: an RGB image, which is changed.
        boxes: float32[n, 4] of the faces, xyxy in pixels.
    """
    for left, top, right, bottom in heads(boxes).tolist():
        region = (
            max(0, int(left)),
            max(0, int(top)),
            min(picture.width, int(right) + 1),
            min(picture.height, int(bottom) + 1),
        )
        size = (region[2] - region[0], region[3] - region[1])
        if min(size) < 1:
            continue
        cells = (min(HIDDEN_CELLS, size[0]), min(HIDDEN_CELLS, size[1]))
        few = picture.crop(region).resize(cells, Image.Resampling.BOX)
        picture.paste(few.resize(size, Image.Resampling.BICUBIC), region)


def _text_size(size: tuple[int, int], count: int) -> int:
    """Return the height of letters in pixels: in proportion to the image, smaller in a crowd."""
    usual = max(size) / 55
    fitting = math.sqrt(MOST_COVERED * size[0] * size[1] / (max(count, 1) * _TAG_AREA))
    return max(_SMALLEST_TEXT, round(min(usual, fitting)))


def _growth(size: tuple[int, int], count: int) -> int:
    least = -(-LEAST_SIDE // max(size))
    needed = count * _TAG_AREA * _SMALLEST_TEXT**2 / MOST_COVERED
    crowded = math.ceil(math.sqrt(needed / (size[0] * size[1])))
    return max(1, least, min(crowded, _MOST_GROWN // max(size)))


def _outline(
    pencil: ImageDraw.ImageDraw, box: NDArray[np.float32], colour: Colour, line: int
) -> None:
    left, top, right, bottom = (round(float(x)) for x in box)
    # Around the face and not on it, and with a dark rim, which shows on any background.
    for beyond, width, ink in ((line, line + 1, _BLACK), (line, line, colour)):
        edge = beyond + (ink == _BLACK)
        corners = (left - edge, top - edge, right - 1 + edge, bottom - 1 + edge)
        pencil.rectangle(corners, outline=ink, width=width)


def _write(
    pencil: ImageDraw.ImageDraw,
    wordings: list[str],
    box: NDArray[np.float32],
    colour: Colour,
    text: int,
    line: int,
    taken: NDArray[np.float32],
) -> _Place:
    """Write the first wording that covers no face and no words, or else what covers the least."""
    font = _font(text)
    choices = [
        (place.shared(taken), words, place)
        for words in wordings
        for place in _around(box, _extent(font, words), line + 1, pencil.im.size)
    ]
    _, words, place = next((c for c in choices if c[0] == 0), min(choices, key=lambda c: c[0]))
    _tag(pencil, words, place, font, colour)
    return place


def _around(
    box: NDArray[np.float32], size: tuple[int, int], gap: int, canvas: tuple[int, int]
) -> list[_Place]:
    """Return the places for words of this size beside a box, the best first, on the canvas."""
    left, top, right, bottom = (float(x) for x in box)
    width, height = size
    above, below = top - gap - height, bottom + gap
    wanted = [
        (left - gap, above),
        (left - gap, below),
        (right + gap - width, above),
        (right + gap - width, below),
        (right + gap, top),
        (left - gap - width, top),
        (right + gap, bottom - height),
        (left - gap - width, bottom - height),
        ((left + right - width) / 2, bottom - height),
    ]
    places = []
    for x, y in wanted:
        at_x = min(max(x, 0), max(canvas[0] - width, 0))
        at_y = min(max(y, 0), max(canvas[1] - height, 0))
        places.append(_Place(at_x, at_y, at_x + width, at_y + height))
    return places


def _tag(
    pencil: ImageDraw.ImageDraw,
    words: str,
    at: _Place,
    font: FreeTypeFont,
    colour: Colour,
) -> None:
    width, height = _extent(font, words)
    x, y = round(at.left), round(at.top)
    pencil.rectangle((x, y, x + width - 1, y + height - 1), fill=colour)
    luma = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    ink = _BLACK if luma > 140 else _WHITE
    pencil.text((x + _pad(font), y + height / 2), words, fill=ink, font=font, anchor="lm")


def _extent(font: FreeTypeFont, words: str) -> tuple[int, int]:
    return round(font.getlength(words)) + 2 * _pad(font), round(1.35 * font.size)


def _pad(font: FreeTypeFont) -> int:
    return max(2, round(0.25 * font.size))


@lru_cache(maxsize=32)
def _font(size: int) -> FreeTypeFont:
    font = ImageFont.load_default(size)
    # Pillow built without FreeType has one font of one size only.
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font
