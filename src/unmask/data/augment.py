"""Whole batches of images flipped, shifted, cropped, erased and mixed in memory, on any device.

Random numbers are drawn once an epoch, for every image, from (seed, epoch) alone, so an epoch can
be replayed on any device without the random state of the epochs before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from unmask.errors import UserError
from unmask.runtime import seeded

FLIPS = ("none", "random", "alternating")
_FLIP_STREAM, _EPOCH_STREAM = 1, 2


@dataclass(frozen=True)
class Augmentation:
    """What may happen to an image; by default nothing.

    Args:
        flip: mirror left to right: "random" draws a fair coin every epoch, "alternating" a coin in
            the first epoch and the other side in each next (Jordan, 2024), "none" never.
        shift: the largest shift in each direction, in whole pixels; the edge is reflected.
        crop: the smallest fraction of the area, over 0 and up to 1, that a random square crop keeps
            before it is stretched back to the size of the image; 1 for no crop.
        erase: the side in pixels of a random square that is set to the image's mean, 0 for none
            (DeVries and Taylor, 2017).
        cutmix: the probability, 0 to 1, that a random square of another image is pasted in, whose
            class then counts by its area (Yun et al., 2019).

    Raises:
        UserError: when a setting is out of its range.
    """

    flip: Literal["none", "random", "alternating"] = "none"
    shift: int = 0
    crop: float = 1.0
    erase: int = 0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        for name, got, good, wanted in (
            ("flip", self.flip, self.flip in FLIPS, f"one of {', '.join(FLIPS)}"),
            ("shift", self.shift, _whole(self.shift), "a whole number of pixels, 0 or more"),
            ("erase", self.erase, _whole(self.erase), "a whole number of pixels, 0 or more"),
            ("crop", self.crop, 0 < self.crop <= 1, "a part of the area, over 0 and up to 1"),
            ("cutmix", self.cutmix, 0 <= self.cutmix <= 1, "how often it happens, from 0 to 1"),
        ):
            if not good:
                raise UserError(f"the augmentation {name} must be {wanted}", got=got)


@dataclass(frozen=True)
class Draws:
    """What was drawn for each of n images in one epoch.

    Args:
        flip: bool[n], whether it is mirrored.
        shift: int64[n, 2], pixels down and right.
        crop: float32[n, 3], the kept fraction of the side, and the place of the crop, down and
            right, 0 to 1.
        erase: float32[n, 2], the place of the erased square, down and right, 0 to 1.
        mate: int64[n], the image that the pasted square comes from.
        square: float32[n, 3], the side of the pasted square as a fraction of the image's, 0 for
            none, and its place, down and right, 0 to 1.
    """

    flip: Tensor
    shift: Tensor
    crop: Tensor
    erase: Tensor
    mate: Tensor
    square: Tensor

    def __getitem__(self, index: Tensor) -> Draws:
        return Draws(*(drawn[index] for drawn in self._all()))

    def to(self, device: torch.device) -> Draws:
        """Return the draws on that device."""
        return Draws(*(drawn.to(device) for drawn in self._all()))

    def _all(self) -> tuple[Tensor, ...]:
        return (self.flip, self.shift, self.crop, self.erase, self.mate, self.square)


def draw(augmentation: Augmentation, count: int, *, seed: int, epoch: int) -> Draws:
    """Return what happens to each of count images in that epoch, a function of its arguments.

    Args:
        augmentation: what may happen.
        count: the number of images.
        seed: of the random numbers.
        epoch: from 0.
    """
    random = seeded(seed, _EPOCH_STREAM, epoch)
    flip = np.zeros(count, bool)
    if augmentation.flip == "random":
        flip = random.random(count) < 0.5
    elif augmentation.flip == "alternating":
        flip = (seeded(seed, _FLIP_STREAM).random(count) < 0.5) ^ bool(epoch % 2)
    reach = augmentation.shift
    side = np.sqrt(random.uniform(augmentation.crop, 1, (count, 1)))
    shift = random.integers(-reach, reach + 1, (count, 2))
    crop = np.hstack([side, random.random((count, 2))])
    erase = random.random((count, 2), np.float32)
    pasted = random.random((count, 1)) < augmentation.cutmix
    square = np.hstack([pasted * np.sqrt(random.random((count, 1))), random.random((count, 2))])
    return Draws(
        flip=torch.from_numpy(flip),
        shift=torch.from_numpy(shift),
        crop=torch.from_numpy(crop.astype(np.float32)),
        erase=torch.from_numpy(erase),
        mate=torch.from_numpy(random.integers(0, count, count)),
        square=torch.from_numpy(square.astype(np.float32)),
    )


def augmented(pixels: Tensor, augmentation: Augmentation, draws: Draws) -> Tensor:
    """Return 8-bit images as floats, augmented as drawn.

    Args:
        pixels: uint8[b, h, w, c], 0..255.
        augmentation: what may happen.
        draws: what was drawn for these b images.

    Returns:
        float32[b, c, h, w] in [0, 1], in memory as channels_last.

    Raises:
        UserError: when the shift is not smaller than the images.
    """
    height, width = pixels.shape[1:3]
    if augmentation.shift >= min(height, width):
        raise UserError(
            "the augmentation shifts images by more than their size",
            got=f"{augmentation.shift} pixels of {height} x {width}",
            do="give a smaller shift",
        )
    if augmentation.flip != "none" or augmentation.shift:
        pixels = _moved(pixels, draws)
    pictures = pixels.permute(0, 3, 1, 2).float().div_(255)
    if augmentation.crop < 1:
        pictures = _cropped(pictures, draws.crop)
    if augmentation.erase:
        pictures = _erased(pictures, augmentation.erase, draws.erase)
    return pictures


def mixed(pictures: Tensor, mates: Tensor, square: Tensor) -> tuple[Tensor, Tensor]:
    """Return images with squares of their mates pasted in, and the fraction left of each (CutMix).

    Args:
        pictures: float32[b, c, h, w].
        mates: float32[b, c, h, w], the images that the squares come from.
        square: float32[b, 3], as in Draws.

    Returns:
        The images, and float32[b], the fraction of each one's area that is still its own, in [0,
        1].
    """
    height, width = pictures.shape[2:]

    def inside(length: int, at: Tensor) -> Tensor:
        wide = (square[:, 0] * length).round()
        first = (at * (length - wide)).round()[:, None]
        index = torch.arange(length, device=pictures.device)
        return (index >= first) & (index < first + wide[:, None])

    rows, columns = inside(height, square[:, 1]), inside(width, square[:, 2])
    pasted = rows[:, :, None] & columns[:, None, :]
    share = 1 - pasted.float().mean((1, 2))
    return torch.where(pasted[:, None], mates, pictures), share


def _moved(pixels: Tensor, draws: Draws) -> Tensor:
    count, height, width, _ = pixels.shape
    rows = _reflected(torch.arange(height, device=pixels.device) - draws.shift[:, :1], height)
    columns = _reflected(torch.arange(width, device=pixels.device) - draws.shift[:, 1:], width)
    columns = torch.where(draws.flip[:, None], width - 1 - columns, columns)
    every = torch.arange(count, device=pixels.device)[:, None, None]
    return pixels[every, rows[:, :, None], columns[:, None, :]]


def _reflected(index: Tensor, size: int) -> Tensor:
    """Fold indices beyond an edge back inside, without repeating the edge pixel itself."""
    return (size - 1) - ((size - 1) - index.abs()).abs()


def _cropped(pictures: Tensor, crop: Tensor) -> Tensor:
    side, place = crop[:, :1], crop[:, 1:]
    centre = (1 - side) * (2 * place - 1)
    zero = torch.zeros_like(side)
    rows = torch.cat([side, zero, centre[:, 1:]], 1), torch.cat([zero, side, centre[:, :1]], 1)
    grid = functional.affine_grid(torch.stack(rows, 1), list(pictures.shape), align_corners=False)
    sampled = functional.grid_sample(pictures, grid, padding_mode="border", align_corners=False)
    return sampled.contiguous(memory_format=torch.channels_last)


def _erased(pictures: Tensor, side: int, place: Tensor) -> Tensor:
    def inside(length: int, at: Tensor) -> Tensor:
        # The square's corner may lie outside, so that edges are erased as often as the middle.
        first = (at * (length + side - 1)).long()[:, None] - (side - 1)
        index = torch.arange(length, device=pictures.device)
        return (index >= first) & (index < first + side)

    rows, columns = inside(pictures.shape[2], place[:, 0]), inside(pictures.shape[3], place[:, 1])
    square = (rows[:, :, None] & columns[:, None, :])[:, None]
    return torch.where(square, pictures.mean((2, 3), keepdim=True), pictures)


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
