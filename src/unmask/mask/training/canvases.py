"""Canvases to train the detector on: images scaled, joined, rotated, drawn on and relit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unmask.data.detection.boxes import area, clip
from unmask.data.detection.dataset import AnnotatedImages
from unmask.mask.runtime.views import GREY
from unmask.mask.training.light import LightSettings, relit
from unmask.mask.training.loss import IGNORED, Faces
from unmask.mask.training.occluders import occluded
from unmask.mask.training.scenes import scene

Picture = NDArray[np.uint8]

# Cut faces count while this fraction of them is visible; otherwise they are ignored.
_SEEN = 0.45
# In pixels of the canvas: smaller faces can't be distinguished from noise.
_LEAST_SIDE = 5.0
# How far, in the logarithm, one side may be stretched relative to the other.
_STRETCH = 0.1
# Around a pasted face, as a fraction of its sides: enough for hair and ears, and to fade out in.
_MARGIN = 0.35
_TRIES = 8
# Standard deviation in pixels of the canvas.
_MOST_BLUR = 1.5


@dataclass(frozen=True)
class CanvasSettings:
    """How canvases are made; fractions are of the canvases, 0 to 1.

    Args:
        size: their sides in pixels, a multiple of 32.
        scales: the least and the most pixels of the canvas for one of an image, drawn evenly in
            the logarithm.
        mosaic: the fraction that shows four images.
        paste: the mean number of faces pasted in.
        pasted_sides: the least and the most of their longer side, in pixels.
        rare_from: classes that make up a smaller fraction of all faces are shown more often, by
            the root of what is missing (repeat-factor sampling; Gupta et al., 2019,
            arXiv:1908.03195).
        turned: the fraction that is turned by up to turn degrees either way, and far the fraction
            of these that is turned by up to three times as much.
        blurred: the fraction that is blurred.
        sized: the fraction of the images shown at such a scale that one face has a side drawn
            evenly in the logarithm from face_sides, in pixels of the canvas.
        occluded: the fraction of the faces on which something is drawn (see occluders).
        scenes: the fraction that shows no face at all (see scenes.scene).
        distractors: the mean number of patches without a face that are pasted in.
        light: how many are under other light, by default none (see light.relit).
    """

    size: int = 416
    scales: tuple[float, float] = (0.6, 2.6)
    mosaic: float = 0.5
    paste: float = 1.5
    pasted_sides: tuple[float, float] = (12.0, 130.0)
    rare_from: float = 0.2
    turned: float = 0.5
    turn: float = 15.0
    far: float = 0.0
    blurred: float = 0.15
    sized: float = 0.0
    face_sides: tuple[float, float] = (8.0, 260.0)
    occluded: float = 0.0
    scenes: float = 0.0
    distractors: float = 0.0
    light: LightSettings | None = None


# The settings of the detector that ships: more variety than a few hours on two cores can exploit.
WILD = CanvasSettings(
    turned=0.6,
    far=0.4,
    blurred=0.0,
    sized=0.3,
    occluded=0.3,
    scenes=0.07,
    distractors=0.6,
    light=LightSettings(),
)


@dataclass(frozen=True)
class Canvas:
    """A canvas with the faces on it.

    Args:
        pixels: uint8[size, size, 3] in RGB.
        faces: boxes xyxy in pixels and labels, which may be IGNORED.
    """

    pixels: Picture
    faces: Faces


class Canvases:
    """Makes canvases from annotated images, which are decoded once and kept in memory.

    Args:
        annotated: the images.
        settings: how canvases are made.
        bank: uint8[h, w, 3] images that hold no face, for scenes and distractors.
    """

    def __init__(
        self,
        annotated: AnnotatedImages,
        settings: CanvasSettings,
        bank: Sequence[Picture] = (),
    ) -> None:
        self.annotated, self.settings, self.bank = annotated, settings, bank
        self.pixels = [annotated.pixels(i) for i in range(len(annotated))]
        self.repeats = repeat_factors(annotated, settings.rare_from)
        pictures = np.repeat(np.arange(len(annotated)), [len(b) for b in annotated.boxes])
        numbers = [np.arange(len(b)) for b in annotated.boxes]
        labels = np.concatenate([np.zeros(0, np.int64), *annotated.labels])
        sides = np.sqrt(area(np.concatenate([np.zeros((0, 4), np.float32), *annotated.boxes])))
        clear = sides >= settings.pasted_sides[0]
        self._bank = np.stack([pictures, np.concatenate([np.zeros(0, np.int64), *numbers])], 1)
        # Rare classes are pasted more often, but not so often that their few faces are memorised.
        self._bank_weights = clear / np.sqrt(np.maximum(annotated.counts, 1))[labels] ** 2
        if clear.any():
            self._bank_weights = self._bank_weights / self._bank_weights.sum()

    def order(self, random: np.random.Generator) -> NDArray[np.int64]:
        """Return the image of each canvas of an epoch, int64[m]; rare classes come more often."""
        whole = np.floor(self.repeats).astype(np.int64)
        times = whole + (random.random(len(whole)) < self.repeats - whole)
        return random.permutation(np.repeat(np.arange(len(whole)), times))

    def make(self, picture: int, random: np.random.Generator) -> Canvas:
        """Return a canvas about one image.

        Args:
            picture: the index of the image.
            random: the source of all random numbers; the same state gives the same bits.
        """
        size, settings = self.settings.size, self.settings
        if random.random() < settings.scenes:
            pixels = scene((size, size), self.bank, random)
            none = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
            return Canvas(self._relit(pixels, random), none)
        pixels = np.full((size, size, 3), GREY, np.uint8)
        if random.random() < self.settings.mosaic:
            x, y = (int(v) for v in random.uniform(0.3, 0.7, 2) * size)
            others = random.choice(len(self.pixels), 3, p=self.repeats / self.repeats.sum())
            parts = [(0, 0, x, y), (x, 0, size, y), (0, y, x, size), (x, y, size, size)]
            shown = random.permutation([picture, *others.tolist()])
        else:
            parts, shown = [(0, 0, size, size)], np.array([picture])
        found = [
            self._place(pixels, part, int(i), random) for part, i in zip(parts, shown, strict=True)
        ]
        boxes = np.concatenate([b for b, _ in found])
        labels = np.concatenate([k for _, k in found])
        if self.settings.paste and self._bank_weights.any():
            boxes, labels = self._paste(pixels, boxes, labels, random)
        for _ in range(int(random.poisson(settings.distractors))):
            self._distract(pixels, boxes, random)
        if random.random() < 0.5:
            pixels = pixels[:, ::-1]
            boxes = boxes.copy()
            boxes[:, [0, 2]] = size - boxes[:, [2, 0]]
        if random.random() < self.settings.turned:
            most = settings.turn * (3.0 if random.random() < settings.far else 1.0)
            angle = random.uniform(-most, most)
            pixels, boxes, labels = _turned(pixels, boxes, labels, angle)
        if random.random() < self.settings.blurred:
            pixels = _blurred(pixels, random.uniform(0.3, _MOST_BLUR))
        return Canvas(self._relit(pixels, random), (boxes, labels))

    def _relit(self, pixels: Picture, random: np.random.Generator) -> Picture:
        light = self.settings.light
        return np.ascontiguousarray(pixels) if light is None else relit(pixels, light, random)

    def _distract(
        self, canvas: Picture, boxes: NDArray[np.float32], random: np.random.Generator
    ) -> None:
        """Paste a patch without a face where there is no face."""
        side = int(np.exp(random.uniform(np.log(16), np.log(self.settings.size / 3))))
        for _ in range(_TRIES):
            x, y = (int(v) for v in random.integers(self.settings.size - side, size=2))
            if not _meets(boxes, (x, y, x + side, y + side)):
                canvas[y : y + side, x : x + side] = scene((side, side), self.bank, random)
                return

    def _place(
        self,
        canvas: Picture,
        part: tuple[int, int, int, int],
        index: int,
        random: np.random.Generator,
    ) -> Faces:
        """Place an image in a part of the canvas, most likely around one of its faces."""
        left, top, right, bottom = part
        picture, boxes = self.pixels[index], self.annotated.boxes[index]
        labels = self.annotated.labels[index]
        if self.settings.occluded:
            picture, labels = self._drawn_on(picture, boxes, labels, random)
        ignored = self.annotated.ignored[index]
        least, most = np.log(self.settings.scales)
        scale = np.exp(random.uniform(least, most))
        scales = scale * np.exp(random.uniform(-_STRETCH, _STRETCH, 2))
        middle = None
        if len(boxes) and random.random() < 0.7:
            box = boxes[random.integers(len(boxes))]
            middle = (box[:2] + box[2:]) / 2
            side = float(np.sqrt(np.prod(box[2:] - box[:2])))
            if random.random() < self.settings.sized and side >= _LEAST_SIDE:
                low, high = np.log(self.settings.face_sides)
                # Enlarged further, a face would show nothing but its pixels.
                wanted = min(np.exp(random.uniform(low, high)) / side, 5.0)
                scales = np.maximum(wanted, 0.15) * scales / scale
        spans = [
            _span(length, room, s, None if middle is None else float(middle[axis]), random)
            for axis, (length, room, s) in enumerate(
                zip(picture.shape[1::-1], (right - left, bottom - top), scales, strict=True)
            )
        ]
        (from_x, to_x, at_x, wide), (from_y, to_y, at_y, high) = spans
        seen = _scaled(picture, (from_x, from_y, to_x, to_y), (wide, high), random)
        x, y = left + at_x, top + at_y
        canvas[y : y + high, x : x + wide] = seen
        factor = np.array([wide / (to_x - from_x), high / (to_y - from_y)] * 2, np.float32)
        boxes = np.concatenate([boxes, ignored])
        labels = np.concatenate([labels, np.full(len(ignored), IGNORED)])
        moved = (boxes - np.array([from_x, from_y] * 2, np.float32)) * factor
        cut = clip(moved, wide, high)
        inside = area(cut) > 0
        labels = np.where(_clear(cut, moved), labels, IGNORED)
        return cut[inside] + np.array([x, y] * 2, np.float32), labels[inside]

    def _drawn_on(
        self,
        picture: Picture,
        boxes: NDArray[np.float32],
        labels: NDArray[np.int64],
        random: np.random.Generator,
    ) -> tuple[Picture, NDArray[np.int64]]:
        """Draw on some of the faces of an image what they may wear or hold."""
        names, labels = self.annotated.class_names, labels.copy()
        for i in np.flatnonzero(random.random(len(boxes)) < self.settings.occluded):
            picture, name = occluded(picture, boxes[i], names[labels[i]], random)
            if name in names:
                labels[i] = names.index(name)
        return picture, labels

    def _paste(
        self,
        canvas: Picture,
        boxes: NDArray[np.float32],
        labels: NDArray[np.int64],
        random: np.random.Generator,
    ) -> Faces:
        """Paste faces of mostly rare classes where there are none, fading out around them."""
        size, (least, most) = self.settings.size, np.log(self.settings.pasted_sides)
        for _ in range(random.poisson(self.settings.paste)):
            index, number = self._bank[random.choice(len(self._bank), p=self._bank_weights)]
            box = self.annotated.boxes[index][number]
            sides = box[2:] - box[:2]
            # Enlarged further, a small face would show nothing but its pixels.
            longest = min(np.exp(random.uniform(least, most)), 2.2 * sides.max())
            scale = max(longest, self.settings.pasted_sides[0]) / sides.max()
            height, width = self.pixels[index].shape[:2]
            margin = _MARGIN * np.array([*-sides, *sides], np.float32)
            window = clip((box + margin)[None], width, height)[0]
            wide, high = (max(2, round(float(v))) for v in (window[2:] - window[:2]) * scale)
            if max(wide, high) >= size:
                continue
            for _ in range(_TRIES):
                x, y = int(random.integers(size - wide)), int(random.integers(size - high))
                if not _meets(boxes, (x, y, x + wide, y + high)):
                    break
            else:
                continue
            own = (box - np.tile(window[:2], 2)) * np.tile(
                np.array([wide, high], np.float32) / (window[2:] - window[:2]), 2
            )
            seen = _scaled(self.pixels[index], tuple(window.tolist()), (wide, high), random)
            if random.random() < 0.5:
                seen, own = seen[:, ::-1], np.array([wide - own[2], own[1], wide - own[0], own[3]])
            part = canvas[y : y + high, x : x + wide]
            fade = _fade(own, wide, high)[..., None]
            part[:] = (fade * seen + (1 - fade) * part + 0.5).astype(np.uint8)
            boxes = np.concatenate([boxes, (own + np.array([x, y] * 2))[None].astype(np.float32)])
            labels = np.append(labels, self.annotated.labels[index][number])
        return boxes, labels


def repeat_factors(annotated: AnnotatedImages, rare_from: float) -> NDArray[np.float64]:
    """Return float64[n], how often an epoch shows each image, 1 or more (Gupta et al., 2019).

    Args:
        annotated: the n images.
        rare_from: the fraction of all faces under which a class is shown more often.
    """
    counts = annotated.counts
    part = np.maximum(counts, 1) / max(counts.sum(), 1)
    wanted = np.maximum(1.0, np.sqrt(rare_from / part))
    return np.array([max((wanted[k] for k in held), default=1.0) for held in annotated.labels])


def _span(
    length: int, room: int, scale: float, middle: float | None, random: np.random.Generator
) -> tuple[float, float, int, int]:
    """Return, along one axis, start and end of what is seen of an image, its place and length."""
    if length * scale <= room:
        long = max(1, round(length * scale))
        return 0.0, float(length), int(random.integers(room - long + 1)), long
    shown = room / scale
    if middle is None:
        start = random.uniform(0, length - shown)
    else:
        start = min(max(middle - shown * random.uniform(0.1, 0.9), 0.0), length - shown)
    return start, start + shown, 0, room


def _scaled(
    picture: Picture,
    window: Sequence[float],
    size: tuple[int, int],
    random: np.random.Generator,
) -> Picture:
    from PIL import Image

    left, top, right, bottom = window
    # Two pixels more than the window needs, for the filter to reach across its edge.
    x, y = max(int(left) - 2, 0), max(int(top) - 2, 0)
    part = np.ascontiguousarray(picture[y : int(bottom) + 3, x : int(right) + 3])
    filters = Image.Resampling.BILINEAR, Image.Resampling.BICUBIC
    return np.asarray(
        Image.fromarray(part).resize(
            size,
            filters[int(random.integers(2))],
            box=(left - x, top - y, min(right - x, part.shape[1]), min(bottom - y, part.shape[0])),
        )
    )


def _turned(
    pixels: Picture, boxes: NDArray[np.float32], labels: NDArray[np.int64], degrees: float
) -> tuple[Picture, NDArray[np.float32], NDArray[np.int64]]:
    """Return a rotated canvas, and boxes round the ellipses that filled the old boxes."""
    from PIL import Image

    size = pixels.shape[0]
    turned = Image.fromarray(np.ascontiguousarray(pixels)).rotate(
        degrees, Image.Resampling.BILINEAR, fillcolor=(GREY,) * 3
    )
    # Rows grow downwards: what looks counterclockwise is clockwise in these coordinates.
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    x, y = ((boxes[:, :2] + boxes[:, 2:]) / 2 - size / 2).T
    middle = np.stack([x * cos + y * sin, y * cos - x * sin], 1) + size / 2
    wide, high = ((boxes[:, 2:] - boxes[:, :2]) / 2).T
    half = np.stack([np.hypot(wide * cos, high * sin), np.hypot(wide * sin, high * cos)], 1)
    moved = np.concatenate([middle - half, middle + half], 1).astype(np.float32)
    cut = clip(moved, size, size)
    inside = area(cut) > 0
    labels = np.where(_clear(cut, moved), labels, IGNORED)
    return np.asarray(turned), cut[inside], labels[inside]


def _blurred(pixels: Picture, radius: float) -> Picture:
    from PIL import Image, ImageFilter

    return np.asarray(
        Image.fromarray(np.ascontiguousarray(pixels)).filter(ImageFilter.GaussianBlur(radius))
    )


def _clear(cut: NDArray[np.float32], whole: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return which boxes are still large enough after they were cut."""
    least = (cut[:, 2:] - cut[:, :2]).min(1, initial=np.inf) >= _LEAST_SIDE
    return np.asarray((area(cut) >= _SEEN * area(whole)) & least)


def _meets(boxes: NDArray[np.float32], window: tuple[int, int, int, int]) -> bool:
    left, top, right, bottom = window
    across = (boxes[:, 0] < right) & (boxes[:, 2] > left)
    return bool((across & (boxes[:, 1] < bottom) & (boxes[:, 3] > top)).any())


def _fade(box: NDArray[np.floating[Any]], wide: int, high: int) -> NDArray[np.float32]:
    """Return float32[high, wide]: 1 on the box, falling to 0 at the edges."""

    def along(low: float, up: float, count: int) -> NDArray[np.float32]:
        at = np.arange(count) + 0.5
        rise = at / max(low, 1.0)
        fall = (count - at) / max(count - up, 1.0)
        return np.asarray(np.clip(np.minimum(rise, fall), 0, 1), np.float32)

    down, across = along(box[1], box[3], high), along(box[0], box[2], wide)
    return np.asarray(down[:, None] * across, np.float32)
