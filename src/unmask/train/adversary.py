"""The interface of an adversary that changes the images while fit trains a network."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor, nn


class Adversary(Protocol):
    """Changes every batch before the network is trained on it, and measures the robustness."""

    def attacked(self, model: nn.Module, pixels: Tensor, labels: Tensor, *, part: float) -> Tensor:
        """Return the images to train on, float32[b, c, h, w] in [0, 1].

        Random numbers come from PyTorch's default generator, which fit seeds at every epoch.

        Args:
            model: the network as it is.
            pixels: float32[b, c, h, w] in [0, 1].
            labels: int64[b].
            part: the fraction of the whole run that is done, 0 to 1.
        """

    def accuracy(self, model: nn.Module) -> float:
        """Return the accuracy under attack, 0 to 1, by which the best epoch is chosen."""

    def as_dict(self) -> dict[str, Any]:
        """Return its settings as plain values."""
