"""Five clusters of points, drawn by batch, and a network that a test joins as it says."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

CLASSES = 5
CENTRES = 1.5 * torch.randn(CLASSES, 20, generator=torch.Generator().manual_seed(1))


def batch(i: int, n: int = 32) -> tuple[Tensor, Tensor]:
    """Return n points of random clusters, the same for the same i, and their clusters."""
    g = torch.Generator().manual_seed(i)
    y = torch.randint(CLASSES, (n,), generator=g)
    return CENTRES[y] + torch.randn(n, 20, generator=g), y


class Net(nn.Module):
    """A trunk and a head, with what a test adds to them, joined by its function of (net, x)."""

    def __init__(self, forward: Callable[[nn.Module, Tensor], object], **parts: object) -> None:
        super().__init__()
        self.trunk, self.head = nn.Linear(20, 32), nn.Linear(32, CLASSES)
        for name, part in parts.items():
            setattr(self, name, part)
        self._forward = forward

    def forward(self, x: Tensor) -> object:
        return self._forward(self, x)
