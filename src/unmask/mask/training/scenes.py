"""Images without a face: drawn textures, and patches of images that are known to hold none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Pixels = NDArray[np.uint8]


def texture(size: tuple[int, int], random: np.random.Generator) -> Pixels:
    """Return a drawn texture, uint8[h, w, 3]: stars, blobs, stripes, letters or plain shades.

    Blobs often have the colours of skin or cloth, since round things of such colours are what
    detectors mistake for faces.

    Args:
        size: height and width in pixels.
        random: the source of all random numbers.
    """
    kind = _KINDS[int(random.integers(len(_KINDS)))]
    return np.ascontiguousarray(kind(size, random))


def patch(image: Pixels, size: tuple[int, int], random: np.random.Generator) -> Pixels:
    """Return a random part of an image, scaled and sometimes mirrored, uint8[h, w, 3].

    Args:
        image: uint8[h, w, 3] in RGB.
        size: height and width of the patch in pixels.
        random: the source of all random numbers.
    """
    high, wide = image.shape[:2]
    if min(image.shape[:2]) <= 48:
        part = image
    else:
        most = min(high / size[0], wide / size[1])
        scale = min(most, _log(0.25, max(most, 0.26), random))
        rows, columns = max(8, int(size[0] * scale)), max(8, int(size[1] * scale))
        y, x = int(random.integers(high - rows + 1)), int(random.integers(wide - columns + 1))
        part = image[y : y + rows, x : x + columns]
    made = Image.fromarray(np.ascontiguousarray(part)).resize(size[::-1], Image.Resampling.BICUBIC)
    if random.random() < 0.5:
        made = made.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(made)


def scene(size: tuple[int, int], bank: Sequence[Pixels], random: np.random.Generator) -> Pixels:
    """Return an image without a face: a texture or a part of an image, with patches on it.

    Args:
        size: height and width in pixels.
        bank: images that hold no face; without any, all is texture.
        random: the source of all random numbers.

    Returns:
        uint8[h, w, 3].
    """
    if bank and random.random() < 0.6:
        out = np.array(patch(bank[int(random.integers(len(bank)))], size, random))
    else:
        out = np.array(texture(size, random))
    for _ in range(int(random.poisson(3)) if min(size) > 32 else 0):
        side = int(_log(8, max(min(size) * 0.7, 9), random))
        shape = (side, max(8, min(size[1], round(side * np.exp(random.uniform(-0.4, 0.4))))))
        if bank and random.random() < 0.8:
            piece = patch(bank[int(random.integers(len(bank)))], shape, random)
        else:
            piece = texture(shape, random)
        y, x = (
            int(random.integers(size[0] - shape[0] + 1)),
            int(random.integers(size[1] - shape[1] + 1)),
        )
        out[y : y + shape[0], x : x + shape[1]] = piece
    return out


def _log(low: float, high: float, random: np.random.Generator) -> float:
    """Return a number drawn evenly in the logarithm; low where high is less."""
    return float(np.exp(random.uniform(np.log(low), np.log(max(low, high)))))


def _colour(random: np.random.Generator) -> NDArray[np.float64]:
    if random.random() < 0.5:
        # Colours of skin, from dark to light.
        return np.array([215, 165, 140]) * random.uniform(0.3, 1.15) + random.normal(0, 8, 3)
    return random.uniform(0, 255, 3)


def _shades(size: tuple[int, int], random: np.random.Generator) -> Pixels:
    """A plain colour, or clouds of two at several scales."""
    high, wide = size
    total = np.zeros((high, wide), np.float32)
    for cells in (2, 4, 9, 20, 60)[: int(random.integers(1, 6))]:
        rough = random.normal(0, 1, (cells, cells)).astype(np.float32)
        total += np.asarray(
            Image.fromarray(rough).resize((wide, high), Image.Resampling.BICUBIC)
        ) * random.uniform(0.1, 1)
    part = (total - total.min()) / max(float(np.ptp(total)), 1e-6)
    one, two = _colour(random), _colour(random)
    return np.asarray(np.clip(one + (two - one) * part[..., None], 0, 255), np.uint8)


def _stars(size: tuple[int, int], random: np.random.Generator) -> Pixels:
    """Points, discs and glows on black."""
    high, wide = size
    sky = random.uniform(0, 25) * np.ones((high, wide, 3), np.float32)
    y, x = np.mgrid[0:high, 0:wide].astype(np.float32)
    for _ in range(int(random.integers(5, 40))):
        spread = _log(0.7, max(high, wide) / 12, random)
        oval, turn = random.uniform(1, 3), random.uniform(0, np.pi)
        dy, dx = y - random.uniform(0, high), x - random.uniform(0, wide)
        u, v = np.cos(turn) * dx + np.sin(turn) * dy, np.cos(turn) * dy - np.sin(turn) * dx
        glow = np.exp(-0.5 * ((u / spread / oval) ** 2 + (v / spread) ** 2))
        tint = random.uniform(0.5, 1, 3) * random.uniform(60, 255)
        sky += glow[..., None] * tint
    return np.asarray(np.clip(sky, 0, 255), np.uint8)


def _blobs(size: tuple[int, int], random: np.random.Generator) -> Pixels:
    """Ovals, boxes and lines of any colours, with edges more or less soft."""
    image = Image.fromarray(_shades(size, random))
    pencil = ImageDraw.Draw(image)
    for _ in range(int(random.integers(4, 30))):
        side = _log(5, max(size) / 2, random)
        wide = side * np.exp(random.uniform(-0.5, 0.5))
        x, y = random.uniform(0, size[1]), random.uniform(0, size[0])
        box = [x - wide / 2, y - side / 2, x + wide / 2, y + side / 2]
        fill = tuple(int(v) for v in np.clip(_colour(random), 0, 255))
        kind = int(random.integers(4))
        if kind <= 1:
            pencil.ellipse(box, fill=fill)
        elif kind == 2:
            pencil.rectangle(box, fill=fill)
        else:
            pencil.line(box, fill=fill, width=max(1, int(side / 10)))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(random.uniform(0, 3))))


def _stripes(size: tuple[int, int], random: np.random.Generator) -> Pixels:
    """Stripes, checks, bricks or rings of two colours."""
    y, x = np.mgrid[0 : size[0], 0 : size[1]].astype(np.float32)
    turn, step = random.uniform(0, np.pi), _log(4, 80, random)
    u = (np.cos(turn) * x + np.sin(turn) * y) / step
    v = (np.cos(turn) * y - np.sin(turn) * x) / step / random.uniform(0.4, 2.5)
    ring = np.hypot(u - u.mean(), v - v.mean())
    inside = (
        (u % 1) < random.uniform(0.1, 0.9),
        ((u % 1) < 0.5) ^ ((v % 1) < 0.5),
        ((u + 0.5 * (np.floor(v) % 2)) % 1 < 0.9) & (v % 1 < 0.85),
        (ring % 1) < 0.5,
    )[int(random.integers(4))]
    made = np.where(inside[..., None], _colour(random), _colour(random))
    made = made + random.normal(0, random.uniform(0, 15), (*size, 1))
    return np.clip(made, 0, 255).astype(np.uint8)


def _letters(size: tuple[int, int], random: np.random.Generator) -> Pixels:
    """Lines of letters."""
    paper = tuple(int(v) for v in np.clip(_colour(random), 0, 255))
    image = Image.new("RGB", size[::-1], paper)
    pencil = ImageDraw.Draw(image)
    tall = random.uniform(8, 60)
    ink = tuple(int(v) for v in np.clip(_colour(random), 0, 255))
    from PIL import ImageFont

    font = ImageFont.load_default(tall)
    for row in range(int(size[0] / tall) + 1):
        text = "".join(chr(int(c)) for c in random.integers(33, 126, 60))
        pencil.text((-random.uniform(0, tall), row * tall * 1.2), text, fill=ink, font=font)
    return np.asarray(image)


_KINDS = (_shades, _stars, _blobs, _blobs, _stripes, _letters)
