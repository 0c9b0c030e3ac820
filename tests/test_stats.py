"""Intervals against their closed form and printed tables."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unmask.stats import student_t, wilson


@settings(deadline=None)
@given(st.integers(1, 5000), st.floats(0, 1))
def test_wilson_bounds_solve_their_equation(count: int, fraction: float) -> None:
    right, z = round(fraction * count), 1.959963984540054
    low, high = wilson(right, count)
    for bound in (low, high):
        if 0 < bound < 1:
            gap = abs(right / count - bound)
            assert gap == pytest.approx(z * math.sqrt(bound * (1 - bound) / count), abs=1e-9)
    assert low <= right / count <= high


def test_of_nothing_nothing_is_known() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("df", "value"), [(1, 12.706), (2, 4.303), (3, 3.182), (10, 2.228)])
def test_student_t_against_its_printed_table(df: int, value: float) -> None:
    assert student_t(df) == pytest.approx(value, abs=5e-4)
