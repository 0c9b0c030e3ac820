"""Images divided into folds for training and validation, near-duplicates together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unmask.data.detection.corrections import read_copies
from unmask.data.detection.dataset import AnnotatedImages
from unmask.data.picture import open_picture
from unmask.errors import UserError
from unmask.runtime import read_regular, seeded

_FOLD_STREAM = 9
# Of 256 places: images that differ in no more are the same photograph, cropped or compressed again.
MOST_DIFFERENT = 5
_SIDE = 16
_ROWS = 1024


Fold = tuple[NDArray[np.int64], NDArray[np.int64]]


def folds(annotated: AnnotatedImages, count: int = 5, seed: int = 0) -> list[Fold]:
    """Return count pairs of (training, validation) indices, each image validating in one of them.

    Images are divided whole, since the faces of one image are alike. Near-duplicates stay together
    (duplicate_groups), and images are dealt by the rarest class that each holds, so that every fold
    has its share of it.

    Args:
        annotated: the images.
        count: how many folds, 2 or more.
        seed: of the order in which images are dealt.

    Returns:
        Two int64 arrays a fold, in ascending order.

    Raises:
        UserError: there are fewer than two folds, or more folds than images that differ.
    """
    _, group = np.unique(duplicate_groups(annotated), return_inverse=True)
    groups = int(group.max(initial=-1)) + 1
    if not 2 <= count <= groups:
        raise UserError(
            f"{annotated.name} can't be dealt out into folds",
            got=f"{count} folds of {groups} images that differ",
            do="give 2 folds or more, and no more than there are images",
        )
    faces = np.zeros((groups, len(annotated.class_names)), np.int64)
    for own, labels in zip(group, annotated.labels, strict=True):
        np.add.at(faces[own], labels, 1)
    by_rarity = np.argsort(annotated.counts, kind="stable")
    # Groups with most of their rarest class come first, so that no fold gets all the crowds.
    rank = []
    for held in faces:
        rarest = next((int(c) for c in by_rarity if held[c]), -1)
        rank.append((rarest, -int(held[rarest]), -int(held.sum())))
    order = sorted(seeded(seed, _FOLD_STREAM).permutation(groups).tolist(), key=lambda g: rank[g])
    # Every other round is dealt backwards, or the first fold would always get the largest crowd.
    rounds, place = np.divmod(np.arange(groups), count)
    fold_of_group = np.empty(groups, np.int64)
    fold_of_group[order] = np.where(rounds % 2, count - 1 - place, place)
    fold = fold_of_group[group]
    return [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(count)]


def duplicate_groups(annotated: AnnotatedImages) -> NDArray[np.int64]:
    """Return int64[n], a number for each image, the same for those that are nearly the same.

    An image that can't be read or is of one colour is in a group of its own. Copies within the face
    mask set that the hash misses are known by name.

    Args:
        annotated: the n images, read from their files.
    """
    hashes = np.zeros((len(annotated), _SIDE * _SIDE), np.bool_)
    alone = np.ones(len(annotated), np.bool_)
    for i, path in enumerate(annotated.paths):
        try:
            image = open_picture(read_regular(path), mode="L", enough=4 * _SIDE)
        except (UserError, OSError):
            continue
        grey = np.asarray(image)
        hashes[i], alone[i] = difference_hash(grey), not np.ptp(grey)
    group = groups(hashes, MOST_DIFFERENT, alone)
    place = {path.stem: i for i, path in enumerate(annotated.paths)}
    for copies in read_copies():
        own = group[[place[stem] for stem in copies if stem in place]]
        if len(own):
            group[np.isin(group, own)] = own.min()
    return group


def difference_hash(grey: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return bool[256] of a grey image: which of 16 x 16 places are darker than the next one.

    Args:
        grey: uint8[h, w], of any size.
    """
    small = Image.fromarray(grey).resize((_SIDE + 1, _SIDE), reducing_gap=3.0)
    values = np.asarray(small, np.int16)
    return np.asarray(values[:, :-1] < values[:, 1:], np.bool_).ravel()


def groups(
    hashes: NDArray[np.bool_], most: int, alone: NDArray[np.bool_] | None = None
) -> NDArray[np.int64]:
    """Return int64[n]: for each row, the index of the first row that it is linked to.

    Args:
        hashes: bool[n, d]. Two are linked when they differ in most places or fewer, or through
            others that do.
        most: the most places in which linked rows may differ.
        alone: bool[n], rows that are linked to none; None for no such rows.
    """
    signs = np.where(hashes, np.float32(1), np.float32(-1))
    group = np.arange(len(hashes))
    for start in range(0, len(hashes), _ROWS):
        # The product of two rows of signs is d less twice the places in which they differ.
        alike = signs[start : start + _ROWS] @ signs.T >= hashes.shape[1] - 2 * most
        for row, other in np.argwhere(alike):
            row += start
            if row == other or (alone is not None and (alone[row] or alone[other])):
                continue
            low, high = sorted((group[row], group[other]))
            group[group == high] = low
    return group
