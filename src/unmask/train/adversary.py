"""What fit asks of an adversary that makes images harder while a network trains."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor, nn


class Adversary(Protocol):
    """Changes every batch before the network learns from it, and measures what that bought."""

    def attacked(self, model: nn.Module, pixels: Tensor, labels: Tensor, *, part: float) -> Tensor:
        """Return the images to learn from, float32[b, c, h, w] in [0, 1].

        labels: int64[b]. part: of the whole run, how much is done, 0 to 1. Whatever is random is
        drawn from PyTorch's default generator, which fit seeds at every epoch.
        """

    def accuracy(self, model: nn.Module) -> float:
        """Return the accuracy under attack, 0 to 1, by which the best epoch is chosen."""

    def as_dict(self) -> dict[str, Any]:
        """Return its settings as plain values."""
