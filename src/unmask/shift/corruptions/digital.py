"""Light, contrast, colour, resolution, compression (Hendrycks & Dietterich, 2019)."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor
from torch.nn import functional

from unmask.shift.corruptions import filters
from unmask.shift.corruptions.registry import Draw, corruption

_PAPER = "Hendrycks & Dietterich, 2019"


@corruption(
    "brightness",
    family="digital",
    paper=_PAPER,
    levels=(0.1, 0.2, 0.3, 0.4, 0.5),
    none=0.0,
    mends="ColorJitter(brightness=0.5)",
)
def brightness(x: Tensor, p: tuple[float, ...], draw: Draw) -> Tensor:
    """Add p[0] to the value of HSV; hue and saturation stay."""
    value = x.amax(1, keepdim=True)
    brighter = (value + p[0]).clamp(0, 1)
    return torch.where(value > 0, x * (brighter / value.clamp(min=1e-6)), brighter)


@corruption(
    "contrast",
    family="digital",
    paper=_PAPER,
    levels=(0.4, 0.3, 0.2, 0.1, 0.05),
    none=1.0,
    mends="ColorJitter(contrast=0.8), RandAugment",
)
def contrast(x: Tensor, p: tuple[float, ...], draw: Draw) -> Tensor:
    """Move all values towards each channel's mean, to a fraction p[0] of their distance."""
    mean = x.mean((2, 3), keepdim=True)
    return mean + (x - mean) * p[0]


def _saturated(x: Tensor, factor: float, plus: float) -> Tensor:
    value = x.amax(1, keepdim=True)
    chroma = value - x.amin(1, keepdim=True)
    saturation = chroma / value.clamp(min=1e-6)
    wanted = (saturation * factor + plus).clamp(0, 1)
    # A pixel without any hue has hue 0, red.
    red = torch.tensor([0.0, 1.0, 1.0], device=x.device).view(1, 3, 1, 1)
    towards = torch.where(chroma > 1e-6, (value - x) / chroma.clamp(min=1e-6), red.expand_as(x))
    return value - value * wanted * towards


@corruption(
    "saturate",
    family="digital",
    paper=_PAPER,
    # Less colour at 1 and 2, more from 3 on: the last number is the side of the gap.
    levels=((0.3, 0, 0), (0.1, 0, 0), (2, 0, 1), (5, 0.1, 1), (20, 0.2, 1)),
    none=(1.0, 0.0, 0.0),
    colour=True,
    mends="ColorJitter(saturation=0.8)",
)
def saturate(x: Tensor, p: tuple[float, ...], draw: Draw) -> Tensor:
    """Set the saturation of HSV to p[0] times its value plus p[1]."""
    if 0 < p[2] < 1:
        # Interpolated half way from less to more colour, nothing would change at all.
        return _saturated(x, 0.1 if p[2] < 0.5 else 2.0, 0.0)
    return _saturated(x, p[0], p[1])


@corruption(
    "elastic_transform",
    family="digital",
    paper="Simard et al., 2003; levels of imagecorruptions",
    levels=(12.5, 16.25, 21.25, 25.0, 30.0),
    none=0.0,
    mends="ElasticTransform, RandomPerspective",
)
def elastic_transform(x: Tensor, p: tuple[float, ...], draw: Draw) -> Tensor:
    """Move points by p[0] times smoothed uniform noise of 0.5 % of the side."""
    height, width = x.shape[2:]
    largest = 0.005 * height * p[0]
    moves = (draw.uniform(2, height, width) * 2 - 1) * largest
    moves = filters.gaussian_blur(moves, 0.01 * min(height, width))
    return filters.displaced(x, moves[:, 0], moves[:, 1])


@corruption(
    "pixelate",
    family="digital",
    paper=_PAPER,
    levels=(0.6, 0.5, 0.4, 0.3, 0.25),
    none=1.0,
    mends="training images resized down and up again, GaussianBlur",
)
def pixelate(x: Tensor, p: tuple[float, ...], draw: Draw) -> Tensor:
    """Average boxes down to p[0] of the size, and repeat them back."""
    small = [max(1, int(side * p[0])) for side in x.shape[2:]]
    down = _boxes(x.shape[2], small[0]).to(x) @ x @ _boxes(x.shape[3], small[1]).to(x).T
    return functional.interpolate(down, x.shape[2:], mode="nearest-exact")


@functools.lru_cache(maxsize=64)
def _boxes(side: int, small: int) -> Tensor:
    """Return [small, side]; each row averages the pixels that have their middle in its box."""
    box = ((torch.arange(side) + 0.5) * small / side).long()
    inside = (torch.arange(small)[:, None] == box).float()
    return inside / inside.sum(1, keepdim=True)


# The quantisation tables that the JPEG standard gives as an example (ITU-T T.81, annex K).
_LUMA = (
    *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55),
    *(14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62),
    *(18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA_CORNER = ((17, 18, 24, 47), (18, 21, 26, 66), (24, 26, 56, 99), (47, 66, 99, 99))


@functools.lru_cache(maxsize=8)
def _dct() -> Tensor:
    """Return the orthonormal cosine transform [8, 8]."""
    k = torch.arange(8, dtype=torch.float64)
    matrix = torch.cos(math.pi / 8 * (k[None] + 0.5) * k[:, None]) / 2
    matrix[0] /= math.sqrt(2)
    return matrix.float()


@functools.lru_cache(maxsize=256)
def _tables(quality: float) -> tuple[Tensor, Tensor]:
    """Return the quantisation tables of luma and chroma, [8, 8], at a quality of 1 to 100."""
    scale = 50 / quality if quality < 50 else 2 - quality / 50
    luma = torch.tensor(_LUMA, dtype=torch.float32).view(8, 8)
    chroma = torch.full((8, 8), 99.0)
    chroma[:4, :4] = torch.tensor(_CHROMA_CORNER, dtype=torch.float32)
    return tuple(  # type: ignore[return-value]
        torch.floor(t * scale + 0.5).clamp(1, 255) for t in (luma, chroma)
    )


def _quantised(plane: Tensor, table: Tensor) -> Tensor:
    """Return a plane [b, c, h, w] of -128..127 after the quantisation of its 8 x 8 blocks."""
    b, c, height, width = plane.shape
    padded = functional.pad(plane, (0, -width % 8, 0, -height % 8), mode="replicate")
    rows, columns = padded.shape[2] // 8, padded.shape[3] // 8
    blocks = padded.view(b, c, rows, 8, columns, 8).transpose(3, 4)
    dct = _dct().to(plane)
    table = table.to(plane)
    kept = torch.round(dct @ blocks @ dct.T / table) * table
    back = (dct.T @ kept @ dct).transpose(3, 4).reshape(b, c, rows * 8, columns * 8)
    return back[:, :, :height, :width]


@corruption(
    "jpeg_compression",
    family="digital",
    paper=_PAPER,
    levels=(25, 18, 15, 10, 7),
    none=95.0,
    mends="JPEG compression (torchvision.transforms.v2.JPEG((5, 50)))",
)
def jpeg_compression(x: Tensor, p: tuple[float, ...], draw: Draw) -> Tensor:
    """Compress as a JPEG of quality p[0], with chroma at half the resolution (ITU-T T.81)."""
    luma_table, chroma_table = _tables(round(p[0], 3))
    x = (x * 255).round()
    luma = filters.grey(x)
    coded = _quantised(luma - 128, luma_table) + 128
    if x.shape[1] == 1:
        return coded.round() / 255
    chroma = torch.cat([(x[:, 2:] - luma) / 1.772, (x[:, :1] - luma) / 1.402], 1)
    height, width = x.shape[2:]
    chroma = functional.pad(chroma, (0, width % 2, 0, height % 2), mode="replicate")
    half = functional.avg_pool2d(chroma, 2)
    size = (2 * half.shape[2], 2 * half.shape[3])
    full = functional.interpolate(_quantised(half, chroma_table), size, mode="bilinear")
    blue, red = full[:, :1, :height, :width], full[:, 1:, :height, :width]
    rgb = (
        coded + 1.402 * red,
        coded - 0.344136 * blue - 0.714136 * red,
        coded + 1.772 * blue,
    )
    return torch.cat(rgb, 1).round() / 255
