"""Small made-up images and networks that learn them in a second."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from unmask.data.images import Images
from unmask.models.classifier import Classifier


@pytest.fixture
def shapes() -> Images:
    """240 noisy colour images of 12 x 12 of three patterns that a small net can tell apart."""
    rng = np.random.default_rng(7)
    patterns = rng.integers(0, 256, (3, 3, 12, 12))
    labels = rng.integers(0, 3, 240)
    noise = rng.integers(-90, 90, (240, 3, 12, 12))
    pixels = np.clip(patterns[labels] + noise, 0, 255).astype(np.uint8)
    return Images(pixels, labels, ("a", "b", "c"), "patterns")


@pytest.fixture
def make() -> Callable[..., Classifier]:
    """A function that returns a fresh small classifier for the shapes."""

    def fresh(architecture: str = "block_cnn", seed: int = 0, **settings: object) -> Classifier:
        return Classifier.create(
            architecture,
            settings or {"widths": [8, 16]},
            class_names=("a", "b", "c"),
            input_shape=(3, 12, 12),
            mean=(0.5, 0.5, 0.5),
            std=(0.25, 0.25, 0.25),
            seed=seed,
        )

    return fresh
