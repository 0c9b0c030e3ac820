"""Labelled images from a name, a folder, arrays or a DataLoader."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from unmask.data.images import Images
from unmask.data.sources import load_source, shape_for
from unmask.errors import UserError, unknown

Part = Literal["test", "validation", "train"]
PARTS = ("test", "validation", "train")
MOST_BYTES = 1 << 33


def load_data(
    source: Any,
    *,
    part: Part | None = None,
    size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    class_names: Sequence[str] | None = None,
    count: int | None = None,
) -> Images:
    """Return labelled images in memory.

    Args:
        source: "mnist" or "cifar10"; a folder or zip archive with a folder for each class; Images;
            a pair of arrays or tensors (images, labels); or an iterable of such batches, such as a
            DataLoader. Images are [n, c, h, w], [n, h, w, c] or [n, h, w], uint8 or float in [0,
            1], which is rounded to 8 bits. Labels are whole numbers from 0.
        part: "test", "validation" or "train" of a name or folder; by default the first of these
            that exists.
        size: the height and width at which to read a folder's images, or one number for both; by
            default that of the images, up to 64 pixels.
        channels: 1 or 3, for a folder's images; by default 1 where all are grey, else 3.
        class_names: of arrays and batches; "0", "1", ... by default.
        count: take at most so many images of arrays and batches, in order; by default all.

    Returns:
        The images, uint8[n, c, h, w], their labels and the names of their classes.

    Raises:
        UserError: when there are no such images, they have another shape or range, or an option
            doesn't go with the source.

    Example:
        >>> pixels = np.zeros((4, 1, 8, 8), np.uint8)
        >>> len(unmask.load_data((pixels, np.array([0, 1, 0, 1]))))
        4
    """
    if part is not None and part not in PARTS:
        raise unknown("part", part, PARTS)
    if isinstance(source, Images):
        return source
    if isinstance(source, (str, Path)):
        return _named(str(source), part, size, channels)
    if part is not None or size is not None or channels is not None:
        raise UserError(
            "part, size and channels are for a name or a folder", got=type(source).__name__
        )
    if isinstance(source, (tuple, list)) and len(source) == 2 and _is_array(source[0]):
        return _images(_array(source[0]), _array(source[1]), class_names, count)
    if not isinstance(source, Iterable) and hasattr(source, "__getitem__"):
        # A data set of torch may have a length and places alone.
        source = map(source.__getitem__, range(len(source)))
    if not isinstance(source, Iterable):
        raise UserError(
            "this holds no labelled images",
            got=type(source).__name__,
            do="give a named set, a folder, a pair (images, labels), or a loader of such pairs",
        )
    return _batches(source, class_names, count)


def load_for(source: Any, shape: tuple[int, int, int] | None, channels: int | None) -> Images:
    """Return labelled images to test a model with, a folder's read as the model takes them.

    Args:
        source: as load_data takes it.
        shape: channels, height and width that the model states, None where it states none.
        channels: that it takes, where it states no shape.

    Raises:
        UserError: as load_data does.
    """
    if not isinstance(source, (str, Path)):
        return load_data(source)
    return load_source(str(source), shape=shape_for(str(source), shape, channels=channels)).tested


def load_training(source: Any) -> Images:
    """Return the images to train on: of a name or a folder those for training.

    Args:
        source: as load_data takes it.
    """
    return load_data(source, part="train" if isinstance(source, (str, Path)) else None)


def load_beside(source: Any, images: Images) -> Images:
    """Return further images of a training; arrays and batches have the classes of its images.

    Args:
        source: as load_data takes it.
        images: those that are trained on.
    """
    named = isinstance(source, (str, Path, Images))
    return load_data(source, class_names=None if named else images.class_names)


def _named(
    source: str, part: str | None, size: int | tuple[int, int] | None, channels: int | None
) -> Images:
    shape = shape_for(source, channels=channels, size=size)
    found = load_source(source, shape=shape)
    if part is None:
        return found.tested
    parts = {"test": found.test, "validation": found.validation, "train": found.train}
    images = parts[part]
    if images is None:
        there = [name for name, value in parts.items() if value is not None]
        raise UserError(
            f"{source} has no {part} images", got=part, do=f"choose {' or '.join(there)}"
        )
    return images


def _batches(loader: Iterable[Any], class_names: Sequence[str] | None, count: int | None) -> Images:
    images: list[NDArray[np.uint8]] = []
    labels: list[NDArray[np.int64]] = []
    taken = held = 0
    for batch in loader:
        first, second = (_array(part) for part in _pair(batch))
        if not second.ndim:
            # A data set yields one image at a time.
            first, second = first[None], second[None]
        pixels, numbers = _pixels(first), _labels(second)
        if len(pixels) != len(numbers) or (images and pixels.shape[1:] != images[0].shape[1:]):
            raise UserError(
                "the batches hold images of different shapes, or other numbers of labels",
                got=f"{list(pixels.shape)} with {len(numbers)} labels",
                do="resize them to one size in the loader",
            )
        images.append(pixels)
        labels.append(numbers)
        taken, held = taken + len(pixels), held + pixels.nbytes
        if count is not None and taken >= count:
            break
        if held > MOST_BYTES:
            raise UserError(
                "the loader's images would take too much memory",
                got=f"over {held} bytes",
                do="give count, the number of images to take",
            )
    if not images:
        raise UserError("the loader yields no batches", got="nothing")
    return _images(np.concatenate(images), np.concatenate(labels), class_names, count)


def _pair(batch: Any) -> tuple[Any, Any]:
    if isinstance(batch, dict):
        image = next(
            (batch[k] for k in ("pixel_values", "image", "images", "x") if k in batch), None
        )
        label = next((batch[k] for k in ("labels", "label", "y") if k in batch), None)
        if image is not None and label is not None:
            return image, label
    elif isinstance(batch, (tuple, list)) and len(batch) >= 2:
        return batch[0], batch[1]
    raise UserError(
        "a batch must be (images, labels), or a dictionary with images and labels",
        got=f"{type(batch).__name__}"
        + (f" with {', '.join(map(str, batch))}" if isinstance(batch, dict) else ""),
    )


def _array(values: Any) -> NDArray[Any]:
    """Return a tensor of any device, an array or a list as an array."""
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)


def _images(
    pixels: NDArray[Any],
    labels: NDArray[Any],
    class_names: Sequence[str] | None,
    count: int | None,
) -> Images:
    pixels, labels = _pixels(pixels[:count]), _labels(labels[:count])
    highest = int(labels.max()) if len(labels) else 0
    names = tuple(class_names or map(str, range(max(highest + 1, 2))))
    return Images(pixels, labels, names, "your own images")


def _pixels(images: NDArray[Any]) -> NDArray[np.uint8]:
    if images.ndim == 3:
        images = images[:, None]
    if images.ndim != 4:
        raise UserError(
            "images must be [n, channels, height, width]", got=f"{images.dtype}{list(images.shape)}"
        )
    if images.shape[1] not in (1, 3) and images.shape[3] in (1, 3):
        images = images.transpose(0, 3, 1, 2)
    if images.dtype == np.uint8:
        return np.ascontiguousarray(images)
    if images.dtype.kind not in "fc" or images.dtype.kind == "c":
        raise UserError("images must be uint8 or floating point", got=str(images.dtype))
    low, high = (float(images.min()), float(images.max())) if images.size else (0.0, 0.0)
    if not (low >= -1e-4 and high <= 1 + 1e-4):
        raise UserError(
            "pixels must lie in [0, 1], or be uint8 from 0 to 255",
            got=f"{low:.3g} to {high:.3g}",
            do="leave the normalisation to the model, see load_model's mean and std",
        )
    return np.ascontiguousarray(np.rint(np.clip(images, 0, 1) * 255).astype(np.uint8))


def _labels(labels: NDArray[Any]) -> NDArray[np.int64]:
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "iub":
        raise UserError(
            "labels must be one whole number an image, from 0",
            got=f"{labels.dtype}{list(labels.shape)}",
            do="give the index of the class, such as one_hot.argmax(1)",
        )
    return labels.astype(np.int64)


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")
