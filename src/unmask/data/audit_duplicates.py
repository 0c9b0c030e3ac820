"""Duplicate images: exact or near, within and across the parts of a set."""

from __future__ import annotations

import hashlib
from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

_SIDE = 16
_COMPONENTS = 16
_NEIGHBOURS = 6
# The correlation of zero-mean images from which on two count as the same image.
ALIKE = 0.995
_SAMPLE = 5000
# Of images that are compared at a time, so that memory stays bounded.
_VALUES = 20_000_000


def exact_duplicates(pixels: NDArray[np.uint8]) -> list[NDArray[np.int64]]:
    """Return the groups of two or more places whose images are equal to the byte.

    Args:
        pixels: uint8[n, c, h, w].

    Returns:
        The groups, int64[k] each.
    """
    places: dict[bytes, list[int]] = defaultdict(list)
    for i, image in enumerate(pixels):
        places[hashlib.blake2b(image.tobytes(), digest_size=16).digest()].append(i)
    return [np.array(group) for group in places.values() if len(group) > 1]


def thumbnails(pixels: NDArray[np.uint8], side: int = _SIDE) -> NDArray[np.float32]:
    """Return luma float32[n, side, side] in 0..255, by box averages; small images are enlarged."""
    import torch
    from torch.nn import functional

    found = []
    size = max(1, min(2000, _VALUES // max(1, pixels[:1].size)))
    for start in range(0, len(pixels), size):
        x = torch.tensor(pixels[start : start + size]).float()
        grey = x.mean(1, keepdim=True)
        found.append(functional.interpolate(grey, (side, side), mode="area")[:, 0].numpy())
    return np.concatenate(found) if found else np.zeros((0, side, side), np.float32)


def near_duplicates(pixels: NDArray[np.uint8], *, alike: float = ALIKE) -> NDArray[np.int64]:
    """Return pairs of places whose images correlate by `alike` or more.

    The correlation ignores brightness and contrast, so a copy that was compressed, resized,
    brightened or slightly blurred is found. Candidates are the nearest neighbours among the main
    components of small copies; each pair is then compared at twice their resolution. Exact
    duplicates and plain images are left out.

    Args:
        pixels: uint8[n, c, h, w].
        alike: the least correlation, below 1.

    Returns:
        int64[k, 2], first < second.
    """
    from scipy.spatial import cKDTree

    if len(pixels) < 2:
        return np.zeros((0, 2), np.int64)
    small = _unit(thumbnails(pixels))
    told = np.flatnonzero(np.abs(small).sum(1) > 0)
    if len(told) < 2:
        return np.zeros((0, 2), np.int64)
    sample = small[told[:: max(1, len(told) // _SAMPLE)]]
    _, _, axes = np.linalg.svd(sample, full_matrices=False)
    points = small[told] @ axes[:_COMPONENTS].T
    radius = float(np.sqrt(2 * (1 - alike)))
    distance, neighbour = cKDTree(points).query(
        points, k=min(_NEIGHBOURS, len(told)), distance_upper_bound=radius * 1.2
    )
    rows, columns = np.nonzero(np.isfinite(distance))
    pairs = np.stack([told[rows], told[neighbour[rows, columns]]], 1)
    pairs = np.unique(np.sort(pairs[pairs[:, 0] != pairs[:, 1]], 1), axis=0)
    if not len(pairs):
        return np.zeros((0, 2), np.int64)
    kept = []
    for chunk in np.array_split(pairs, 1 + len(pairs) * pixels[:1].size // _VALUES):
        a, b = (_unit(thumbnails(pixels[chunk[:, k]], 2 * _SIDE)) for k in (0, 1))
        same = (pixels[chunk[:, 0]] == pixels[chunk[:, 1]]).all((1, 2, 3))
        kept.append(chunk[((a * b).sum(1) >= alike) & ~same])
    return np.concatenate(kept).astype(np.int64)


def _unit(images: NDArray[np.float32]) -> NDArray[np.float32]:
    flat = images.reshape(len(images), -1)
    flat = flat - flat.mean(1, keepdims=True)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    # An image without contrast resembles any other of its kind.
    return np.where(length > flat.shape[1] ** 0.5, flat / np.maximum(length, 1e-6), 0)
