"""The source of a model under attack: a name, a file, an import path, another process."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from unmask.errors import UserError
from unmask.fool.onnx import onnx_victim
from unmask.fool.victim import Preprocessing, Victim
from unmask.models.card import ModelCard
from unmask.models.checkpoint import TensorFile
from unmask.models.classifier import Classifier
from unmask.models.cnn import ARCHITECTURES, build
from unmask.models.imported import load_model as load_imported
from unmask.models.imported import refuse_lazy
from unmask.models.load import load_known, refuse_format
from unmask.models.session import read_onnx

Model: TypeAlias = nn.Module | Callable[[Tensor], Any] | Victim | str | Path


def as_victim(
    model: Model,
    *,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    batch_size: int = 256,
    images: Any = None,
) -> Victim:
    """Return any model as a victim for the attacks.

    Args:
        model: a network, a function of float32[b, c, h, w], or what load_victim takes.
        mean: one number, or one a channel, that the model expects to be subtracted from pixels in
            [0, 1].
        std: one positive number, or one a channel, to divide by then.
        batch_size: images in a forward pass.
        images: those that it will be given, from which the number of channels is known.

    Raises:
        UserError: when mean or std isn't one finite number, or one a channel, or std isn't
            positive.
    """
    if isinstance(model, Victim):
        return model
    channels = None if images is None or len(images.shape) != 4 else int(images.shape[1])
    wanted = normalisation(mean, std, channels)
    if isinstance(model, (str, Path)):
        victim = load_victim(str(model), preprocessing=wanted)
        victim.batch = batch_size
        return victim
    return Victim.of(model, preprocessing=wanted, batch=batch_size)


def normalisation(
    mean: float | Sequence[float] | None,
    std: float | Sequence[float] | None,
    channels: int | None,
) -> Preprocessing | None:
    """Return the preprocessing of a mean and a std, None where both are None.

    Args:
        mean: one finite number, or one a channel, to be subtracted; None for 0.
        std: one positive number, or one a channel, to divide by; None for 1.
        channels: of the images, None where it isn't known.

    Raises:
        UserError: when one isn't one finite number, or one a channel, or std isn't positive.
    """
    if mean is None and std is None:
        return None
    return Preprocessing(
        mean=_by_channel("mean", 0.0 if mean is None else mean, channels),
        std=_by_channel("std", 1.0 if std is None else std, channels),
    )


def _by_channel(
    name: str, value: float | Sequence[float], channels: int | None
) -> tuple[float, ...]:
    values = tuple(float(v) for v in np.atleast_1d(np.asarray(value, dtype=float)))
    if len(values) == 1 and channels:
        values *= channels
    if channels and len(values) != channels:
        raise UserError(
            f"{name} needs one number, or one a channel ({channels})",
            got=f"{len(values)} numbers",
        )
    if not all(np.isfinite(values)) or (name == "std" and min(values) <= 0):
        raise UserError(f"{name} isn't usable", got=value, do="give finite numbers, std above 0")
    return values


def load_victim(
    source: str, *, weights: Path | None = None, preprocessing: Preprocessing | None = None
) -> Victim:
    """Return the model of a shipped name, a .safetensors or .onnx file, or an import path.

    Args:
        source: "mnist", a file, or "my_module:make_model", which is set to eval mode.
        weights: a safetensors file for the network of an import path.
        preprocessing: that the model expects of pixels in [0, 1].

    Returns:
        The model; an ONNX file is a black box, see onnx_victim.

    Raises:
        UserError: when something is missing, damaged, of another format, or would be unpickled.
    """
    suffix = Path(source).suffix.lower()
    imported = ":" in source and suffix not in (".onnx", ".safetensors", ".pt2")
    if weights is not None and not imported:
        raise UserError(
            "--weights are for a network by its import path alone",
            got=source,
            do="write my_module:make_model in the model's place",
        )
    refuse_format(source)
    if suffix == ".onnx":
        content, identity = read_onnx(source)
        victim = onnx_victim(source, content, torch.get_num_threads(), preprocessing)
        victim.identity = identity
        return victim
    known = None if weights is not None else load_known(source)
    if isinstance(known, Classifier):
        return Victim.of(known, source, kind="Unmask's", preprocessing=preprocessing)
    if known is not None:
        victim = Victim.of(known, source, kind=known.kind, preprocessing=preprocessing)
        victim.made_from = source
        return victim
    module = load_imported(source)
    refuse_lazy(module)
    if weights is not None:
        TensorFile(weights).load_into(module)
    victim = Victim.of(module.eval(), source, preprocessing=preprocessing)
    victim.made_from = source
    return victim


def travelling(victim: Victim) -> tuple[Any, ...]:
    """Return what makes a victim again in another process, in the form of pickle's __reduce__.

    Args:
        victim: an ONNX model, or a network with an import path or of Unmask's architectures.

    Raises:
        UserError: for a model that can't be made again.
    """
    if isinstance(victim.made_from, bytes):
        threads = torch.get_num_threads()
        return onnx_victim, (victim.name, victim.made_from, threads, victim.preprocessing)
    if victim.module is None:
        raise UserError("this black box can't travel to another process", got=victim.name)
    packed = Packed.of(victim.module, victim.made_from)
    return _arrived, (victim.name, victim.kind, packed, victim.preprocessing)


@dataclass(frozen=True)
class Packed:
    """A network on its way to another process, as plain values.

    Args:
        path: the import path that makes it, or None for one of Unmask's architectures.
        card: the model card of such a network as JSON, else "".
        state: its parameters and buffers, as safetensors.
        modes: which of its modules are in training mode, in the order of nn.Module.modules.
        channels_last: whether its filters are stored with channels last, on which rounding depends.
    """

    path: str | None
    card: str
    state: bytes
    modes: tuple[bool, ...]
    channels_last: bool

    @staticmethod
    def of(module: nn.Module, path: str | None) -> Packed:
        """Pack a network.

        Args:
            module: the network, on any device.
            path: the import path that makes it, or None for one of Unmask's classifiers.

        Raises:
            UserError: for a network without an import path that isn't one of Unmask's.
        """
        card = ""
        if path is None:
            if not isinstance(module, Classifier) or module.card.architecture not in ARCHITECTURES:
                raise UserError(
                    "this network can't travel to another process",
                    got=f"a {type(module).__name__} that was made in this one",
                    do="give its import path (load_victim), or one of Unmask's classifiers",
                )
            card = json.dumps(module.card.as_dict())
        # Cloned, since the format refuses tensors that share memory.
        state = {k: v.detach().cpu().clone().contiguous() for k, v in module.state_dict().items()}
        modes = tuple(m.training for m in module.modules())
        last = any(p.ndim == 4 and not p.is_contiguous() for p in module.parameters())
        return Packed(path, card, save(state), modes, last)

    def module(self) -> nn.Module:
        """Return the network, on the CPU.

        Raises:
            UserError: when its import path can't be followed, or makes another network.
        """
        module = self._classifier() if self.path is None else _network(self.path)
        try:
            module.load_state_dict(load(self.state))
        except RuntimeError as error:
            raise UserError(
                f"{self.path} makes another network here than where it was packed",
                got=" ".join(str(error).split())[:200],
                do="install the same code on every node",
            ) from error
        for part, training in zip(module.modules(), self.modes, strict=True):
            part.training = training
        if self.channels_last:
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return module

    def _classifier(self) -> Classifier:
        card = ModelCard.from_dict(json.loads(self.card))
        network = build(card.architecture, card.settings, card.input_shape, len(card.class_names))
        return Classifier(network, card)


def _network(path: str) -> nn.Module:
    known = load_known(path)
    return load_imported(path) if known is None else known


# Every task of a worker receives the model again, and a worker serves one audit at a time.
@functools.lru_cache(maxsize=2)
def _arrived(name: str, kind: str, packed: Packed, preprocessing: Preprocessing | None) -> Victim:
    victim = Victim.of(packed.module(), name, kind=kind, preprocessing=preprocessing)
    victim.made_from = packed.path
    return victim
