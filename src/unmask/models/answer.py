"""The logits in a model's output, one row an image, whatever they are wrapped in or scaled to."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from unmask.errors import UserError

Scale = Literal["logits", "probabilities", "percentages", "sigmoids", "sigmoid"]
# From so many images on, numbers that all lie between 0 and 1 are no logits by chance.
ENOUGH = 8
_SUM = 1e-3
_LEAST_PROBABILITY = 1e-12
# The last numbers below 1 in single precision are 6e-8 apart.
_EDGE = 1e-7


def scale_of(rows: Tensor) -> Scale:
    """Return what a model's outputs are, judged by their values alone.

    Args:
        rows: float[n, classes], as as_logits returns them; of a single number an image, the first
            column is 0.

    Returns:
        "probabilities" or "percentages" for rows that add up to 1 or 100; "sigmoids" for ENOUGH
        rows or more between 0 and 1 that don't; "sigmoid" for ENOUGH single numbers between 0 and 1
        on both sides of a half; else "logits".
    """
    rows = rows.detach().double()
    if rows.shape[1] < 2 or not len(rows) or not bool(((rows >= 0) & (rows <= 100 + _SUM)).all()):
        return "logits"
    sums = rows.sum(1)
    single = rows.shape[1] == 2 and not bool(rows[:, 0].any())
    if not single and bool(((sums - 1).abs() < _SUM).all()):
        return "probabilities"
    if not single and bool(((sums - 100).abs() < 100 * _SUM).all()):
        return "percentages"
    between = len(rows) >= ENOUGH and bool((rows <= 1).all())
    if not between or not float(rows.min(0).values[-1]) < 0.5 < float(rows.max()):
        return "logits"
    return "sigmoid" if single else "sigmoids"


def unscaled(rows: Tensor, scale: Scale) -> Tensor:
    """Return logits for outputs of a scale: logarithms of probabilities, and of odds.

    Args:
        rows: float[n, classes], as as_logits returns them.
        scale: of their values.
    """
    if scale == "percentages":
        rows, scale = rows / 100, "probabilities"
    if scale == "probabilities":
        return rows.clamp_min(_LEAST_PROBABILITY).log()
    if scale == "sigmoids":
        return rows.logit(_EDGE)
    if scale == "sigmoid":
        return torch.stack([rows[:, 0], rows[:, 1].logit(_EDGE)], 1)
    return rows


def as_logits(
    answer: Any, images: int, classes: int | None, *, likely: int | None = None
) -> tuple[Tensor, bool]:
    """Return the logits in a model's output, float32[images, classes].

    Args:
        answer: a tensor or array [images, classes]; a mapping with "logits", or with a single entry
            of that shape; a tuple likewise; one logit an image for two classes; or classes alone,
            whole numbers of any type [images], which become logits of 1 and 0.
        images: how many images went in.
        classes: how many classes there are, None where that isn't known.
        likely: how many there probably are, which only decides what several outputs, or one number
            an image, are.

    Returns:
        The logits, and whether the output was classes alone.

    Raises:
        UserError: when it isn't clear what the logits are.
    """
    likely = likely if classes is None else classes
    tensor = only_tensor(answer, images, likely)
    if tensor.is_complex():
        raise UserError(
            "the model's logits are complex numbers", got=str(tensor.dtype), do="return real ones"
        )
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    if images == 1 and tensor.ndim == 1 and len(tensor) > 1:
        # A squeeze takes the batch of one image away too.
        tensor = tensor[None]
    shape = tuple(tensor.shape)
    if len(shape) > 2 and shape[0] == images and all(s == 1 for s in shape[2:]):
        tensor = tensor.flatten(1)
    single_value = tensor.ndim >= 1 and tensor.numel() == images == len(tensor)
    if single_value and (not tensor.is_floating_point() or _classes_alone(tensor, likely)):
        classes = likely
        if classes is None:
            raise UserError(
                "a model that gives the class alone doesn't say how many there are",
                got=f"{str(tensor.dtype).removeprefix('torch.')}{list(shape)}",
                do="say how many classes there are",
            )
        labels = tensor.reshape(images).long()
        if bool((labels < 0).any()) or bool((labels >= classes).any()):
            raise UserError(
                f"the model gives classes outside 0 to {classes - 1}",
                got=f"{int(labels.min())} to {int(labels.max())}",
                do="give the images that it was trained on",
            )
        return torch.nn.functional.one_hot(labels, classes).float(), True
    if single_value and likely in (None, 1, 2):
        single = tensor.reshape(images).float()
        return torch.stack([torch.zeros_like(single), single], 1), False
    if (
        tensor.ndim != 2
        or tensor.shape[0] != images
        or (classes is not None and tensor.shape[1] != classes)
    ):
        wanted = "logits" if likely is None else f"{likely} logits"
        raise UserError(
            f"the model must return {wanted} an image, one for each class",
            got=f"a tensor of shape {list(getattr(answer, 'shape', shape))} for {images} images",
            do="give the images that it was trained on, of all its classes",
        )
    return tensor.float(), False


def _classes_alone(tensor: Tensor, classes: int | None) -> bool:
    """Return whether one floating-point number an image is the place of a class."""
    if classes is None or classes <= 2 or not len(tensor):
        return False
    return bool(((tensor == tensor.round()) & (tensor >= 0) & (tensor < classes)).all())


def only_tensor(answer: Any, images: int, classes: int | None) -> Tensor:
    """Return the only tensor of a model's output that can be the logits.

    Args:
        answer: the output, see as_logits.
        images: how many images went in.
        classes: how many classes there are, None where that isn't known.

    Raises:
        UserError: there is none, or more than one.
    """
    if isinstance(answer, Tensor):
        return answer
    if isinstance(answer, np.ndarray):
        return torch.from_numpy(answer)
    if isinstance(answer, list) and answer and not isinstance(answer[0], (Tensor, np.ndarray)):
        # What came over a network, such as [[0.1, 0.9], [0.7, 0.3]].
        with contextlib.suppress(TypeError, ValueError):
            return torch.tensor(answer)
    if isinstance(getattr(answer, "logits", None), Tensor):
        logits: Tensor = answer.logits
        return logits
    if isinstance(answer, Mapping) and isinstance(answer.get("logits"), (Tensor, np.ndarray)):
        return torch.as_tensor(answer["logits"])
    if isinstance(answer, (Mapping, tuple, list)):
        entries: Iterator[Any] = iter(answer.values() if isinstance(answer, Mapping) else answer)
        rows = [
            torch.as_tensor(entry)
            for entry in entries
            if isinstance(entry, (Tensor, np.ndarray)) and entry.ndim == 2 and len(entry) == images
        ]
        fitting = [r for r in rows if classes is None or r.shape[1] == classes]
        if len(rows) == 1:
            # Of another width, it is the only one that there is something to say about.
            fitting = rows
        if len(fitting) == 1:
            return fitting[0]
        told = list(answer) if isinstance(answer, Mapping) else f"a {type(answer).__name__}"
        raise UserError(
            "it isn't clear which of the model's outputs are the logits",
            got=f"{told}, {len(fitting)} of them of the right shape",
            do="wrap it in a module that returns the logits alone",
        )
    raise UserError(
        "the model must return one tensor of logits",
        got=f"a {type(answer).__name__}",
        do="wrap it in a module that returns the logits alone",
    )
