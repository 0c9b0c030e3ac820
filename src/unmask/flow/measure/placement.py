"""Whether masks lie where their images show something, or where a mirror would show it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

# Batches that are compared, images of each, and the places along a side.
_BATCHES, _IMAGES, _SIDE = 24, 16, 48
# The least part of an image's variance between a mask's classes that tells where it lies, and by
# how much that of the other place must differ.
_TELLS, _CLEAR = 0.3, 0.15
# More classes than this are no mask.
_CLASSES = 32


class Placement:
    """Counts the masks that fit their image, and those that fit its mirror image better."""

    def __init__(self) -> None:
        self._batches = 0
        # For each turn, how many fit better as they are, and turned.
        self.counts: dict[str, list[int]] = {}

    @property
    def complete(self) -> bool:
        """Return whether enough batches were compared."""
        return self._batches >= _BATCHES

    def add(self, images: Tensor, masks: Tensor) -> None:
        """Compare a batch.

        Args:
            images: float[n, c, h, w], on the CPU.
            masks: of classes or of zeros and ones, [n, h, w] or [n, 1, h, w].
        """
        masks = masks[:, 0] if masks.ndim == 4 and masks.shape[1] == 1 else masks
        if images.ndim != 4 or masks.shape != (len(images), *images.shape[2:]):
            return
        if self.complete or min(images.shape[2:]) < 2 or not masks.is_cpu:
            return
        self._batches += 1
        down, along = (max(1, n // _SIDE) for n in images.shape[2:])
        x = images[:_IMAGES, :, ::down, ::along].detach().double().numpy()
        y = masks[:_IMAGES, ::down, ::along].detach().float().numpy()
        for image, mask in zip(x, y, strict=True):
            classes, codes = np.unique(mask, return_inverse=True)
            if 1 < len(classes) <= _CLASSES:
                self._see(image, codes.reshape(mask.shape))

    def _see(self, image: NDArray[np.float64], codes: NDArray[np.int64]) -> None:
        turned = {"left and right": codes[:, ::-1], "top and bottom": codes[::-1]}
        if codes.shape[0] == codes.shape[1]:
            turned["rows and columns"] = codes.T
        fits = between(image, codes)
        for name, other in turned.items():
            fits_turned = between(image, other)
            if max(fits, fits_turned) > _TELLS and abs(fits - fits_turned) > _CLEAR:
                self.counts.setdefault(name, [0, 0])[fits_turned > fits] += 1


def between(image: NDArray[np.float64], codes: NDArray[np.int64]) -> float:
    """Return the part of an image's variance that lies between classes, of its clearest channel.

    Args:
        image: float64[c, h, w].
        codes: the class of each place, int64[h, w], counted from 0.
    """
    flat, places = image.reshape(len(image), -1), codes.ravel()
    counts = np.bincount(places)
    flat = flat - flat.mean(1, keepdims=True)
    total = np.square(flat).sum(1)
    sums = np.stack([np.bincount(places, weights=row) for row in flat])
    parts = np.square(sums) @ (1 / np.maximum(counts, 1))
    return float(np.max(np.divide(parts, total, out=np.zeros_like(total), where=total > 0)))
