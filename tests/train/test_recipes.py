"""Recipes build what they say, and their classifiers depend on images and seed alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unmask.data.images import Images
from unmask.errors import UserError
from unmask.train.recipes import RECIPES, prepared, recipe

SHAPES = {"mnist": (1, 28, 28), "cifar10": (3, 32, 32), "pictures": (3, 40, 24)}


def noise(shape: tuple[int, int, int], count: int = 30, classes: int = 10) -> Images:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 200, (count, *shape), np.uint8)
    names = tuple(f"class {k}" for k in range(classes))
    return Images(pixels, random.integers(0, classes, count), names, "noise")


@pytest.mark.parametrize(("kind", "name"), [(k, n) for k, r in RECIPES.items() for n in r])
def test_every_recipe_builds_a_classifier_of_its_pictures(kind: str, name: str) -> None:
    images = noise(SHAPES[kind])
    chosen = recipe(kind, name, len(images))
    classifier = prepared(chosen, images, seed=0).eval()
    assert classifier(torch.rand(2, *SHAPES[kind])).shape == (2, 10)
    pixels = images.pixels / 255
    np.testing.assert_allclose(classifier.card.mean, pixels.mean((0, 2, 3)), atol=1e-4)
    np.testing.assert_allclose(classifier.card.std, pixels.std((0, 2, 3)), atol=1e-4)
    again = prepared(chosen, images, seed=0).eval()
    pairs = zip(classifier.state_dict().values(), again.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_a_channel_that_never_changes_is_not_divided_by_zero() -> None:
    flat = np.full((4, 3, 16, 16), 7, np.uint8)
    images = Images(flat, np.array([0, 1, 0, 1]), ("a", "b"), "flat")
    classifier = prepared(recipe("pictures", "fast", 4), images, seed=0).eval()
    assert torch.isfinite(classifier(torch.rand(1, 3, 16, 16))).all()


@pytest.mark.parametrize("count", [4, 100, 5_000, 1_000_000])
def test_small_and_large_folders_take_a_bounded_number_of_steps(count: int) -> None:
    config = recipe("pictures", "fast", count).config
    assert 1 <= config.batch_size <= count or count < 8
    assert 5 <= config.epochs <= 200


def test_an_unknown_recipe_lists_those_there_are() -> None:
    with pytest.raises(UserError, match="did you mean 'fast'"):
        recipe("mnist", "fats", 1)
