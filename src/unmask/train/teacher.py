"""Distillation: networks whose predictions are part of the training targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from unmask.data.augment import Augmentation
from unmask.errors import UserError
from unmask.runtime import sha256


@dataclass(frozen=True)
class Teacher:
    """Trained networks, and the fraction of the targets that their predictions make up.

    The networks may be like the student, or earlier versions of it: that alone makes it more
    accurate (Hinton et al., 2015; Furlanello et al., 2018). Their prediction is the mean of their
    softmax. By its place in the batch, each image is seen as it is, mirrored, shifted by a pixel,
    or both. Over the epochs the student thus gets the mean of all views at the cost of one.

    Args:
        networks: each takes pixels in [0, 1], float[b, c, h, w], to logits.
        share: the fraction, 0 to 1.

    Raises:
        UserError: there is no network, or the fraction is out of its range.
    """

    networks: tuple[nn.Module, ...]
    share: float = 0.8

    def __post_init__(self) -> None:
        if not self.networks:
            raise UserError("a teacher is one network or more", got="none")
        if not 0 <= self.share <= 1:
            raise UserError("the teacher's share must be from 0 to 1", got=self.share)

    def to(self, device: torch.device) -> Teacher:
        """Move the networks to a device, in eval mode, and return the teacher."""
        for network in self.networks:
            network.eval().to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return self

    @torch.no_grad()
    def targets(self, pictures: Tensor, labels: Tensor, augmentation: Augmentation) -> Tensor:
        """Return the training targets of images, float32[b, classes], every row adding up to 1.

        Args:
            pictures: float[b, c, h, w] in [0, 1].
            labels: float32[b, classes], the fraction of each class.
            augmentation: of the student; without flips no image is mirrored, without shifts none
                shifted.
        """
        said = [
            network(_views(pictures, turn, augmentation)).float().softmax(1)
            for turn, network in enumerate(self.networks)
        ]
        return torch.lerp(labels, torch.stack(said).mean(0), self.share)

    def as_dict(self) -> dict[str, Any]:
        """Return the share and the checksums of the networks' tensors as plain values."""
        return {"share": self.share, "networks": [_checksum(n) for n in self.networks]}


def _views(pictures: Tensor, turn: int, augmentation: Augmentation) -> Tensor:
    height, width = pictures.shape[2:]
    seen = pictures.clone()
    if augmentation.flip != "none":
        mirrored = seen[(1 - turn) % 2 :: 2]
        mirrored.copy_(mirrored.flip(3))
    for place, by in ((2, 0), (3, 2)) if augmentation.shift else ():
        moved = seen[(place - turn) % 4 :: 4]
        padded = functional.pad(moved, (1, 1, 1, 1), mode="reflect")
        moved.copy_(padded[:, :, by : by + height, by : by + width])
    return seen.contiguous(memory_format=torch.channels_last)


def _checksum(network: nn.Module) -> str:
    tensors = (t.detach().cpu().contiguous() for t in network.state_dict().values())
    return sha256(*(memoryview(t.reshape(-1).view(torch.uint8).numpy()) for t in tensors))
