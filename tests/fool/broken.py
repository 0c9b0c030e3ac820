"""Six models that are broken on purpose, each around a good one."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor, nn


class Wrapped(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).eval()


class Quantised(Wrapped):
    def forward(self, pixels: Tensor) -> Tensor:
        return self.network((pixels * 7).round() / 7)


class Probabilities(Wrapped):
    def forward(self, pixels: Tensor) -> Tensor:
        return self.network(pixels).softmax(1)


class Scaled(Wrapped):
    def forward(self, pixels: Tensor) -> Tensor:
        return self.network(pixels) * 1000


class Noisy(Wrapped):
    def forward(self, pixels: Tensor) -> Tensor:
        return self.network(pixels + 0.1 * torch.randn_like(pixels))


class _NumpyReLU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy(np.maximum(x.detach().numpy(), 0))


class NotDifferentiable(Wrapped):
    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        layers = self.network.network
        first = next(i for i, m in enumerate(layers) if isinstance(m, nn.ReLU))
        layers[first] = _NumpyReLU()

    def forward(self, pixels: Tensor) -> Tensor:
        return self.network(pixels)


class Training(Wrapped):
    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self.train()

    def forward(self, pixels: Tensor) -> Tensor:
        return self.network(pixels)


BROKEN: dict[str, type[Wrapped]] = {
    "quantised_input": Quantised,
    "probabilities": Probabilities,
    "saturated_loss": Scaled,
    "random_output": Noisy,
    "no_gradient": NotDifferentiable,
    "training_mode": Training,
}
"""The warning that each is due, and the model."""
