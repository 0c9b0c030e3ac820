"""A classifier: a network with its normalisation and the names of its classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from unmask.errors import UserError, unknown
from unmask.models.card import ModelCard
from unmask.models.checkpoint import TensorFile, write_tensors
from unmask.models.cnn import build


class Classifier(nn.Module):
    """Pixels in [0, 1], float[b, c, h, w], to logits, float[b, classes].

    Normalisation is a buffer inside, so nobody outside ever normalises.

    Args:
        network: takes normalised pixels to logits.
        card: what the network is; its facts may be filled with what is known of the training.

    Example:
        >>> model = unmask.Classifier.load("mnist")
        >>> model(torch.rand(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, card: ModelCard) -> None:
        super().__init__()
        self.network = network
        self.card = card
        # Not in the state, since the card holds them.
        for name, values in (("mean", card.mean), ("std", card.std)):
            buffer = torch.tensor(values, dtype=torch.float32)[:, None, None]
            self.register_buffer(name, buffer, persistent=False)

    @staticmethod
    def create(
        architecture: str,
        settings: dict[str, Any],
        *,
        class_names: Sequence[str],
        input_shape: tuple[int, int, int],
        mean: Sequence[float],
        std: Sequence[float],
        seed: int,
    ) -> Classifier:
        """Return a classifier with fresh weights that depend on the seed alone.

        Args:
            architecture: a name in cnn.ARCHITECTURES.
            settings: its keyword arguments.
            class_names: in the order of the logits.
            input_shape: channels, height and width.
            mean: one number a channel, for pixels in [0, 1].
            std: the same, positive.
            seed: of the weights.

        Raises:
            UserError: an unknown architecture, or settings, shapes and names that don't fit.
        """
        card = ModelCard(
            architecture=architecture,
            settings=settings,
            input_shape=input_shape,
            mean=tuple(mean),
            std=tuple(std),
            class_names=tuple(class_names),
            facts={},
        )
        with torch.random.fork_rng(devices=[]):
            # torch.manual_seed would seed every GPU too.
            torch.default_generator.manual_seed(seed)
            network = build(card.architecture, card.settings, card.input_shape, len(class_names))
        return Classifier(network, card)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the logits."""
        return self.card.class_names

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the images."""
        return self.card.input_shape

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits [b, classes] of pixels [b, c, h, w] in [0, 1]."""
        logits: Tensor = self.network((pixels - self.mean) / self.std)
        return logits

    def save(self, path: Path, *, half: bool = False) -> ModelCard:
        """Write path.safetensors and its card path.json.

        Args:
            path: of either file, or without a suffix.
            half: store matrices and filters in half precision.

        Returns:
            The card with the checksum of the weights.

        Raises:
            UserError: the folder can't be written.
        """
        weights, card_path = _files(path)
        state = self.network.state_dict()
        if half:
            state = {
                k: v.half() if v.is_floating_point() and v.ndim > 1 else v for k, v in state.items()
            }
        write_tensors(weights, state)
        card = replace(self.card, weights_sha256=TensorFile(weights).sha256())
        card.write(card_path)
        self.card = card
        return card

    @staticmethod
    def load(source: str | Path, *, network: nn.Module | None = None) -> Classifier:
        """Return the classifier that ships under a name or that save wrote, in eval mode.

        Args:
            source: a name that ships, or the path of the weights, with or without a suffix.
            network: the network to fill, for one that is not an architecture of Unmask.

        Raises:
            UserError: a file is missing or damaged, is a pickle, doesn't match its card's checksum
                or the network, or the name is unknown.
        """
        path = _shipped(source) or Path(source)
        if not _looks_like_path(source) and not _files(path)[0].exists():
            raise unknown(
                "model",
                source,
                [*shipped(), "a .safetensors or .onnx file, or a name such as timm:resnet18"],
            )
        weights, card_path = _files(path)
        if path.is_file() and path.suffix not in ("", ".json"):
            # So that a pickle is reported as one, whatever its suffix.
            weights = path
        file = TensorFile(weights)
        card = ModelCard.read(card_path)
        card.check_weights(file.sha256(), weights)
        if network is None:
            # A card may describe a network of any size: shapes are checked before memory is taken.
            with torch.device("meta"), _Undrawn():
                file.match(_build(card))
            # Convolutions and pooling by channels last take about two thirds of the time on a CPU.
            network = _build(card).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        file.load_into(network)
        return Classifier(network, card).eval()


class _Undrawn(TorchFunctionMode):
    """Networks are built without drawing weights, which on meta loads torch's compiler, 2 s."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "").endswith("normal_"):
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def shipped() -> list[str]:
    """Return the names of the models inside the package."""
    folder = resources.files("unmask.models") / "weights"
    return sorted(
        f.name.removesuffix(".safetensors")
        for f in folder.iterdir()
        if f.name.endswith(".safetensors")
    )


def _build(card: ModelCard) -> nn.Module:
    return build(card.architecture, card.settings, card.input_shape, len(card.class_names))


def _files(path: Path) -> tuple[Path, Path]:
    if not path.name:
        raise UserError("a folder is no model", got=path, do="give a .safetensors file")
    stem = path.with_suffix("") if path.suffix in (".safetensors", ".json") else path
    return stem.with_name(f"{stem.name}.safetensors"), stem.with_name(f"{stem.name}.json")


def _shipped(source: str | Path) -> Path | None:
    if isinstance(source, str) and source in shipped():
        return Path(str(resources.files("unmask.models") / "weights" / source))
    return None


def _looks_like_path(source: str | Path) -> bool:
    return isinstance(source, Path) or any(c in source for c in "/\\.")
