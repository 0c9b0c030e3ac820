"""The plan of an audit: its defaults by the number of images."""

from __future__ import annotations

import pytest

from unmask.fool.audit.plan import default_pairs


@pytest.mark.parametrize(("images", "pairs"), [(8, 1), (200, 2), (1000, 10), (60_000, 10)])
def test_pairs_which_take_longest_grow_with_the_images(images: int, pairs: int) -> None:
    assert default_pairs(images) == pairs
