"""Images held out: a part of every class, and a function of the seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unmask.data.images import Images
from unmask.errors import UserError
from unmask.train.holdout import hold_out


def numbered(labels: list[int]) -> Images:
    pixels = np.arange(len(labels), dtype=np.uint8)[:, None, None, None]
    names = tuple(f"class {k}" for k in range(max(labels) + 1))
    return Images(pixels, np.array(labels), names, "numbered")


@given(
    counts=st.lists(st.integers(2, 40), min_size=2, max_size=5),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 9),
)
@settings(max_examples=50, deadline=None)
def test_every_class_is_on_both_sides_and_no_picture_on_two(
    counts: list[int], fraction: float, seed: int
) -> None:
    images = numbered([k for k, n in enumerate(counts) for _ in range(n)])
    train, held = hold_out(images, fraction, seed=seed)
    both = np.concatenate([train.pixels, held.pixels]).ravel()
    assert sorted(both.tolist()) == list(range(len(images)))
    for k, n in enumerate(counts):
        expected = min(max(round(fraction * n), 1), n - 1)
        assert int((held.labels == k).sum()) == expected
    again = hold_out(images, fraction, seed=seed)[1]
    assert again.sha256 == held.sha256


def test_a_class_with_one_picture_is_named() -> None:
    with pytest.raises(UserError, match=r"'class 1' of numbered has too few.*got 1"):
        hold_out(numbered([0, 0, 1, 2, 2]), 0.2, seed=0)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -1.0, float("nan")])
def test_a_part_out_of_range_is_refused(fraction: float) -> None:
    with pytest.raises(UserError, match="held out"):
        hold_out(numbered([0, 0, 1, 1]), fraction, seed=0)
