"""A classifier under attack: pixels in [0, 1] to logits, with every image counted."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unmask.errors import UserError
from unmask.fool.goal import Goal
from unmask.fool.steps import ThroughSteps
from unmask.models.answer import Scale, as_logits, scale_of, unscaled
from unmask.models.classifier import Classifier
from unmask.models.given import channels_of, dtype_of, handed, identity_of
from unmask.models.preprocessing import Wrapped

Loss = Callable[[Tensor, Goal], Tensor]
"""Logits float[b, classes] and their goal to one value an image, float[b], small when reached."""

_BATCH = 256
# Of a few images as many as of noise; how often the ends of the visible range are bisected, and the
# part of it that gradients keep from its ends, where that of a clamp is zero.
_FEW, _BISECTIONS, _INSET = 16, 20, 1e-4
_FIRST, _NARROW = 1 / 64, 1e-3


@dataclass(frozen=True)
class Cost:
    """The number of images that went forward through a classifier, and backward.

    Args:
        forwards: images in forward passes.
        backwards: images in backward passes.
    """

    forwards: int = 0
    backwards: int = 0

    def __sub__(self, other: Cost) -> Cost:
        return Cost(self.forwards - other.forwards, self.backwards - other.backwards)


@dataclass(frozen=True)
class Preprocessing:
    """The preprocessing that a model expects of pixels in [0, 1].

    Args:
        mean: one number a channel, subtracted; () for none.
        std: one number a channel, divided by; () for none.
        bgr: whether the channels come in the order blue, green, red.
        scale: the factor that pixels are multiplied by first, such as 255.
    """

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    bgr: bool = False
    scale: float = 1.0

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return pixels float[b, c, h, w], preprocessed for the model."""
        if self.bgr:
            pixels = pixels.flip(1)
        if self.scale != 1:
            pixels = pixels * self.scale
        if self.mean:
            pixels = pixels - _by_channel(self.mean, pixels)
        if self.std:
            pixels = pixels / _by_channel(self.std, pixels)
        return pixels

    def __str__(self) -> str:
        told = ["channels in the order BGR"] if self.bgr else []
        told += [f"pixels in 0 to {self.scale:g}"] if self.scale != 1 else []
        if self.mean or self.std:
            told.append(f"mean {_numbers(self.mean)} and std {_numbers(self.std)}")
        return " and ".join(told) or "pixels in [0, 1]"


class Victim:
    """A function from pixels in [0, 1], float32[b, c, h, w], to logits, float[b, classes].

    The model is used as it is: nothing here switches its mode or freezes it.

    Args:
        function: the model under attack. Its output may be a tensor [b, classes], an array, a
            mapping or a tuple in which one entry is clearly the logits, one logit an image [b] or
            [b, 1] of two classes, or the class alone, int[b]; see as_logits.
        classes: how many there are; None to find out from the first output.
        batch: the batch size, which bounds memory.
        differentiable: whether it has gradients; a black box gives its outputs alone.
        device: where pixels must be.
        name: of the model in reports.
        kind: "Unmask's", "PyTorch" or "ONNX".
        module: the network, None for a black box.
        class_names: None where the model doesn't name them.
        input_shape: channels, height, width; None where the model doesn't state it.
        identity: the SHA-256 of its weights or file.
        made_from: the import path of its module, the content of its ONNX file, or None. An executor
            sends it to other processes as that and its weights (safetensors).
        preprocessing: applied to pixels before function.
    """

    def __init__(
        self,
        function: Callable[[Tensor], Any],
        *,
        classes: int | None = None,
        batch: int = _BATCH,
        differentiable: bool = True,
        device: torch.device | str = "cpu",
        name: str = "model",
        kind: str = "PyTorch",
        module: nn.Module | None = None,
        class_names: Sequence[str] | None = None,
        input_shape: tuple[int, int, int] | None = None,
        identity: str = "",
        made_from: str | bytes | None = None,
        preprocessing: Preprocessing | None = None,
    ) -> None:
        self.function = function
        self.batch = batch
        self.differentiable = differentiable
        self.device = torch.device(device)
        self.name = name
        self.kind = kind
        self.module = module
        self.class_names = None if class_names is None else tuple(class_names)
        self.input_shape = input_shape
        self.identity = identity
        self.made_from = made_from
        self.preprocessing = preprocessing
        self.labels_only = False
        self.dtype = None if module is None else dtype_of(module)
        self.scale: Scale = "logits"
        self.likely: int | None = None
        # Pixel values beyond it are all the same to the model; gradients pass its steps; see look.
        self.visible: tuple[float, float] | None = None
        self.through_steps = False
        self.gradients_not_finite = 0
        self._classes = classes if classes is not None or not class_names else len(class_names)
        self._forwards = 0
        self._backwards = 0

    @staticmethod
    def of(
        model: nn.Module | Callable[[Tensor], Any],
        name: str = "model",
        *,
        kind: str = "PyTorch",
        preprocessing: Preprocessing | None = None,
        batch: int = _BATCH,
    ) -> Victim:
        """Return a network or any other function, unchanged, as a victim.

        Args:
            model: an nn.Module, whose mode and weights aren't changed, or a function of pixels,
                which is treated as a black box.
            name: of the model in reports.
            kind: "Unmask's" or "PyTorch".
            preprocessing: that the model expects of pixels in [0, 1].
            batch: the batch size.
        """
        if not isinstance(model, nn.Module):
            return Victim(
                model, differentiable=False, name=name, kind=kind, preprocessing=preprocessing
            )
        card = model.card if isinstance(model, Classifier) else None
        told = card or (model if isinstance(model, Wrapped) else None)
        parameters = next(model.parameters(), None)
        return Victim(
            model,
            batch=batch,
            device=parameters.device if parameters is not None else "cpu",
            name=name,
            kind=kind,
            module=model,
            class_names=told.class_names if told else None,
            input_shape=told.input_shape if told else None,
            identity=identity_of(model),
            preprocessing=preprocessing,
        )

    @property
    def classes(self) -> int:
        """The number of classes.

        Raises:
            UserError: when it isn't known before the first forward pass.
        """
        if self._classes is None:
            raise UserError(
                "it isn't known how many classes the model has",
                got=self.name,
                do="give it an image first, or say how many",
            )
        return self._classes

    @property
    def channels(self) -> int | None:
        """The channels of the images that it takes, None where they aren't known."""
        if self.input_shape is not None or self.module is None:
            return None if self.input_shape is None else self.input_shape[0]
        return channels_of(self.module)

    @property
    def cost(self) -> Cost:
        """The number of images that went through the model so far."""
        return Cost(self._forwards, self._backwards)

    def fresh(self, classes: int | None = None) -> Victim:
        """Return a copy whose cost is 0 and whose outputs must have this many classes.

        Args:
            classes: None keeps the number.
        """
        other = copy.copy(self)
        other._forwards = other._backwards = 0
        other._classes = self._classes if classes is None else classes
        return other

    # An executor sends what the victim was made from; a copy in this process shares everything.
    def __copy__(self) -> Victim:
        other = object.__new__(type(self))
        vars(other).update(vars(self))
        return other

    def __reduce__(self) -> tuple[Any, ...]:
        from unmask.fool.source import travelling

        learnt = ("scale", "visible", "through_steps")
        return (*travelling(self), {name: getattr(self, name) for name in learnt})

    def look(self, pixels: Tensor) -> None:
        """Find out whether the model thresholds or rounds its input, which hides gradients.

        Beyond the range of pixel values in which the model sees a difference there is no gradient.
        It is taken at the nearest values within, which leaves every logit as it is, and passed on
        to the pixels. Where there is none at all, steps are looked for that it can be passed
        through; see ThroughSteps.

        Args:
            pixels: float32[n, c, h, w] in [0, 1]; a few of them and as much noise are looked at.
        """
        self.visible, self.through_steps = None, False
        if not self.differentiable or not len(pixels):
            return
        few = pixels[:_FEW]
        noise = torch.rand(few.shape, generator=torch.Generator().manual_seed(0)).to(few)
        seen = torch.cat([few, noise])
        logits = self.logits(seen)
        if not self.differentiable:
            return
        goal, counted = Goal(logits.argmax(1)), self.gradients_not_finite
        self.visible = self._visible(seen, logits)
        if not self.gradient(seen, goal, margin)[2].any():
            # A step has no slope within any range.
            self.visible, self.through_steps = None, True
            self.through_steps = bool(self.gradient(seen, goal, margin)[2].any())
        # Only those of the images themselves are reported.
        self.gradients_not_finite = counted

    def _visible(self, seen: Tensor, logits: Tensor) -> tuple[float, float] | None:
        """Return the range beyond which pixel values change no logit, None for all of [0, 1]."""

        def same(low: float, high: float) -> bool:
            return torch.equal(self.logits(seen.clamp(low, high)), logits)

        def end(bound: Callable[[float], tuple[float, float]]) -> float:
            """Return how far from its end of [0, 1] the range begins, by bisection."""
            least, most = 0.0, 0.5
            if not same(*bound(_FIRST)):
                return 0.0
            for _ in range(_BISECTIONS):
                middle = (least + most) / 2
                least, most = (middle, most) if same(*bound(middle)) else (least, middle)
            return least

        low, high = end(lambda by: (by, 1.0)), 1 - end(lambda by: (0.0, 1 - by))
        if not _NARROW < high - low < 1:
            return None
        inset = _INSET * (high - low)
        return low + inset, high - inset

    def settle(self, logits: Tensor) -> Tensor:
        """Learn from some outputs whether a single one is a probability, and return their logits.

        Args:
            logits: float[n, classes], as logits returned them before.
        """
        if self.scale == "logits" and not self.labels_only and scale_of(logits) == "sigmoid":
            # Of other probabilities the largest is the same as that of the logits.
            self.scale = "sigmoid"
            return unscaled(logits, self.scale)
        return logits

    def logits(self, pixels: Tensor) -> Tensor:
        """Return logits float32[n, classes] of pixels float32[n, c, h, w], without a graph."""
        self._forwards += len(pixels)
        with torch.no_grad():
            parts = [self._answer(part) for part in torch.split(pixels, self.batch) if len(part)]
        if parts:
            return torch.cat(parts)
        return torch.empty(0, self._classes or 0, device=self.device)

    def gradient(self, pixels: Tensor, goal: Goal, loss: Loss) -> tuple[Tensor, Tensor, Tensor]:
        """Return the logits, the loss, and its gradient with respect to the pixels.

        Args:
            pixels: float32[n, c, h, w] in [0, 1].
            goal: of each image.
            loss: of the logits and the goal.

        Returns:
            The logits, float[n, classes], the loss, float[n], and the gradient, float[n, c, h, w],
            in which entries that weren't finite are 0, so that they can't mislead an attack. After
            look it is that of the nearest image within the visible range.

        Raises:
            AssertionError: for a black box; an attack that needs gradients isn't run on one.
        """
        assert self.differentiable, "a black box has no gradients"
        self._forwards += len(pixels)
        self._backwards += len(pixels)
        found = []
        for start in range(0, len(pixels), self.batch):
            rows = slice(start, start + self.batch)
            part = pixels[rows].detach()
            if self.visible is not None:
                part = part.clamp(*self.visible)
            part.requires_grad_()
            with torch.enable_grad():
                with ThroughSteps() if self.through_steps else nullcontext():
                    logits = self._answer(part)
                values = loss(logits, goal[rows])
                if values.requires_grad:
                    (gradient,) = torch.autograd.grad(values.sum(), part, allow_unused=True)
                else:
                    gradient = None
            if gradient is None:
                gradient = torch.zeros_like(part)
            bad = ~gradient.flatten(1).isfinite().all(1)
            self.gradients_not_finite += int(bad.sum())
            if bad.any():
                gradient = torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)
            found.append((logits.detach(), values.detach(), gradient))
        if not found:
            empty = pixels.new_empty(0)
            return pixels.new_empty(0, self._classes or 0), empty, torch.empty_like(pixels)
        answers, losses, gradients = (list(column) for column in zip(*found, strict=True))
        return torch.cat(answers), torch.cat(losses), torch.cat(gradients)

    def _answer(self, pixels: Tensor) -> Tensor:
        wanted = pixels if self.preprocessing is None else self.preprocessing(pixels)
        output = self.function(handed(wanted, self.dtype or wanted.dtype))
        answer, labels_only = as_logits(output, len(pixels), self._classes, likely=self.likely)
        answer = unscaled(answer, self.scale)
        self._classes = answer.shape[1]
        self.labels_only = self.labels_only or labels_only
        if labels_only:
            self.differentiable = False
        return answer


def cross_entropy(logits: Tensor, goal: Goal) -> Tensor:
    """Return the cross-entropy of the target, or minus that of the true class, float[n]."""
    if goal.targets is None:
        return -torch.nn.functional.cross_entropy(logits, goal.labels, reduction="none")
    return torch.nn.functional.cross_entropy(logits, goal.targets, reduction="none")


def margin(logits: Tensor, goal: Goal) -> Tensor:
    """Return by how much the logits miss the goal, float[n]; see Goal.margin."""
    return goal.margin(logits)


def require_images(pixels: Tensor, shape: tuple[int, int, int] | None) -> None:
    """Raise UserError unless pixels are images that a model accepts.

    Args:
        pixels: to be float[n, c, h, w] in [0, 1].
        shape: the model's (c, h, w); None where it isn't known.

    Raises:
        UserError: for another shape, and naming the first image with values out of range.
    """
    if pixels.ndim != 4 or 0 in pixels.shape[1:] or not pixels.is_floating_point():
        raise UserError(
            "images must be float[n, channels, height, width]",
            got=f"{_dtype(pixels)}{list(pixels.shape)}",
            do="divide 8-bit values by 255; a grey image has one channel",
        )
    given = tuple(pixels.shape[1:])
    if shape is not None and given != shape:
        wrong = "number of channels" if given[0] != shape[0] else "size"
        raise UserError(
            f"the images have another {wrong} than the model takes, {_by(shape)}",
            got=_by(given),
            do="give channels x height x width as the model was trained",
        )
    values = pixels.flatten(1)
    for name, bad, do in (
        ("hold values that are not finite", ~values.isfinite().all(1), "mend them"),
        (
            "must lie in [0, 1]",
            (values.amin(1) < 0) | (values.amax(1) > 1),
            "divide 8-bit values by 255, and leave normalising to the model (mean, std)",
        ),
    ):
        rows = bad.nonzero().flatten()
        if len(rows):
            first = values[rows[0]]
            raise UserError(
                f"pixels {name}",
                got=f"{first.min().item():.4g} to {first.max().item():.4g} in image {rows[0]}",
                do=do,
            )


def _by_channel(values: tuple[float, ...], pixels: Tensor) -> Tensor:
    return torch.tensor(values, dtype=pixels.dtype, device=pixels.device)[:, None, None]


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{v:.4g}" for v in values) or "0"


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
