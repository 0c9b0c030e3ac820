"""The detector's weights on disk: one safetensors file with its card inside."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from unmask.errors import UserError
from unmask.mask.network import DetectorShape, FaceNetwork
from unmask.models.checkpoint import TensorFile, write_tensors

FORMAT = "unmask-detector/1"


@dataclass(frozen=True)
class DetectorCard:
    """What a detector is. facts: plain values, whatever else there is to know of it."""

    class_names: tuple[str, ...]
    shape: DetectorShape
    facts: dict[str, Any]


def save_detector(path: Path, network: FaceNetwork, card: DetectorCard) -> None:
    """Write the weights and the card, whole or not at all. Raises UserError when it can't."""
    write_tensors(path, network.state_dict(), {"format": FORMAT, **asdict(card)})


def load_detector(path: Path) -> tuple[FaceNetwork, DetectorCard]:
    """Return the network, in eval mode, and its card; raise UserError when it is none."""
    file = TensorFile(path)
    try:
        header: dict[str, Any] = file.header or {}
        if header["format"] != FORMAT:
            raise ValueError(f"the format {header['format']!r}")
        shape: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in header["shape"].items()
        }
        card = DetectorCard(
            tuple(header["class_names"]), DetectorShape(**shape), dict(header["facts"])
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} holds no detector", got=str(error), do="give what unmask mask train wrote"
        ) from error
    network = FaceNetwork(len(card.class_names), card.shape)
    with torch.no_grad():
        file.load_into(network)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network.eval(), card
