"""The detector's network: one stage, no anchors, every face predicted at cells of four pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from unmask.errors import UserError
from unmask.mask.runtime.calibration import DetectorFacts
from unmask.mask.runtime.decode import STRIDE
from unmask.mask.runtime.detector import MaskDetector
from unmask.mask.runtime.views import MULTIPLE
from unmask.models.card import DETECTOR, ModelCard
from unmask.models.checkpoint import TensorFile, write_tensors

# Mean and standard deviation of the pixels of photographs, over all colours.
_MEAN, _STD = 0.45, 0.27
# The fraction of all cells that are centres, which the scores start from (Lin et al., 2017).
_PRIOR = 0.01
# The sides that the network starts with, in pixels, and the largest exponent that scales them.
_SIDE, _MOST = 16.0, 4.5


@dataclass(frozen=True)
class DetectorShape:
    """How wide and deep the network is.

    Args:
        stem: channels at stride 2.
        widths: channels at strides 4, 8, 16 and 32.
        depths: blocks at strides 4, 8, 16 and 32.
        neck: channels of the fused features at stride 8.

    Raises:
        UserError: when that can't be built.
    """

    stem: int = 16
    widths: tuple[int, int, int, int] = (32, 64, 128, 160)
    depths: tuple[int, int, int, int] = (1, 2, 2, 1)
    neck: int = 64

    def __post_init__(self) -> None:
        counts = (self.stem, self.neck, *self.widths, *self.depths)
        if len(self.widths) != 4 or len(self.depths) != 4 or min(counts) < 1:
            raise UserError("a detector has four stages of at least one channel", got=self)


@dataclass(frozen=True)
class Heads:
    """The network's outputs for every cell.

    Args:
        face: float32[b, h/4, w/4], the logit that a face's centre is here.
        sides: float32[b, 4, h/4, w/4], the distances to its left, top, right and bottom, in pixels.
        classes: float32[b, k, h/4, w/4], the logits of its class.
    """

    face: Tensor
    sides: Tensor
    classes: Tensor


class FaceNetwork(nn.Module):
    """Pixels in [0, 1], float[b, 3, h, w], to Heads; h and w are multiples of MULTIPLE.

    Features at strides 2 to 32 are fused from the coarsest down to stride 8, where each position
    predicts the four cells of stride 4 inside it (Shi et al., 2016, arXiv:1609.05158).
    Normalisation is inside. Convolutions start He-normal, batch norms as the identity, and the last
    layer near zero with biases that predict a face of 32 pixels in one cell of a hundred.

    Args:
        classes: how many.
        shape: widths and depths, by default those of DetectorShape().
    """

    def __init__(self, classes: int, shape: DetectorShape | None = None) -> None:
        super().__init__()
        shape = shape or DetectorShape()
        self.classes = classes
        w4, w8, w16, w32 = shape.widths
        d4, d8, d16, d32 = shape.depths
        self.stem = _conv(3, shape.stem, 3, stride=2)
        self.stage4 = nn.Sequential(_conv(shape.stem, w4, 3, stride=2), CrossStage(w4, d4))
        self.stage8 = nn.Sequential(_conv(w4, w8, 3, stride=2), CrossStage(w8, d8))
        self.stage16 = nn.Sequential(_conv(w8, w16, 3, stride=2), CrossStage(w16, d16))
        self.stage32 = nn.Sequential(
            _conv(w16, w32, 3, stride=2), CrossStage(w32, d32), Context(w32)
        )
        neck = shape.neck
        self.down4 = _conv(w4, neck, 3, stride=2)
        self.across8 = _conv(w8, neck, 1)
        self.across16 = _conv(w16, neck, 1)
        self.across32 = _conv(w32, neck, 1)
        self.fuse16 = _conv(neck, neck, 3)
        self.fuse8 = _conv(neck, neck, 3)
        self.where = _conv(neck, neck, 3)
        self.what = _conv(neck, neck, 3)
        cells = (MULTIPLE // STRIDE // 4) ** 2
        self.where_out = nn.Conv2d(neck, 5 * cells, 1)
        self.what_out = nn.Conv2d(neck, classes * cells, 1)
        self._initialise(cells)

    @torch.no_grad()
    def _initialise(self, cells: int) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        for out in (self.where_out, self.what_out):
            assert out.bias is not None
            nn.init.normal_(out.weight, std=0.01)
            nn.init.zeros_(out.bias)
        # Pixel shuffle takes the cells of one output from neighbouring channels.
        assert self.where_out.bias is not None
        self.where_out.bias[:cells] = -math.log((1 - _PRIOR) / _PRIOR)

    def forward(self, pixels: Tensor) -> Heads:
        """Return the predictions for every cell of float[b, 3, h, w] in [0, 1]."""
        x4 = self.stage4(self.stem((pixels - _MEAN) / _STD))
        x8 = self.stage8(x4)
        x16 = self.stage16(x8)
        y = self.across32(self.stage32(x16))
        y = self.fuse16(self.across16(x16) + _doubled(y))
        y = self.fuse8(self.across8(x8) + self.down4(x4) + _doubled(y))
        where = functional.pixel_shuffle(self.where_out(self.where(y)).float(), 2)
        what = functional.pixel_shuffle(self.what_out(self.what(y)).float(), 2)
        sides = _SIDE * where[:, 1:].clamp(-_MOST, _MOST).exp()
        return Heads(where[:, 0], sides, what)


class CrossStage(nn.Module):
    """Blocks of two 3x3 convolutions on half the channels, all of whose outputs are joined.

    After the cross-stage networks of Wang et al., 2019, arXiv:1911.11929.

    Args:
        channels: of input and output.
        depth: how many blocks.
    """

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        half = channels // 2
        self.straight = _conv(channels, half, 1)
        self.into = _conv(channels, half, 1)
        self.blocks = nn.ModuleList(
            nn.Sequential(_conv(half, half, 3), _conv(half, half, 3)) for _ in range(depth)
        )
        self.join = _conv(half * (2 + depth), channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the input's shape, float[b, c, h, w]."""
        parts = [self.straight(x), self.into(x)]
        for block in self.blocks:
            parts.append(parts[-1] + block(parts[-1]))
        joined: Tensor = self.join(torch.cat(parts, 1))
        return joined


class Context(nn.Module):
    """Maxima over windows of up to 13 positions, joined with the features themselves.

    Args:
        channels: of input and output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.into = _conv(channels, half, 1)
        self.join = _conv(4 * half, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the input's shape, float[b, c, h, w]."""
        parts = [self.into(x)]
        for _ in range(3):
            parts.append(functional.max_pool2d(parts[-1], 5, stride=1, padding=2))
        joined: Tensor = self.join(torch.cat(parts, 1))
        return joined


class Scored(nn.Module):
    """The network as it is exported: pixels, float[b, 3, h, w], to scores and sides.

    scores: float[b, k, h/4, w/4], face times class, 0 to 1, and zero where a neighbouring cell has
    a higher probability of a face. sides: float[b, 4, h/4, w/4], pixels from the cell's centre, (x
    + 0.5) * 4.

    Args:
        network: the network to run.
    """

    def __init__(self, network: FaceNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores and sides for pixels, float[b, 3, h, w] in [0, 1]."""
        return peaks(*dense(self.network, pixels))


class NetworkSession:
    """Runs a network in PyTorch with the interface of an ONNX Runtime session; see MaskDetector.

    Args:
        network: the network, which is set to eval mode.
    """

    def __init__(self, network: FaceNetwork) -> None:
        self._scored = Scored(network.eval())

    def run(
        self, outputs: list[str], inputs: dict[str, NDArray[np.float32]], /
    ) -> list[NDArray[np.float32]]:
        """Return the named outputs, "scores" and "sides", for the input "pixels".

        Args:
            outputs: their names.
            inputs: "pixels", float32[b, 3, h, w] in [0, 1].
        """
        with torch.inference_mode():
            pixels = torch.from_numpy(inputs["pixels"])
            scores, sides = self._scored(pixels.contiguous(memory_format=torch.channels_last))
        named = {"scores": scores.numpy(), "sides": sides.numpy()}
        return [named[name] for name in outputs]


def network_detector(
    network: FaceNetwork, class_names: tuple[str, ...], scale: float
) -> MaskDetector:
    """Return the uncalibrated detector that runs a network in PyTorch.

    Args:
        network: the network.
        class_names: in the order of its classes.
        scale: pixels that the network should see for one of a small image.
    """
    return MaskDetector(NetworkSession(network), DetectorFacts(class_names, scale))


def dense(network: nn.Module, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the probabilities of a face and of its classes, and the sides, at every cell.

    Args:
        network: a FaceNetwork.
        pixels: float[b, 3, h, w] in [0, 1].

    Returns:
        float[b, 1, h/4, w/4] in [0, 1], float[b, k, h/4, w/4] adding up to 1 over the classes, and
        float[b, 4, h/4, w/4] in pixels.
    """
    heads: Heads = network(pixels)
    # Written out, softmax over the classes takes ONNX Runtime a fifth of the time.
    odds = (heads.classes - heads.classes.amax(1, keepdim=True)).exp()
    return heads.face.sigmoid().unsqueeze(1), odds / odds.sum(1, keepdim=True), heads.sides


def peaks(face: Tensor, classes: Tensor, sides: Tensor) -> tuple[Tensor, Tensor]:
    """Return scores and sides as Scored does.

    Args:
        face: float[b, 1, h/4, w/4], the probability of a face.
        classes: float[b, k, h/4, w/4], the probabilities of its classes.
        sides: float[b, 4, h/4, w/4], in pixels.
    """
    highest = functional.max_pool2d(face, 3, stride=1, padding=1)
    return torch.where(face >= highest, face, torch.zeros_like(face)) * classes, sides


def parameters_of(network: nn.Module) -> int:
    """Return how many parameters a network has."""
    return sum(p.numel() for p in network.parameters())


def _conv(channels: int, width: int, side: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, width, side, stride, side // 2, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    )


def _doubled(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2.0, mode="nearest")


def detector_card(
    class_names: Sequence[str], shape: DetectorShape, facts: dict[str, Any]
) -> ModelCard:
    """Return the card of a detector of faces.

    Args:
        class_names: in the order of its classes.
        shape: widths and depths.
        facts: whatever else is known, in plain values.
    """
    settings = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(shape).items()}
    return ModelCard(
        architecture="face_network",
        settings=settings,
        input_shape=(3, MULTIPLE, MULTIPLE),
        mean=(_MEAN,) * 3,
        std=(_STD,) * 3,
        class_names=tuple(class_names),
        facts=facts,
        format=DETECTOR,
    )


def fresh_detector(card: ModelCard) -> FaceNetwork:
    """Return the network that a card describes, with new weights."""
    shape: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in card.settings.items()
    }
    return FaceNetwork(len(card.class_names), DetectorShape(**shape))


def save_detector(path: Path, network: FaceNetwork, card: ModelCard) -> None:
    """Write the weights and the card to one safetensors file, whole or not at all.

    Args:
        path: of the file.
        network: the network.
        card: its card.

    Raises:
        UserError: when the file can't be written.
    """
    write_tensors(path, network.state_dict(), card.as_dict())


def load_detector(path: Path) -> tuple[FaceNetwork, ModelCard]:
    """Return the network in eval mode, and its card.

    Args:
        path: what save_detector wrote.

    Raises:
        UserError: when the file is missing, damaged or no detector.
    """
    file = TensorFile(path)
    try:
        card = ModelCard.from_dict(file.header or {})
        if card.format != DETECTOR:
            raise ValueError(f"the format {card.format!r}")
        network = fresh_detector(card)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} holds no detector", got=str(error), do="give what unmask mask train wrote"
        ) from error
    with torch.no_grad():
        file.load_into(network)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network.eval(), card
