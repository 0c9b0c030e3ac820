"""The interval of a proportion, against scipy's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from unmask.intervals import wilson


@given(st.integers(1, 5000), st.floats(0, 1))
def test_the_interval_is_that_of_scipy(count: int, part: float) -> None:
    right = round(part * count)
    theirs = binomtest(right, count).proportion_ci(0.95, method="wilson")
    assert wilson(right, count) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_of_nothing_nothing_is_known() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
