"""The logits in a model's output, one row an image, whatever they are wrapped in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unmask.errors import UserError


def as_logits(answer: Any, images: int, classes: int | None) -> tuple[Tensor, bool]:
    """Return the logits in a model's output, float32[images, classes].

    Args:
        answer: a tensor or array [images, classes]; a mapping with "logits", or with a single entry
            of that shape; a tuple likewise; one logit an image for two classes; or classes alone,
            int[images], which become logits of 1 and 0.
        images: how many images went in.
        classes: how many classes there are, None where that isn't known.

    Returns:
        The logits, and whether the output was classes alone.

    Raises:
        UserError: when it isn't clear what the logits are.
    """
    tensor = only_tensor(answer, images, classes)
    shape = tuple(tensor.shape)
    if len(shape) > 2 and shape[0] == images and all(s == 1 for s in shape[2:]):
        tensor = tensor.flatten(1)
    single_value = tensor.ndim >= 1 and tensor.numel() == images == len(tensor)
    if single_value and not tensor.is_floating_point():
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
    if single_value and classes in (None, 2):
        single = tensor.reshape(images).float()
        return torch.stack([torch.zeros_like(single), single], 1), False
    if (
        tensor.ndim != 2
        or tensor.shape[0] != images
        or (classes is not None and tensor.shape[1] != classes)
    ):
        wanted = "logits" if classes is None else f"{classes} logits"
        raise UserError(
            f"the model must return {wanted} an image, one for each class",
            got=f"a tensor of shape {list(answer.shape if hasattr(answer, 'shape') else shape)} "
            f"for {images} images",
            do="give the images that it was trained on, of all its classes",
        )
    return tensor.float(), False


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
    if isinstance(getattr(answer, "logits", None), Tensor):
        logits: Tensor = answer.logits
        return logits
    if isinstance(answer, Mapping) and isinstance(answer.get("logits"), (Tensor, np.ndarray)):
        return torch.as_tensor(answer["logits"])
    if isinstance(answer, (Mapping, tuple, list)):
        entries: Iterator[Any] = iter(answer.values() if isinstance(answer, Mapping) else answer)
        fitting = [
            torch.as_tensor(entry)
            for entry in entries
            if isinstance(entry, (Tensor, np.ndarray))
            and entry.ndim == 2
            and len(entry) == images
            and (classes is None or entry.shape[1] == classes)
        ]
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
