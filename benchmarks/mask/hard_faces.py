"""Faces that detectors of masks are known to mistake, composed from annotated pictures.

Hands before mouths, beards and scarves are drawn over bare faces, which stay without a mask; masks
are dyed black or printed with a pattern; faces are shown so large that they fill the picture; and
narrow faces, mostly seen from the side, are taken as they are, since no frontal face can be turned.
What is drawn lies on the face as far as its box tells: the mouth at three quarters of its height.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from unmask.data.detection.boxes import clip
from unmask.data.detection.dataset import AnnotatedImages
from unmask.mask.evaluate.matching import face_sides
from unmask.mask.training.crops import square
from unmask.runtime import seeded

Pixels = NDArray[np.uint8]
Layer = tuple[NDArray[np.float32], NDArray[np.float32]]
Draw = Callable[[Pixels, NDArray[np.float32], np.random.Generator], Pixels]

MASKED, BARE = "with_mask", "without_mask"
# Smaller faces show nothing of what is drawn on them.
LEAST_SIDE, LEAST_LARGE, LEAST_PROFILE = 32.0, 48.0, 20.0
# A frontal face is about four fifths as wide as high in these annotations.
NARROW = 0.65
LARGE_SIDE, LARGE_CONTEXT = 448, 0.04
LARGE, PROFILE = "fills the picture", "narrow: mostly profiles"
_STREAM = 21
# Drawn this many times larger, then scaled down, edges are smooth.
_FINE = 3
_SCARVES = ((120, 30, 35), (35, 45, 85), (95, 95, 100), (40, 75, 55), (150, 120, 80))
_PRINTS = (
    ((200, 40, 60), (245, 240, 235)),
    ((30, 50, 120), (240, 200, 60)),
    ((20, 110, 90), (230, 230, 220)),
    ((60, 60, 60), (235, 150, 40)),
)


@dataclass(frozen=True, eq=False)
class HardPicture:
    """A composed picture, the faces on it, and which of these it is about.

    pixels: uint8[h, w, 3]; boxes: float32[k, 4]; labels: int64[k]; about: bool[k]; picture: the
    index of the one it was made of.
    """

    pixels: Pixels
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    about: NDArray[np.bool_]
    picture: int


def compose(annotated: AnnotatedImages, seed: int = 0) -> dict[str, list[HardPicture]]:
    """Return the hard pictures of every kind; the same seed gives the same bits."""
    composed: dict[str, list[HardPicture]] = {}
    for place, (kind, (label, draw)) in enumerate(DRAWN.items()):
        random = seeded(seed, _STREAM, place)
        composed[kind] = _drawn(annotated, label, draw, random)
    composed[PROFILE] = _narrow(annotated)
    composed[LARGE] = _large(annotated)
    return composed


def _drawn(
    annotated: AnnotatedImages, label: str, draw: Draw, random: np.random.Generator
) -> list[HardPicture]:
    wanted = annotated.class_names.index(label)
    made = []
    for i, (boxes, labels) in enumerate(zip(annotated.boxes, annotated.labels, strict=True)):
        about = (labels == wanted) & (face_sides(boxes) >= LEAST_SIDE)
        if not about.any():
            continue
        pixels = annotated.pixels(i)
        for box in boxes[about]:
            pixels = draw(pixels, box, random)
        made.append(HardPicture(pixels, boxes, labels, about, i))
    return made


def _narrow(annotated: AnnotatedImages) -> list[HardPicture]:
    made = []
    for i, (boxes, labels) in enumerate(zip(annotated.boxes, annotated.labels, strict=True)):
        wide, high = (boxes[:, 2:] - boxes[:, :2]).T
        # One that the picture's edge cuts may be narrow for that alone.
        whole = (boxes[:, 0] > 1) & (boxes[:, 2] < annotated.sizes[i, 0] - 1)
        about = whole & (wide < NARROW * high) & (face_sides(boxes) >= LEAST_PROFILE)
        if about.any():
            made.append(HardPicture(annotated.pixels(i), boxes, labels, about, i))
    return made


def _large(annotated: AnnotatedImages) -> list[HardPicture]:
    made = []
    for i, (boxes, labels) in enumerate(zip(annotated.boxes, annotated.labels, strict=True)):
        for box, label in zip(boxes, labels, strict=True):
            if face_sides(box[None])[0] < LEAST_LARGE:
                continue
            cut = square(annotated.pixels(i), box, LARGE_SIDE, LARGE_CONTEXT).transpose(1, 2, 0)
            sides = box[2:] - box[:2]
            # The face as it lies in the square about its middle.
            half = LARGE_SIDE * sides / (sides.max() * (1 + 2 * LARGE_CONTEXT)) / 2
            middle = LARGE_SIDE / 2
            own = np.concatenate([middle - half, middle + half])[None].astype(np.float32)
            made.append(
                HardPicture(
                    np.ascontiguousarray(cut),
                    clip(own, LARGE_SIDE, LARGE_SIDE),
                    np.array([label], np.int64),
                    np.ones(1, np.bool_),
                    i,
                )
            )
    return made


class _Canvas:
    """A window about a face to draw on in the face's own measures, 0 to 1 across and down."""

    def __init__(self, pixels: Pixels, box: NDArray[np.float32]) -> None:
        self.pixels, self.box = pixels, box
        self.width, self.height = (float(v) for v in box[2:] - box[:2])
        high, wide = pixels.shape[:2]
        reach = np.array([self.width, self.height])
        self.left, self.top = (int(v) for v in np.floor(np.maximum(box[:2] - reach, 0)))
        self.right, self.bottom = (
            int(v) for v in np.ceil(np.minimum(box[2:] + reach, [wide, high]))
        )
        self.size = (self.right - self.left, self.bottom - self.top)

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return where a point of the face lies on what is drawn."""
        return (
            (float(self.box[0]) + x * self.width - self.left) * _FINE,
            (float(self.box[1]) + y * self.height - self.top) * _FINE,
        )

    def grid(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return x and y, [h, w], of the window's pixels in the face's measures."""
        x = (np.arange(self.size[0]) + 0.5 + self.left - self.box[0]) / self.width
        y = (np.arange(self.size[1]) + 0.5 + self.top - self.box[1]) / self.height
        across, down = np.meshgrid(x.astype(np.float32), y.astype(np.float32))
        return across, down

    def shape(
        self, draw: Callable[[ImageDraw.ImageDraw], None], soft: float
    ) -> NDArray[np.float32]:
        """Return [h, w], 0 to 1, of what draw paints; soft: its edge, as a part of the width."""
        mask = Image.new("L", (self.size[0] * _FINE, self.size[1] * _FINE))
        draw(ImageDraw.Draw(mask))
        small = mask.resize(self.size, Image.Resampling.BOX)
        blurred = small.filter(ImageFilter.GaussianBlur(soft * self.width))
        return np.asarray(blurred, np.float32) / 255

    def part(self) -> NDArray[np.float32]:
        """Return the window's pixels, float32[h, w, 3]."""
        return self.pixels[self.top : self.bottom, self.left : self.right].astype(np.float32)

    def cover(self, colour: NDArray[np.float32], opacity: NDArray[np.float32]) -> Pixels:
        """Return the picture with colour [h, w, 3] laid over the window as opacity [h, w] says."""
        alpha = np.clip(opacity, 0, 1)[..., None]
        mixed = alpha * np.clip(colour, 0, 255) + (1 - alpha) * self.part()
        out = self.pixels.copy()
        out[self.top : self.bottom, self.left : self.right] = (mixed + 0.5).astype(np.uint8)
        return out

    def colour_of(
        self, left: float, top: float, right: float, bottom: float
    ) -> NDArray[np.float32]:
        """Return the median colour, [3], of a part of the face."""
        x, y = self.grid()
        inside = (x > left) & (x < right) & (y > top) & (y < bottom)
        found: NDArray[np.float32] = np.median(self.part()[inside], axis=0).astype(np.float32)
        return found

    def noise(self, random: np.random.Generator, across: float, down: float) -> NDArray[np.float32]:
        """Return [h, w] of mean 0 and deviation 1; across, down: its grain, in parts of a face."""
        coarse = Image.fromarray(random.normal(0, 1, self.size[::-1]).astype(np.float32))
        radius = (max(across * self.width, 0.3), max(down * self.height, 0.3))
        rough = np.asarray(_blurred(coarse, radius))
        return np.asarray((rough - rough.mean()) / max(float(rough.std()), 1e-6), np.float32)


def _blurred(picture: Image.Image, radius: tuple[float, float]) -> NDArray[np.float32]:
    rows = np.asarray(picture, np.float32)
    for axis, r in zip((1, 0), radius, strict=True):
        taps = np.exp(-0.5 * (np.arange(-int(3 * r) - 1, int(3 * r) + 2) / r) ** 2)
        taps /= taps.sum()
        rows = np.apply_along_axis(lambda line, t=taps: np.convolve(line, t, "same"), axis, rows)
    return rows.astype(np.float32)


def _hand(pixels: Pixels, box: NDArray[np.float32], random: np.random.Generator) -> Pixels:
    """Draw a hand over the mouth, its fingers across, and the forearm below it."""
    canvas = _Canvas(pixels, box)
    skin = canvas.colour_of(0.3, 0.25, 0.7, 0.5) * random.uniform(0.85, 1.1)
    side = random.choice([-1, 1])
    lift = random.uniform(-0.04, 0.04)

    def x(place: float) -> float:
        return 0.5 + side * place

    # Little finger to forefinger: how far each reaches across, and at which height.
    fingers = [(0.22, 0.90), (0.32, 0.80), (0.36, 0.70), (0.28, 0.605)]
    thick = 0.105 * canvas.height * _FINE

    def line(d: ImageDraw.ImageDraw, ends: list[tuple[float, float]], width: float) -> None:
        points = [canvas.at(x(px), py + lift) for px, py in ends]
        d.line(points, fill=255, width=max(1, round(width)))
        for px, py in points:
            d.ellipse((px - width / 2, py - width / 2, px + width / 2, py + width / 2), fill=255)

    def whole(d: ImageDraw.ImageDraw) -> None:
        for reach, y in fingers:
            line(d, [(-0.42, y), (reach, y - 0.015)], thick)
        line(d, [(-0.44, 0.70), (-0.40, 0.88)], 3.1 * thick)
        line(d, [(-0.46, 0.9), (-0.75, 1.9)], 3.0 * thick)

    def gaps(d: ImageDraw.ImageDraw) -> None:
        for (reach, low), (_, high) in pairwise(fingers):
            y = (low + high) / 2
            line(d, [(-0.25, y), (reach - 0.05, y - 0.01)], 0.14 * thick)

    shape = canvas.shape(whole, 0.012)
    dark = canvas.shape(gaps, 0.012)
    _, down = canvas.grid()
    # Fingers are round: lighter along their middle, darker towards the gaps and the wrist.
    light = 1.04 - 0.35 * dark - 0.12 * np.clip(down - 0.6, 0, 1)
    light = light + 0.02 * canvas.noise(random, 0.03, 0.03)
    shadow = canvas.shape(whole, 0.05)
    below = _Canvas(canvas.cover(0.75 * canvas.part(), 0.6 * shadow), box)
    return below.cover(skin * light[..., None].astype(np.float32), shape)


def _beard(pixels: Pixels, box: NDArray[np.float32], random: np.random.Generator) -> Pixels:
    """Draw a full beard and a moustache, with the mouth left free."""
    canvas = _Canvas(pixels, box)
    x, y = canvas.grid()
    jaw = np.clip((1 - ((x - 0.5) / 0.46) ** 2 - ((y - 0.68) / 0.36) ** 2) / 0.3, 0, 1)
    # Cheeks stay free: the edge rises from the moustache towards the ears.
    edge = 0.60 - 0.3 * np.abs(x - 0.5) ** 1.5 + 0.55 * np.exp(-(((x - 0.5) / 0.3) ** 2)) * 0.12
    lower = np.clip((y - edge) / 0.06, 0, 1)
    mouth = np.clip(1.4 - ((x - 0.5) / 0.15) ** 2 - ((y - 0.77) / 0.035) ** 2, 0, 1)
    grain = canvas.noise(random, 0.008, 0.03)
    tone = np.array(random.choice([(28, 22, 20), (45, 32, 24), (70, 62, 58)]), np.float32)
    colour = tone * (1 + 0.22 * grain[..., None])
    cover = jaw * lower * (1 - mouth) * np.clip(0.88 + 0.12 * grain, 0, 0.97)
    return canvas.cover(colour.astype(np.float32), cover.astype(np.float32))


def _scarf(pixels: Pixels, box: NDArray[np.float32], random: np.random.Generator) -> Pixels:
    """Draw a knitted scarf from the nose to below the chin."""
    canvas = _Canvas(pixels, box)
    x, y = canvas.grid()
    tilt = random.uniform(-0.08, 0.08)
    top = 0.60 - 0.12 * np.minimum(2 * np.abs(x - 0.5), 1.2) ** 2 + tilt * (x - 0.5)
    # It widens from the cheeks to the shoulders, and hangs in a bow.
    reach = 0.52 + 0.25 * np.clip(y - 0.8, 0, 1)
    sides = np.clip((reach - np.abs(x - 0.5)) / 0.04, 0, 1)
    bottom = 1.32 - 0.35 * (x - 0.5) ** 2
    inside = np.clip((y - top) / 0.03, 0, 1) * np.clip((bottom - y) / 0.05, 0, 1) * sides
    colour = np.array(random.choice(_SCARVES), np.float32)
    folds = 0.13 * np.sin(2 * np.pi * ((y - 0.25 * (x - 0.5) ** 2) / 0.19 + random.uniform(0, 1)))
    knit = 0.08 * np.sin(2 * np.pi * x / 0.045) * np.sin(2 * np.pi * y / 0.06)
    round_off = -0.35 * (x - 0.5) ** 2
    light = 1 + folds + knit + round_off + 0.05 * canvas.noise(random, 0.01, 0.01)
    return canvas.cover((colour * light[..., None]).astype(np.float32), inside.astype(np.float32))


def _niqab(pixels: Pixels, box: NDArray[np.float32], random: np.random.Generator) -> Pixels:
    """Draw a dark niqab, with the eyes free."""
    canvas = _Canvas(pixels, box)
    lift = random.uniform(-0.03, 0.03)

    def whole(d: ImageDraw.ImageDraw) -> None:
        d.ellipse((*canvas.at(-0.15, -0.25), *canvas.at(1.15, 1.05)), fill=255)
        d.polygon(
            [canvas.at(*p) for p in ((-0.1, 0.5), (1.1, 0.5), (1.45, 1.9), (-0.45, 1.9))], 255
        )
        d.rounded_rectangle(
            (*canvas.at(0.08, 0.29 + lift), *canvas.at(0.92, 0.5 + lift)),
            radius=0.1 * canvas.height * _FINE,
            fill=0,
        )

    cover = canvas.shape(whole, 0.008)
    tone = np.array(random.choice([(16, 16, 19), (40, 36, 48), (70, 60, 55)]), np.float32)
    x, y = canvas.grid()
    folds = 1 + 0.25 * np.sin(9 * x + 3 * y + random.uniform(0, 6)) * np.clip(y - 0.5, 0, 1)
    light = folds + 0.04 * canvas.noise(random, 0.02, 0.02)
    return canvas.cover((tone * light[..., None]).astype(np.float32), cover)


def _dyed(canvas: _Canvas, cloth: NDArray[np.float32]) -> Pixels:
    """Return the picture with the mask of a face in cloth, [h, w, 3], its own folds kept.

    What looks more like the mask's middle than like the forehead, near it, is taken for the mask.
    """
    x, y = canvas.grid()
    own = canvas.colour_of(0.35, 0.62, 0.65, 0.85)
    skin = canvas.colour_of(0.35, 0.15, 0.65, 0.35)
    part = canvas.part()
    from_mask, from_skin = (np.linalg.norm(part - c, axis=-1) for c in (own, skin))
    like = 1 / (1 + np.exp(np.clip((from_mask - from_skin) / 12.0, -50, 50)))
    reach = np.clip((1.1 - ((x - 0.5) / 0.54) ** 2 - ((y - 0.72) / 0.36) ** 2) / 0.15, 0, 1)
    sure = np.clip((1 - ((x - 0.5) / 0.36) ** 2 - ((y - 0.74) / 0.22) ** 2) / 0.3, 0, 1)
    light = part.mean(-1, keepdims=True) / max(float(own.mean()), 1.0)
    opacity = np.maximum(reach * like, sure)
    return canvas.cover(cloth * np.clip(light, 0.45, 1.5), opacity.astype(np.float32))


def _dark(pixels: Pixels, box: NDArray[np.float32], random: np.random.Generator) -> Pixels:
    """Dye a mask black or nearly so."""
    canvas = _Canvas(pixels, box)
    tone = np.array(random.choice([(24, 24, 27), (38, 36, 36), (22, 28, 48)]), np.float32)
    return _dyed(canvas, np.broadcast_to(tone, (*canvas.size[::-1], 3)))


def _patterned(pixels: Pixels, box: NDArray[np.float32], random: np.random.Generator) -> Pixels:
    """Print dots, stripes or checks on a mask."""
    canvas = _Canvas(pixels, box)
    x, y = canvas.grid()
    ground, print_ = (np.array(c, np.float32) for c in _PRINTS[random.integers(len(_PRINTS))])
    step = random.uniform(0.13, 0.2)
    u, v = ((x / step) % 1, (y * canvas.height / canvas.width / step) % 1)
    printed = (
        np.hypot(u - 0.5, v - 0.5) < 0.3,
        (u + v) % 1 < 0.5,
        (u < 0.5) ^ (v < 0.5),
    )[random.integers(3)]
    return _dyed(canvas, np.where(printed[..., None], print_, ground))


# Of each kind: which faces it is drawn on, whose class stays as it is.
DRAWN: dict[str, tuple[str, Draw]] = {
    "hand over the mouth": (BARE, _hand),
    "beard": (BARE, _beard),
    "scarf": (BARE, _scarf),
    "niqab": (BARE, _niqab),
    "black mask": (MASKED, _dark),
    "patterned mask": (MASKED, _patterned),
}
