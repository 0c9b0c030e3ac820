"""Mistakes of other deployments with the same images: channels, scaling, resize, JPEG, EXIF."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from unmask.data.picture import open_picture
from unmask.shift.corruptions.digital import jpeg_compression
from unmask.shift.corruptions.filters import grey
from unmask.shift.corruptions.registry import Draw
from unmask.shift.target import Target

# The mean and standard deviation of ImageNet, which most published networks are trained with.
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Mistake:
    """Preprocessing that isn't the stated one, and its cost.

    Args:
        name: of the change, in words.
        images: how many were tried.
        accuracy: with it.
        stated: the accuracy without it, on the same images.
        gained: images that are right only with it.
        lost: images that are right only without it.
        cure: whether doing it on purpose would fix a model that needs it.
    """

    name: str
    images: int
    accuracy: float
    stated: float
    gained: int
    lost: int
    cure: bool

    @property
    def p_value(self) -> float:
        """The probability of as many gains by chance (McNemar's exact test, one-sided)."""
        from scipy.stats import binomtest

        count = self.gained + self.lost
        return float(binomtest(self.gained, count, alternative="greater").pvalue) if count else 1.0

    def as_dict(self) -> dict[str, Any]:
        """Return the figures as plain values."""
        return asdict(self)


Change = Callable[[Tensor], Tensor]


def _affine(mean: Sequence[float], std: Sequence[float], channels: int) -> tuple[Tensor, Tensor]:
    if len(mean) != channels:
        mean, std = [float(np.mean(mean))] * channels, [float(np.mean(std))] * channels
    return torch.tensor(mean).view(-1, 1, 1), torch.tensor(std).view(-1, 1, 1)


def changes(target: Target, pixels: Tensor) -> dict[str, tuple[Change, bool]]:
    """Return common mistakes with pixel values by name, and whether each can be a cure.

    Args:
        target: whose mean and standard deviation are used if it states them, those of ImageNet
            otherwise.
        pixels: float32[n, c, h, w] in [0, 1], for their own mean and standard deviation.
    """
    channels = pixels.shape[1]
    known = bool(target.mean) and any(target.mean)
    mean, std = _affine(*((target.mean, target.std) if known else IMAGENET), channels)
    own_mean, own_std = pixels.mean((0, 2, 3))[:, None, None], pixels.std((0, 2, 3))[:, None, None]
    own_std = own_std.clamp(min=1e-3)
    found: dict[str, tuple[Change, bool]] = {
        "0 to 255 instead of 0 to 1": (lambda x: x * 255, True),
        "divided by 255 twice": (lambda x: x / 255, True),
        "scaled to -1 to 1": (lambda x: 2 * x - 1, True),
        "scaled from -1 to 1 to 0 to 1": (lambda x: x / 2 + 0.5, True),
        "normalised twice" if known else "normalised with ImageNet's mean and deviation": (
            lambda x: (x - mean) / std,
            True,
        ),
        "not normalised" if known else "ImageNet's normalisation undone": (
            lambda x: x * std + mean,
            True,
        ),
        "normalised with the images' own mean and deviation": (
            lambda x: (x - own_mean) / own_std,
            True,
        ),
        "with the normalisation by their own mean and deviation undone": (
            lambda x: x * own_std + own_mean,
            True,
        ),
        "inverted": (lambda x: 1 - x, True),
        "EXIF orientation ignored (a quarter turn)": (
            lambda x: x.rot90(1, (2, 3)) if x.shape[2] == x.shape[3] else x.flip(2),
            True,
        ),
        "JPEG at quality 75": (lambda x: _jpeg(x, 75), False),
        "JPEG at quality 30": (lambda x: _jpeg(x, 30), False),
        "stored at half the size, enlarged by nearest": (lambda x: _halved(x, "nearest"), False),
        "stored at half the size, enlarged bilinearly": (lambda x: _halved(x, "bilinear"), False),
        "letterboxed by an eighth on each side": (_letterboxed, False),
    }
    if known:
        found["0 to 255, not normalised"] = (lambda x: x * 255 * std + mean, True)
    if channels == 3:
        found["channels in the order blue, green, red"] = (lambda x: x.flip(1), True)
        found["grey instead of colour"] = (lambda x: grey(x).expand(-1, 3, -1, -1), False)
    return found


def _jpeg(x: Tensor, quality: float) -> Tensor:
    return jpeg_compression(x, (quality,), Draw((), x.device)).clamp(0, 1)


def _halved(x: Tensor, mode: str) -> Tensor:
    height, width = x.shape[2:]
    small = functional.interpolate(
        x, (max(1, height // 2), max(1, width // 2)), mode="bilinear", antialias=True
    )
    return functional.interpolate(small, (height, width), mode=mode)


def _letterboxed(x: Tensor) -> Tensor:
    height, width = x.shape[2:]
    inner = round(height * 0.75)
    small = functional.interpolate(x, (inner, width), mode="bilinear", antialias=True)
    top = (height - inner) // 2
    return functional.pad(small, (0, 0, top, height - inner - top))


def compared(
    name: str, logits: Tensor, stated: Tensor, labels: NDArray[np.int64], *, cure: bool = False
) -> Mistake:
    """Return the cost of a mistake, from its logits and the stated ones.

    Args:
        name: of the mistake.
        logits: with the mistake, float[n, classes].
        stated: without it, likewise.
        labels: int64[n].
        cure: whether doing it on purpose would fix a model that needs it.
    """
    # Where numbers overflow, another range would only hide it.
    finite = stated.isfinite().all(1)
    truth = torch.from_numpy(labels)[finite]
    right, before = (rows[finite].argmax(1) == truth for rows in (logits, stated))
    if not len(truth):
        return Mistake(name, 0, 0.0, 0.0, 0, 0, cure)
    return Mistake(
        name,
        len(truth),
        float(right.double().mean()),
        float(before.double().mean()),
        int((right & ~before).sum()),
        int((before & ~right).sum()),
        cure,
    )


def value_mistakes(
    target: Target, pixels: Tensor, labels: NDArray[np.int64], *, names: Sequence[str] = ()
) -> list[Mistake]:
    """Return the cost of each mistake with pixel values, the most expensive first.

    Args:
        target: the model.
        pixels: float32[n, c, h, w] in [0, 1].
        labels: int64[n].
        names: of the mistakes to try; all by default.
    """
    stated = target.logits(pixels)
    found = [
        compared(name, target.logits(change(pixels)), stated, labels, cure=cure)
        for name, (change, cure) in changes(target, pixels).items()
        if not names or name in names
    ]
    return sorted(found, key=lambda m: m.accuracy)


Decoder = Callable[[bytes], NDArray[np.uint8]]


def decoders(size: tuple[int, int], channels: int) -> dict[str, Decoder]:
    """Return ways of decoding an image file to uint8[c, h, w], by name; OpenCV's where installed.

    Args:
        size: (height, width) of the model's input.
        channels: 1 or 3.
    """
    from PIL import Image, ImageOps

    mode = "L" if channels == 1 else "RGB"
    height, width = size

    def array(image: Any) -> NDArray[np.uint8]:
        return np.asarray(image).reshape(height, width, channels).transpose(2, 0, 1)

    def pillow(data: bytes, resample: Image.Resampling) -> NDArray[np.uint8]:
        opened = open_picture(data, mode=mode)
        return array(ImageOps.fit(opened, (width, height), resample))

    def squeezed(data: bytes) -> NDArray[np.uint8]:
        return array(open_picture(data, mode=mode).resize((width, height)))

    def letterbox(data: bytes) -> NDArray[np.uint8]:
        return array(ImageOps.pad(open_picture(data, mode=mode), (width, height)))

    def upright_ignored(data: bytes) -> NDArray[np.uint8]:
        with Image.open(io.BytesIO(data)) as image:
            return array(ImageOps.fit(image.convert(mode), (width, height)))

    def by_torch(data: bytes, *, antialias: bool) -> NDArray[np.uint8]:
        opened = np.array(_square(open_picture(data, mode=mode), size))
        x = torch.from_numpy(opened.reshape(*opened.shape[:2], channels)).permute(2, 0, 1)[None]
        y = functional.interpolate(x.float(), size, mode="bilinear", antialias=antialias)
        return y[0].round().clamp(0, 255).byte().numpy()

    found: dict[str, Decoder] = {
        "Pillow bicubic": functools.partial(pillow, resample=Image.Resampling.BICUBIC),
        "Pillow bilinear": functools.partial(pillow, resample=Image.Resampling.BILINEAR),
        "Pillow nearest": functools.partial(pillow, resample=Image.Resampling.NEAREST),
        "Pillow Lanczos": functools.partial(pillow, resample=Image.Resampling.LANCZOS),
        "torch bilinear with antialias": functools.partial(by_torch, antialias=True),
        "torch bilinear without antialias": functools.partial(by_torch, antialias=False),
        "squeezed instead of cropped": squeezed,
        "letterboxed instead of cropped": letterbox,
        "EXIF orientation ignored": upright_ignored,
    }
    try:
        import cv2
    except ImportError:
        return found

    def opencv(data: bytes) -> NDArray[np.uint8]:
        cut = np.array(_square(open_picture(data, mode=mode), size))
        return array(cv2.resize(cut, (width, height), interpolation=cv2.INTER_LINEAR))

    found["OpenCV bilinear"] = opencv
    return found


def _square(image: Any, size: tuple[int, int]) -> Any:
    """Return the middle of an image that has the wanted aspect ratio."""
    height, width = size
    w, h = image.size
    kept_w, kept_h = min(w, round(h * width / height)), min(h, round(w * height / width))
    left, top = (w - kept_w) // 2, (h - kept_h) // 2
    return image.crop((left, top, left + max(1, kept_w), top + max(1, kept_h)))


def file_mistakes(
    target: Target,
    files: Sequence[bytes],
    labels: NDArray[np.int64],
    size: tuple[int, int],
    channels: int,
) -> list[Mistake]:
    """Return the cost of other ways of reading the same image files, the most expensive first.

    Args:
        target: the model.
        files: the bytes of the image files, all readable.
        labels: int64[n].
        size: (height, width) of the model's input.
        channels: 1 or 3.
    """
    ways = decoders(size, channels)

    def logits(read: Decoder) -> Tensor:
        pixels = np.stack([read(data) for data in files])
        return target.logits(torch.from_numpy(pixels).float() / 255)

    stated = logits(ways.pop("Pillow bicubic"))
    found = [compared(name, logits(read), stated, labels) for name, read in ways.items()]
    return sorted(found, key=lambda m: m.accuracy)
