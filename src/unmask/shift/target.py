"""The model and the images of a question, from any source."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unmask.data.images import Images
from unmask.data.load import load_data
from unmask.data.sources import Source, load_source, shape_for
from unmask.errors import UserError
from unmask.models.answer import Scale, as_logits, scale_of, unscaled
from unmask.models.classifier import Classifier
from unmask.models.given import channels_of, dtype_of, failed, handed, identity_of
from unmask.models.imported import load_model as load_imported
from unmask.models.imported import refuse_lazy
from unmask.models.load import load_known, refuse_format
from unmask.models.preprocessing import Wrapped
from unmask.train.evaluation import counted, matched

# Values of one batch: 128 colour images of side 224.
_BATCH_VALUES = 20_000_000
_LARGEST_BATCH = 500
_AS_THEY_COME = "pixels from 0 to 1, RGB or grey, since no config says otherwise"
# Images taken of a loader that doesn't tell how many it has.
_OF_A_STREAM = 10_000


@dataclass(frozen=True, eq=False)
class Target:
    """A classifier as a function of pixels in [0, 1].

    Args:
        name: as the user wrote it.
        function: float32[b, c, h, w] to logits, in any form that as_logits knows.
        module: the network, or None for a black box.
        class_names: in the order of the logits; None where the model doesn't state them.
        input_shape: (c, h, w); None where the model doesn't state it.
        mean: of the normalisation inside, one number a channel; () where the model doesn't state
            it.
        std: likewise.
        identity: the SHA-256 of its weights or file.
        device: where it runs.
        classes: their number, for a model that returns the class alone; see fitted.
        labels_only: whether it returns the class alone, whose logits are 1 and 0; see fitted.
        source: the name or file it was loaded from, "" for one that was made in this process.
        dtype: of the pixels that it takes.
        scale: of its outputs, which are turned into logits; None where it isn't known yet; see
            scaled.
        about: in one line, what is done to an image before the network; "" for a card's own.
    """

    name: str
    function: Callable[[Tensor], Any]
    module: nn.Module | None = None
    class_names: tuple[str, ...] | None = None
    input_shape: tuple[int, int, int] | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    identity: str = ""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    classes: int | None = None
    labels_only: bool = False
    source: str = ""
    dtype: torch.dtype = torch.float32
    scale: Scale | None = None
    about: str = ""

    @property
    def channels(self) -> int | None:
        """The channels of the images that it takes, None where they aren't known."""
        if self.input_shape is not None or self.module is None:
            return None if self.input_shape is None else self.input_shape[0]
        return channels_of(self.module)

    def logits(self, pixels: Tensor) -> Tensor:
        """Return the logits of images, float32[n, classes] on the CPU; see read.

        Args:
            pixels: float32[n, c, h, w] in [0, 1], on any device.
        """
        return self.read(pixels)[0]

    @torch.no_grad()
    def read(self, pixels: Tensor) -> tuple[Tensor, bool]:
        """Return the logits of images, in evaluation mode, and whether it gave the class alone.

        Args:
            pixels: float32[n, c, h, w] in [0, 1], on any device.

        Returns:
            float32[n, classes], on the CPU, and the flag.

        Raises:
            UserError: when the model can't take the images or returns no logits.
        """
        modules = [] if self.module is None else list(self.module.modules())
        # Each module gets its own mode back, since a frozen one may differ from the whole.
        training = [m for m in modules if m.training]
        for m in training:
            m.training = False
        try:
            batch = batch_size_of(pixels)
            found = [self._answer(chunk) for chunk in torch.split(pixels, batch)]
        finally:
            for m in training:
                m.training = True
        return torch.cat([rows for rows, _ in found]), any(alone for _, alone in found)

    def _answer(self, pixels: Tensor) -> tuple[Tensor, bool]:
        try:
            answer = self.function(handed(pixels, self.dtype, self.device))
        except UserError:
            raise
        except Exception as error:
            raise failed(error, tuple(pixels.shape[1:])) from error
        # Another number of classes is told of later, in the words of the images.
        known = self.classes if self.class_names is None else len(self.class_names)
        logits, alone = as_logits(answer, len(pixels), None, likely=known)
        return unscaled(logits.detach().float().cpu(), self.scale or "logits"), alone


def batch_size_of(pixels: Tensor) -> int:
    """Return the number of such images in one forward pass that keeps memory bounded."""
    return max(1, min(_LARGEST_BATCH, _BATCH_VALUES // max(1, pixels[:1].numel())))


def as_target(model: Any, name: str | None = None) -> Target:
    """Return a model as a Target.

    Args:
        model: an nn.Module, a function of float32[b, c, h, w] in [0, 1], a shipped name, a
            .safetensors or .onnx file, or an import path such as "my_module:make_model".
        name: of the model in reports.

    Raises:
        UserError: when the model is missing, damaged, or of another kind.
    """
    if isinstance(model, Target):
        return model
    if isinstance(model, (str, Path)):
        return replace(_loaded(str(model)), source=str(model))
    if isinstance(model, Classifier):
        card = model.card
        return Target(
            name or card.architecture,
            model,
            model,
            card.class_names,
            card.input_shape,
            tuple(card.mean),
            tuple(card.std),
            identity_of(model),
            _device(model),
            dtype=dtype_of(model),
        )
    if isinstance(model, Wrapped):
        steps = model.preprocessing
        return Target(
            name or model.name,
            model,
            model,
            model.class_names,
            model.input_shape,
            tuple(m / steps.scale for m in steps.mean),
            tuple(s / steps.scale for s in steps.std),
            identity_of(model),
            _device(model),
            dtype=torch.float32,
            scale="logits",
            about=model.describe(),
        )
    if isinstance(model, nn.Module):
        return Target(
            name or type(model).__name__,
            model,
            model,
            identity=identity_of(model),
            device=_device(model),
            dtype=dtype_of(model),
        )
    if callable(model):
        return Target(name or str(getattr(model, "__name__", type(model).__name__)), model)
    raise UserError(
        "a model is an nn.Module, a function of pixels, a name or a file", got=type(model).__name__
    )


def _loaded(source: str) -> Target:
    suffix = Path(source).suffix.lower()
    if suffix == ".onnx":
        return _onnx(source)
    refuse_format(source)
    known = load_known(source)
    if known is not None:
        return as_target(known, source)
    network = load_imported(source)
    refuse_lazy(network)
    target = as_target(network.eval(), source)
    if isinstance(network, (Classifier, Wrapped)):
        return target
    return replace(target, about=f"{source} (PyTorch): {_AS_THEY_COME}")


def _onnx(path: str) -> Target:
    from unmask.models.session import OnnxClassifier, read_onnx

    content, identity = read_onnx(path)
    threads = torch.get_num_threads()
    graph = OnnxClassifier.of(content, threads=threads, name=path, folder=Path(path).parent)
    scale = 255 if graph.dtype is np.uint8 else 1
    fed = _AS_THEY_COME if scale == 1 else "pixels from 0 to 255, since it takes bytes"
    return Target(
        path,
        lambda pixels: graph.answer(scale * pixels.detach().cpu().numpy()),
        class_names=graph.class_names,
        input_shape=graph.input_shape,
        identity=identity,
        about=f"{path} (ONNX): {fed}",
    )


def _device(module: nn.Module) -> torch.device:
    first = next(module.parameters(), None)
    return torch.device("cpu") if first is None else first.device


def as_images(data: Any, target: Target | None = None, *, most: int | None = None) -> Images:
    """Return data as Images: those to test with, of the model's classes.

    Args:
        data: Images, a Source, a pair of tensors or arrays (pixels [n, c, h, w], labels [n]), a
            DataLoader of such pairs, a named set, a folder or a zip. Pixels are uint8, or float in
            [0, 1].
        target: whose input shape and class names are followed.
        most: the most images, spread evenly over the set (of a loader, the first); None for all.

    Raises:
        UserError: when the data is missing, of another form, or has classes the model doesn't know.
    """
    if isinstance(data, (str, Path)):
        data = read_for(str(data), target)
    if isinstance(data, Source):
        data = data.tested
    if not isinstance(data, Images):
        data = _given(data, most)
    if not len(data):
        raise UserError("there are no images", got=data.name)
    if target is not None:
        if target.input_shape is not None and data.pixels.shape[1:] != target.input_shape:
            raise UserError(
                f"{target.name} takes images of shape {list(target.input_shape)}",
                got=list(data.pixels.shape[1:]),
                do="give images of the model's channels and size",
            )
        if target.class_names is not None:
            data = matched(data, target.class_names)
    return spread(data, most)


def read_for(data: str, target: Target | None) -> Source:
    """Return the images of a name, folder or zip archive, read as a model takes them.

    Args:
        data: as load_source takes it.
        target: the model, None for images as they are.

    Raises:
        UserError: as load_source does.
    """
    if target is None:
        return load_source(data)
    return load_source(data, shape=shape_for(data, target.input_shape, channels=target.channels))


def fitted(target: Target, images: Images) -> tuple[Target, Images]:
    """Return a model and images with the same classes, from the model's output for the first image.

    Args:
        target: the model.
        images: of its input shape, at least one.

    Returns:
        The model, whose classes and labels_only are now known, and the images.

    Raises:
        UserError: when the model doesn't take the images, or has another number of classes.
    """
    if target.class_names is None:
        target = replace(target, classes=len(images.class_names))
    logits, alone = target.read(torch.tensor(images.pixels[:1]).float() / 255)
    names = target.class_names
    if names is not None and logits.shape[1] != len(names):
        raise UserError(
            f"{target.name} names {len(names)} classes and gives {logits.shape[1]} logits",
            got=", ".join(names[:5]) + ", ..." * (len(names) > 5),
            do="give it a name for each of its outputs",
        )
    return replace(target, labels_only=alone), counted(images, logits.shape[1])


def scaled(target: Target, logits: Tensor) -> tuple[Target, Tensor]:
    """Return a model with the scale of its outputs, and logits, from what it gives for some images.

    Args:
        target: a model whose scale may not be known.
        logits: its outputs for images, the more the surer.
    """
    if target.scale is not None or target.labels_only:
        return target, logits
    scale = scale_of(logits)
    return replace(target, scale=scale), unscaled(logits, scale)


def spread(images: Images, most: int | None) -> Images:
    """Return at most this many images, spread evenly over the set; None for all."""
    if most is None or most >= len(images):
        return images
    return images[np.arange(most) * len(images) // most]


def _given(data: Any, most: int | None) -> Images:
    """Return arrays or a loader's batches as Images; of a loader without end the first."""
    pair = isinstance(data, (tuple, list)) and len(data) == 2 and hasattr(data[0], "shape")
    if not pair and most is None and not _sized(data):
        most = _OF_A_STREAM
    found = load_data(data, count=None if pair else most)
    return Images(found.pixels, found.labels, found.class_names, "the data given")


def _sized(data: Any) -> bool:
    try:
        return len(data) >= 0
    except TypeError:
        return False
