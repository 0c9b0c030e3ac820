"""The figures of a classifier on labelled images: accuracy, confusion, calibration, mistakes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from unmask.data.images import Images
from unmask.data.load import load_data, load_for
from unmask.errors import UserError, unknown
from unmask.models.given import channels_of
from unmask.models.load import load_model
from unmask.stats import wilson
from unmask.train.config import PRECISIONS, TEST_TIMES
from unmask.train.device import autocast

if TYPE_CHECKING:
    from collections.abc import Callable

_CALIBRATION_BINS = 15


@dataclass(frozen=True)
class Evaluation:
    """The figures of one model on n labelled images of k classes.

    Args:
        class_names: k names, in the order of the logits.
        confusion: int64[k, k], images by true class (row) and predicted class (column).
        loss: the mean cross-entropy.
        predictions: int64[n], the predicted classes.
        confidence: float64[n], the probability of the predicted class.
        labels: int64[n], the true classes.
        averaged: the accuracy with test-time augmentation, 0 to 1; None without.
        stamp: the provenance, in plain values.

    Raises:
        ValueError: the shapes don't fit one another.
    """

    class_names: tuple[str, ...]
    confusion: NDArray[np.int64]
    loss: float
    predictions: NDArray[np.int64]
    confidence: NDArray[np.float64]
    labels: NDArray[np.int64]
    averaged: float | None = None
    stamp: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n, k = len(self.labels), len(self.class_names)
        if (
            self.confusion.shape != (k, k)
            or not len(self.predictions) == len(self.confidence) == n
            or self.confusion.sum() != n
        ):
            raise ValueError(f"an Evaluation of {n} images and {k} classes has other shapes")

    @property
    def accuracy(self) -> float:
        """The fraction of the images whose predicted class is right, 0 to 1."""
        return float(np.trace(self.confusion) / len(self.labels))

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % confidence interval of the accuracy (Wilson, 1927)."""
        return wilson(int(np.trace(self.confusion)), len(self.labels))

    @property
    def recall(self) -> NDArray[np.float64]:
        """float64[k]: the fraction of each class's images predicted as it; NaN without any."""
        return _parts(np.diag(self.confusion), self.confusion.sum(1))

    @property
    def precision(self) -> NDArray[np.float64]:
        """float64[k]: the fraction of each class's predictions that is right; NaN without any."""
        return _parts(np.diag(self.confusion), self.confusion.sum(0))

    @property
    def f1(self) -> NDArray[np.float64]:
        """float64[k]: the harmonic mean of precision and recall; NaN without any image."""
        both = self.confusion.sum(0) + self.confusion.sum(1)
        return _parts(2 * np.diag(self.confusion), both)

    @property
    def macro_f1(self) -> float:
        """The mean F1 over the classes that have an image or a prediction."""
        return float(np.nanmean(self.f1))

    @property
    def calibration(self) -> list[tuple[float, float, int]]:
        """Mean confidence, accuracy and image count of each of 15 bins of confidence with any."""
        place = np.minimum((self.confidence * _CALIBRATION_BINS).astype(int), _CALIBRATION_BINS - 1)
        right = self.predictions == self.labels
        bins = (place == b for b in range(_CALIBRATION_BINS))
        return [
            (float(self.confidence[b].mean()), float(right[b].mean()), int(b.sum()))
            for b in bins
            if b.any()
        ]

    @property
    def calibration_error(self) -> float:
        """The expected calibration error over 15 bins (Guo et al., 2017), 0 to 1."""
        gaps = sum(n * abs(sure - right) for sure, right, n in self.calibration)
        return gaps / len(self.labels)

    def worst(self, count: int) -> NDArray[np.int64]:
        """Return the indices of the most confident mistakes, int64[m], the most confident first.

        Args:
            count: how many at most.
        """
        wrong = np.flatnonzero(self.predictions != self.labels)
        return wrong[np.argsort(-self.confidence[wrong], kind="stable")][:count]

    def as_dict(self) -> dict[str, Any]:
        """Return the figures as plain values, None where there is none."""

        def plain(values: NDArray[np.float64]) -> list[float | None]:
            return [None if math.isnan(v) else float(v) for v in values]

        return {
            "accuracy": self.accuracy,
            "accuracy_interval_95": list(self.interval),
            "averaged_accuracy": self.averaged,
            "macro_f1": self.macro_f1,
            "loss": self.loss,
            "pictures": len(self.labels),
            "calibration_error": self.calibration_error,
            "class_names": list(self.class_names),
            "recall": plain(self.recall),
            "precision": plain(self.precision),
            "f1": plain(self.f1),
            "confusion": self.confusion.tolist(),
            "stamp": self.stamp,
        }


def evaluate(
    model: nn.Module | str | Path,
    images: Any,
    *,
    test_time: str = "none",
    device: torch.device | None = None,
    precision: str = "fp32",
    stamp: dict[str, Any] | None = None,
) -> Evaluation:
    """Return the figures of a model on labelled images.

    Args:
        model: takes pixels in [0, 1], float[b, c, h, w], to logits; or what load_model takes.
        images: at least one, with the model's classes: Images, or what load_data takes, a folder
            read at the model's own size.
        test_time: "flip" or "flip_shift" measures the accuracy with test-time augmentation too.
        device: where the images go, by default that of the model's parameters.
        precision: auto, bf16 or fp32.
        stamp: the provenance, in plain values.

    Raises:
        UserError: there are no images, the model has another number of classes, or its logits are
            NaN or infinite.

    Example:
        >>> found = unmask.evaluate("mnist", unmask.load_data("mnist"))
        >>> found.accuracy > 0.95
        True
    """
    for kind, name, known in (
        ("test-time augmentation", test_time, TEST_TIMES),
        ("precision", precision, PRECISIONS),
    ):
        if name not in known:
            raise unknown(kind, name, known)
    if isinstance(model, (str, Path)):
        model = load_model(model)
    if not isinstance(model, nn.Module):
        raise UserError(
            "a model must be a torch.nn.Module, or what load_model takes",
            got=type(model).__name__,
            do="put the function into the forward of a module",
        )
    names = getattr(model, "class_names", None)
    if isinstance(images, (str, Path)):
        images = load_for(images, getattr(model, "input_shape", None), channels_of(model))
        images = images if names is None else matched(images, names)
    elif not isinstance(images, Images):
        images = load_data(images, class_names=names)
    single = logits_of(model, images, device=device, precision=precision)
    averaged = None
    if test_time != "none":
        views = logits_of(model, images, test_time=test_time, device=device, precision=precision)
        averaged = accuracy(views, torch.from_numpy(images.labels))
    return evaluation_of(single, images, averaged=averaged, stamp=stamp)


def evaluation_of(
    logits: Tensor,
    images: Images,
    *,
    averaged: float | None = None,
    stamp: dict[str, Any] | None = None,
) -> Evaluation:
    """Return the figures of a model's logits.

    Args:
        logits: float[n, classes], on the CPU.
        images: the n images.
        averaged: the accuracy with test-time augmentation, None without.
        stamp: the provenance, in plain values.

    Raises:
        UserError: logits predict no class, being NaN or infinite.
    """
    probabilities = logits.double().softmax(1)
    confidence, predictions = probabilities.max(1)
    if bad := int(confidence.isnan().sum()):
        raise UserError(
            "the model's logits are not finite",
            got=f"NaN or infinity for {bad:,} of {len(logits):,} images",
            do="check its weights; unmask check says more",
        )
    k = len(images.class_names)
    confusion = np.zeros((k, k), np.int64)
    np.add.at(confusion, (images.labels, predictions.numpy()), 1)
    return Evaluation(
        class_names=images.class_names,
        confusion=confusion,
        loss=float(functional.cross_entropy(logits.double(), torch.from_numpy(images.labels))),
        predictions=predictions.numpy(),
        confidence=confidence.numpy(),
        labels=images.labels,
        averaged=averaged,
        stamp=stamp or {},
    )


@torch.no_grad()
def logits_of(
    model: nn.Module,
    images: Images,
    *,
    test_time: str = "none",
    device: torch.device | None = None,
    precision: str = "fp32",
    batch_size: int = 500,
) -> Tensor:
    """Return the mean logits over the views that test_time names, float32[n, classes] on the CPU.

    The model runs in eval mode, and its own mode is restored.

    Args:
        model: takes pixels in [0, 1], float[b, c, h, w], to logits; or what load_model takes.
        images: at least one, with the model's classes: Images, or what load_data takes, a folder
            read at the model's own size.
        test_time: "none", "flip" or "flip_shift".
        device: where the images go, by default that of the model's parameters.
        precision: auto, bf16 or fp32.
        batch_size: images a forward pass.

    Raises:
        UserError: there are no images, or the model has another number of classes.
    """
    if not len(images):
        raise UserError("there are no images to evaluate", got=images.name)
    device = device or next((p.device for p in model.parameters()), torch.device("cpu"))
    training = model.training
    model.eval()
    try:
        pixels = torch.from_numpy(images.pixels)
        with autocast(device, precision):
            logits = torch.cat(
                [
                    _averaged(model, chunk.to(device).float().div_(255), test_time).float().cpu()
                    for chunk in torch.split(pixels, batch_size)
                ]
            )
    finally:
        model.train(training)
    if logits.shape[1:] != (len(images.class_names),):
        raise UserError(
            f"the model doesn't tell the {len(images.class_names)} classes of {images.name} apart",
            got=f"logits of shape {list(logits.shape[1:])}",
            do="give images with the model's classes",
        )
    return logits


def matched(images: Images, class_names: tuple[str, ...]) -> Images:
    """Return the images with their labels numbered as in class_names.

    Args:
        images: labelled with some of these classes, or with their numbers from 0.
        class_names: of the model, in the order of its logits.

    Raises:
        UserError: the images have a class that isn't among them.
    """
    strange = sorted(set(images.class_names) - set(class_names))
    if strange and all(_is_place(name, len(class_names)) for name in images.class_names):
        places = np.array([int(name) for name in images.class_names])
        return Images(images.pixels, places[images.labels], class_names, images.name)
    if strange:
        raise UserError(
            f"{images.name} has classes that the model doesn't know",
            got=", ".join(strange[:5]),
            do=f"name the folders after the model's classes: {', '.join(class_names[:12])}",
        )
    places = np.array([class_names.index(name) for name in images.class_names])
    return Images(images.pixels, places[images.labels], class_names, images.name)


def _is_place(name: str, count: int) -> bool:
    return name.isascii() and name.isdigit() and int(name[:20]) < count


def counted(images: Images, logits: int) -> Images:
    """Return the images with as many classes as a model has logits.

    Args:
        images: with classes that have names, or only numbers; numbers are those of the model, and
            may be fewer.
        logits: how many the model has.

    Raises:
        UserError: the classes have names and another number, so that their order isn't known.
    """
    names = images.class_names
    if len(names) == logits:
        return images
    if len(names) < logits and names == tuple(map(str, range(len(names)))):
        return Images(images.pixels, images.labels, tuple(map(str, range(logits))), images.name)
    told = "2 classes apart, by one logit" if logits == 1 else f"{logits} classes apart"
    raise UserError(
        f"the model tells {told}",
        got=f"images of {len(names)}: {', '.join(names[:5])}{', ...' * (len(names) > 5)}",
        do="give images of each of the model's classes",
    )


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Return the fraction of the labels that are the largest logit, 0 to 1.

    Args:
        logits: float[n, classes].
        labels: int64[n].
    """
    return float((logits.argmax(1) == labels).double().mean())


def _averaged(model: Callable[[Tensor], Tensor], pictures: Tensor, test_time: str) -> Tensor:
    pictures = pictures.contiguous(memory_format=torch.channels_last)
    if test_time == "none":
        return model(pictures)
    views = [pictures]
    if test_time == "flip_shift":
        height, width = pictures.shape[2:]
        padded = functional.pad(pictures, (1, 1, 1, 1), mode="reflect")
        views += [padded[:, :, d : d + height, d : d + width] for d in (0, 2)]
    total = sum(model(v) + model(v.flip(3)) for v in views)
    return total / (2 * len(views))  # type: ignore[return-value]


def _parts(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    parts: NDArray[np.float64] = np.full(len(whole), np.nan)
    return np.divide(part, whole, out=parts, where=whole > 0)
