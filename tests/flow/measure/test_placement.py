"""Placement: masks that lie in their images, and masks of a mirror image."""

import numpy as np
import pytest
import torch

from unmask.flow.measure.placement import Placement, between


def scenes(n: int, noise: float = 0.1, seed: int = 0):
    """Return images of a bright rectangle on darker ground, and its masks."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((n, 32, 32), np.int64)
    for mask in masks:
        top, left = rng.integers(0, 20, 2)
        mask[top : top + rng.integers(4, 10), left : left + rng.integers(4, 10)] = 1
    images = 0.3 + 0.5 * masks[:, None] + noise * rng.standard_normal((n, 3, 32, 32))
    return torch.from_numpy(images).float(), torch.from_numpy(masks)


@pytest.mark.parametrize(
    ("turn", "name"),
    [
        (lambda m: m.flip(2), "left and right"),
        (lambda m: m.flip(1), "top and bottom"),
        (lambda m: m.mT, "rows and columns"),
    ],
)
@pytest.mark.parametrize("kind", [torch.int64, torch.float32])
def test_turned_masks_fit_better_turned_back(turn, name, kind):
    placement = Placement()
    images, masks = scenes(16)
    placement.add(images, masks.to(kind))
    straight, turned = placement.counts[name]
    assert straight > 8
    assert turned <= 1
    placement = Placement()
    placement.add(images, turn(masks).to(kind)[:, None])
    straight, turned = placement.counts[name]
    assert turned > 8
    assert straight <= 1


def test_images_that_show_nothing_of_their_masks_tell_nothing():
    placement = Placement()
    images, _ = scenes(16, noise=1.0)
    _, masks = scenes(16, seed=1)
    placement.add(images, masks)
    assert not placement.counts


@pytest.mark.parametrize(
    "masks", [torch.zeros(4, 16, 16), torch.rand(4, 3, 32, 32), torch.zeros(4, dtype=torch.int64)]
)
def test_targets_that_are_no_masks_are_left_alone(masks):
    placement = Placement()
    placement.add(scenes(4)[0], masks)
    assert not placement.counts


def test_the_part_between_classes_is_that_of_an_analysis_of_variance():
    rng = np.random.default_rng(0)
    image, codes = rng.standard_normal((1, 20, 20)), rng.integers(0, 3, (20, 20))
    image[0] += codes
    means = np.array([image[0][codes == k].mean() for k in range(3)])
    expected = np.var(means[codes]) / np.var(image)
    assert between(image, codes) == pytest.approx(expected, rel=1e-12)
    assert between(np.ones((1, 4, 4)), np.eye(4, dtype=np.int64)) == 0
