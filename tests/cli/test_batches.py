"""How many images a network is fed at once."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from unmask.cli.batches import usual_batch


# 2 * 64 * 64 * 9 operations a pixel: 0.6, 1.2, 2.4 and 4.8 billion an image.
@pytest.mark.parametrize(("side", "batch"), [(90, 64), (128, 32), (181, 16), (256, 8)])
def test_large_networks_are_fed_fewer_images(side: int, batch: int) -> None:
    network = nn.Conv2d(64, 64, 3, padding=1, bias=False)
    assert usual_batch(network, torch.zeros(2, 64, side, side)) == batch


def test_images_that_a_network_refuses_are_not_counted() -> None:
    assert usual_batch(nn.Linear(784, 10), torch.zeros(2, 1, 28, 28)) == 64
