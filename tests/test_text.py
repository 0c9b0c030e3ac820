from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unmask.text import figure, listed, moment, power_of_ten, span


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (17, "17"),
        (1.0, "1.0"),
        (0.06, "0.060"),
        (0.0996, "0.10"),
        (12.3, "12"),
        (1234.0, "1234"),
        (0.00012, "1.2 × 10⁻⁴"),
        (6.9e-27, "6.9 × 10⁻²⁷"),
        (5e-324, "4.9 × 10⁻³²⁴"),
        (math.nan, "–"),
        (math.inf, "∞"),
    ],
)
def test_a_figure_has_two_digits(value: float, text: str) -> None:
    assert figure(value) == text


@given(st.floats(1e-300, 1e300))
def test_a_figure_reads_back_within_five_per_cent(value: float) -> None:
    digits = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
    read = float(figure(value).replace(" × 10", "e").translate(digits))
    assert read == pytest.approx(value, rel=0.0501)


def test_words() -> None:
    assert span([0.5, 0.1]) == "0.10 to 0.50"
    assert span([0.101, 0.102]) == "0.10"
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert (moment(0), moment(1), moment(3)) == ("at the start", "after 1 epoch", "after 3 epochs")
    assert power_of_ten(-12) == "10⁻¹²"
