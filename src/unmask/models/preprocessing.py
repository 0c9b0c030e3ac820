"""The preprocessing that a network needs, and the logits in its output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from unmask.errors import UserError
from unmask.models.answer import ENOUGH, Scale, only_tensor, scale_of, unscaled
from unmask.models.given import dtype_of, handed

Interpolation = Literal["nearest", "bilinear", "bicubic"]


@dataclass(frozen=True)
class Preprocessing:
    """The steps from pixels in [0, 1], RGB or grey, to what a network takes.

    Args:
        size: height and width that it takes, None for any.
        crop: the central fraction of each side, in (0, 1], that is kept of images of another size.
        interpolation: how these are resized.
        scale: what pixels are multiplied by first, 255 for networks of bytes.
        mean: one number a channel, subtracted after the scale.
        std: one positive number a channel, the divisor.
        order: of the channels.

    Raises:
        UserError: a value is out of its range.
    """

    size: tuple[int, int] | None = None
    crop: float = 1.0
    interpolation: Interpolation = "bilinear"
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    order: Literal["RGB", "BGR"] = "RGB"

    def __post_init__(self) -> None:
        for name, got, good in (
            ("crop", self.crop, 0 < self.crop <= 1),
            ("scale", self.scale, self.scale > 0),
            ("std", self.std, bool(self.std) and all(s > 0 for s in self.std)),
            ("mean", self.mean, len(self.mean) == len(self.std)),
            ("size", self.size, self.size is None or _is_size(self.size)),
            ("interpolation", self.interpolation, self.interpolation in _MODES),
        ):
            if not good:
                raise UserError(f"the preprocessing's {name} isn't usable", got=got)

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return the network's input for pixels, float[b, c, h, w] in [0, 1].

        Images of the network's size are neither resized nor cropped. The gradient passes.
        """
        images = pixels
        if self.size is not None and tuple(images.shape[2:]) != self.size:
            images = self._resized(images, self.size)
        if self.order == "BGR":
            images = images.flip(1)
        if self.scale != 1:
            images = images * self.scale
        if any(self.mean) or any(s != 1 for s in self.std):
            if len(self.mean) not in (1, images.shape[1]):
                raise UserError(
                    f"the preprocessing's mean and std are of {len(self.mean)} channels",
                    got=f"images of {images.shape[1]}",
                    do="give one number, or one for each channel",
                )
            mean, std = (images.new_tensor(v)[:, None, None] for v in (self.mean, self.std))
            images = (images - mean) / std
        return images

    def _resized(self, images: Tensor, size: tuple[int, int]) -> Tensor:
        height, width = images.shape[2:]
        # The shorter side decides, as in the usual resize and centre crop.
        by = max(size[0] / height, size[1] / width) / self.crop
        target = [max(round(height * by), size[0]), max(round(width * by), size[1])]
        smooth = self.interpolation != "nearest"
        images = functional.interpolate(
            images,
            target,
            mode=self.interpolation,
            antialias=smooth,
            **({"align_corners": False} if smooth else {}),
        )
        top, left = (target[0] - size[0]) // 2, (target[1] - size[1]) // 2
        return images[:, :, top : top + size[0], left : left + size[1]]

    def __str__(self) -> str:
        parts = [f"pixels in {self.order if len(self.mean) == 3 else 'grey or as they come'}"]
        if self.size is not None:
            cropped = "" if self.crop == 1 else f", central {self.crop:.1%} kept"
            parts.append(f"{self.size[0]} x {self.size[1]} ({self.interpolation}{cropped})")
        parts.append(f"0 to {self.scale:g}")
        if any(self.mean) or any(s != 1 for s in self.std):
            parts.append(f"mean {_numbers(self.mean)}, std {_numbers(self.std)}")
        return ", ".join(parts)


_MODES = ("nearest", "bilinear", "bicubic")


def _is_size(size: object) -> bool:
    pair = isinstance(size, (tuple, list)) and len(size) == 2
    return pair and all(isinstance(s, int) and s > 0 for s in size)  # type: ignore[attr-defined]


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{v:.4g}" for v in values)


def logits_in(answer: Any, classes: int | None = None) -> Tensor:
    """Return the logits in a network's output, float[b, classes].

    Args:
        answer: a tensor; a dictionary or a transformers ModelOutput with the entry "logits"; or a
            tuple or list in which one tensor has two dimensions. One number an image is the logit
            of the second of two classes, whose first is 0.
        classes: how many there are, where that is known, which decides between several.

    Raises:
        UserError: nothing in it is clearly a row of numbers for each image.
    """
    found = _tensor_in(answer, classes)
    if found is not None and found.ndim == 4 and found.shape[2:] == (1, 1):
        found = found[:, :, 0, 0]
    if found is not None and found.ndim == 1:
        found = found[:, None]
    if (
        found is not None
        and found.ndim == 2
        and found.shape[1] == 1
        and not found.is_floating_point()
    ):
        raise UserError(
            "the model gives the class alone, and this needs logits",
            got=f"{str(found.dtype).removeprefix('torch.')}{list(found.shape)}",
            do="leave its last argmax out",
        )
    if found is None or found.ndim != 2:
        what = type(answer).__name__ if found is None else f"a tensor of {list(found.shape)}"
        raise UserError(
            "the model gives no row of logits for each image",
            got=what,
            do="wrap it in a module that returns the logits alone, [b, classes]",
        )
    if found.shape[1] == 1:
        return torch.cat([torch.zeros_like(found), found], 1)
    return found


def _tensor_in(answer: Any, classes: int | None) -> Tensor | None:
    if isinstance(answer, Tensor):
        return answer
    if isinstance(getattr(answer, "logits", None), Tensor):
        return answer.logits  # type: ignore[no-any-return]
    entries = answer.values() if isinstance(answer, Mapping) else answer
    if not isinstance(answer, (Mapping, tuple, list)):
        return None
    if isinstance(answer, Mapping) and isinstance(answer.get("logits"), Tensor):
        return answer["logits"]  # type: ignore[no-any-return]
    tensors = [value for value in entries if isinstance(value, Tensor)]
    rows = [t for t in tensors if t.ndim == 2]
    if len({t.shape[1] for t in rows}) > 1:
        # Features beside logits: which is which, the width alone tells.
        return only_tensor(answer, len(rows[0]), classes)
    # Heads of one width, of which the first is the main one.
    return rows[0] if rows else tensors[0] if tensors else None


class Wrapped(nn.Module):
    """A network with its preprocessing before it, that takes pixels in [0, 1] to logits.

    Args:
        network: as it came.
        name: for messages and the card.
        kind: where it is from, such as "timm" or "ONNX".
        preprocessing: what is done to an image; None for nothing.
        class_names: in the order of the logits, None where they aren't known.
        input_shape: channels, height and width, None where they aren't known.
        differentiable: whether gradients pass.
        stated: whether a config states the preprocessing; otherwise pixels go in as they come.

    Attributes:
        likely: how many classes there probably are, where they have no names, which decides what
            of several outputs the logits are.
        scale: of the network's outputs, None before the first images. Those that aren't logits are
            turned into them.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        name: str,
        kind: str,
        preprocessing: Preprocessing | None = None,
        class_names: tuple[str, ...] | None = None,
        input_shape: tuple[int, int, int] | None = None,
        differentiable: bool = True,
        stated: bool = True,
    ) -> None:
        super().__init__()
        self.network = network
        self.name, self.kind = name, kind
        self.preprocessing = preprocessing or Preprocessing()
        self.class_names, self.input_shape = class_names, input_shape
        self.differentiable, self.stated = differentiable, stated
        self.scale: Scale | None = None
        self.likely: int | None = None

    @property
    def gives_probabilities(self) -> bool | None:
        """Whether the network's outputs are probabilities, None before the first images."""
        return None if self.scale is None else self.scale != "logits"

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits [b, classes] of pixels [b, c, h, w] in [0, 1]."""
        taken = handed(self.preprocessing(pixels), dtype_of(self.network))
        classes = self.likely if self.class_names is None else len(self.class_names)
        logits = logits_in(self.network(taken), classes)
        logits = logits if logits.dtype == pixels.dtype else logits.to(pixels.dtype)
        if self.scale is None and len(logits):
            scale = scale_of(logits)
            # A few numbers between 0 and 1 may be anything.
            if scale != "logits" or logits.shape[1] > 2 or len(logits) >= ENOUGH:
                self.scale = scale
        return unscaled(logits, self.scale or "logits")

    def describe(self) -> str:
        """Return in one line what the model is and what is done to an image."""
        classes = "" if self.class_names is None else f"; {len(self.class_names)} classes"
        softmax = f"; {self.scale}, of which the logits are used" * bool(self.gives_probabilities)
        assumed = "" if self.stated else ", since no config says otherwise"
        return f"{self.name} ({self.kind}): {self.preprocessing}{assumed}{classes}{softmax}"
