"""How many images a network is fed at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from unmask.cli.batches import batches_for, usual_batch


# 2 * 64 * 64 * 9 operations a pixel: 0.6, 1.2, 2.4 and 4.8 billion an image.
@pytest.mark.parametrize(("side", "batch"), [(90, 64), (128, 32), (181, 16), (256, 8)])
def test_large_networks_are_fed_fewer_images(side: int, batch: int) -> None:
    network = nn.Conv2d(64, 64, 3, padding=1, bias=False)
    assert usual_batch(network, torch.zeros(2, 64, side, side)) == batch


def test_images_that_a_network_refuses_are_not_counted() -> None:
    assert usual_batch(nn.Linear(784, 10), torch.zeros(2, 1, 28, 28)) == 64


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [None, 8])
def test_grey_images_are_read_with_the_channels_of_the_network(
    channels: int, size: int | None, tmp_path: Path
) -> None:
    for name in ("dark", "light"):
        (tmp_path / name).mkdir()
        for k in range(2):
            Image.fromarray(np.full((9, 9), k, np.uint8)).save(tmp_path / name / f"{k}.png")
    network = nn.Sequential(nn.Conv2d(channels, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    inputs, _ = next(batches_for(network, str(tmp_path), 2, size).of_seed(0))
    assert inputs.shape == (2, channels, size or 9, size or 9)
