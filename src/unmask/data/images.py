"""Labelled images in memory."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unmask.errors import UserError
from unmask.runtime import sha256


@dataclass(frozen=True, eq=False)
class Images:
    """Images of one size with a class each; the arrays must not be changed afterwards.

    Args:
        pixels: uint8[n, channels, height, width], 0..255; n may be 0.
        labels: int64[n], indices into class_names.
        class_names: distinct and not empty.
        name: where the images come from, in words.

    Raises:
        UserError: when an array has another shape or type, or a label lies outside the classes.

    Example:
        >>> pixels = np.zeros((2, 3, 8, 8), np.uint8)
        >>> images = unmask.Images(pixels, np.array([0, 1]), ("cat", "dog"), "two images")
        >>> [images.class_names[k] for k in images.labels]
        ['cat', 'dog']
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    name: str

    def __post_init__(self) -> None:
        pixels, labels, names = self.pixels, self.labels, self.class_names
        if not _is_array(pixels, np.uint8, 4) or 0 in pixels.shape[1:]:
            raise UserError(
                "pixels must be uint8[n, channels, height, width]",
                got=_described(pixels),
                do="give 0..255, channels before rows; a grey image has one channel",
            )
        if not _is_array(labels, np.int64, 1) or len(labels) != len(pixels):
            raise UserError(
                f"labels must be int64[{len(pixels)}], one an image", got=_described(labels)
            )
        if not (
            isinstance(names, tuple)
            and names
            and all(isinstance(n, str) and n for n in names)
            and len(set(names)) == len(names)
        ):
            raise UserError("class names must be a tuple of distinct texts", got=repr(names))
        if not isinstance(self.name, str):
            raise UserError("the name of a set of images must be a text", got=repr(self.name))
        outside = np.flatnonzero((labels < 0) | (labels >= len(names)))
        if outside.size:
            raise UserError(
                f"labels must be 0 to {len(names) - 1}, for {len(names)} classes",
                got=f"{labels[outside[0]]} at index {outside[0]}",
                do="number the classes from 0 in the order of their names",
            )

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: slice | NDArray[np.integer[Any]] | NDArray[np.bool_]) -> Images:
        return Images(self.pixels[index], self.labels[index], self.class_names, self.name)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        channels, height, width = self.pixels.shape[1:]
        return channels, height, width

    def split(self, count: int) -> tuple[Images, Images]:
        """Return the first count images and the rest, in order and without a copy.

        Args:
            count: 0 to len(self).

        Raises:
            UserError: when count is out of range.
        """
        if not 0 <= count <= len(self):
            raise UserError(
                f"can't split {self.name}", got=count, do=f"give 0 to {len(self)} images"
            )
        return self[:count], self[count:]

    @cached_property
    def sha256(self) -> str:
        """The SHA-256, in hex, of the pixels, the labels, their shape and the class names."""
        header = json.dumps([self.pixels.shape, self.class_names]).encode()
        labels = self.labels.astype("<i8")
        return sha256(header, np.ascontiguousarray(self.pixels).reshape(-1).data, labels.data)


def _is_array(value: object, dtype: type[np.generic], ndim: int) -> bool:
    return isinstance(value, np.ndarray) and value.dtype == dtype and value.ndim == ndim


def _described(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{list(value.shape)}"
    return type(value).__name__
