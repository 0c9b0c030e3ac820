"""Small made-up images, so that the engine's tests need no dataset."""

from __future__ import annotations

import numpy as np
import pytest

from unmask.data.images import Images


@pytest.fixture
def digits() -> Images:
    """150 noisy images of three patterns that a small net can tell apart."""
    rng = np.random.default_rng(7)
    patterns = rng.integers(0, 256, (3, 1, 6, 7))
    labels = rng.integers(0, 3, 150)
    noise = rng.integers(-40, 40, (150, 1, 6, 7))
    pixels = np.clip(patterns[labels] + noise, 0, 255).astype(np.uint8)
    return Images(pixels, labels, ("a", "b", "c"), "patterns")
