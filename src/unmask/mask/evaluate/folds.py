"""Images dealt out to train and to validate with, near-duplicates together."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from unmask.data.detection.dataset import AnnotatedImages
from unmask.data.picture import open_picture
from unmask.errors import UserError
from unmask.runtime import seeded

_FOLD_STREAM = 9
LEAST_CORRELATION = 0.99
_SIDE = 16
_ROWS = 1024


Fold = tuple[NDArray[np.int64], NDArray[np.int64]]


def folds(annotated: AnnotatedImages, count: int = 5, seed: int = 0) -> list[Fold]:
    """Return count pairs of (training, validation) indices, each picture validating in one of them.

    Pictures are dealt out whole, since faces of one picture are alike, those nearly the same
    together (duplicate_groups), and by the rarest class that each holds, so that every fold has its
    part of it. Raises UserError when there are fewer than two folds, or more folds than pictures
    that differ.
    """
    _, group = np.unique(duplicate_groups(annotated), return_inverse=True)
    groups = int(group.max(initial=-1)) + 1
    if not 2 <= count <= groups:
        raise UserError(
            f"{annotated.name} can't be dealt out into folds",
            got=f"{count} folds of {groups} pictures that differ",
            do="give 2 folds or more, and no more than there are pictures",
        )
    faces = np.zeros((groups, len(annotated.class_names)), np.int64)
    for own, labels in zip(group, annotated.labels, strict=True):
        np.add.at(faces[own], labels, 1)
    by_rarity = np.argsort(annotated.counts, kind="stable")
    # Those with most of their rarest class come first, so that no fold is dealt all the crowds.
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
    """Return int64[n], a number for each picture, the same for those that are nearly the same.

    Each picture is looked at as 16 x 16 grey values. One that can't be read is like no other.
    """
    looks = np.zeros((len(annotated), _SIDE * _SIDE))
    for i, path in enumerate(annotated.paths):
        try:
            picture = open_picture(path.read_bytes(), mode="L", enough=4 * _SIDE)
        except (UserError, OSError):
            continue
        looks[i] = np.asarray(picture.resize((_SIDE, _SIDE), reducing_gap=3.0)).ravel()
    return groups(looks, LEAST_CORRELATION)


def groups(rows: NDArray[np.floating[Any]], least: float) -> NDArray[np.int64]:
    """Return int64[n]: the index of the first row that each of the rows is linked to.

    rows: [n, d]. Two are linked when they correlate by least or more, or by way of others that do.
    A row of equal values correlates with none.
    """
    centred = rows - rows.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    unit = np.divide(centred, lengths, out=np.zeros_like(centred), where=lengths > 0)
    group = np.arange(len(rows))
    for start in range(0, len(rows), _ROWS):
        alike = unit[start : start + _ROWS] @ unit.T >= least
        for row, other in np.argwhere(alike):
            low, high = sorted((group[start + row], group[other]))
            group[group == high] = low
    return group
