from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from xml.sax.saxutils import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unmask.text import figure, listed, moment, power_of_ten, printable, span


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


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cat", "cat"),
        ("Füße 面具 👩\u200d🚀", "Füße 面具 👩\u200d🚀"),
        ("\x1b[2J", "\\x1b[2J"),
        ("a\r\nb\tc", "a\\r\\nb\\tc"),
        ("\u202egpj", "\\u202egpj"),
        ("half \udce9", "half \\udce9"),
        ("\u2028", "\\u2028"),
    ],
)
def test_foreign_text_is_made_printable(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(shown) == shown


def test_lines_are_kept_and_long_text_is_cut_where_asked() -> None:
    assert printable("a\n\tb\r", lines=True) == "a\n\tb\\r"
    assert printable("abcdef", most=4) == "abc…"
    assert printable("abcd", most=4) == "abcd"


@given(st.text())
def test_what_is_printable_is_text_for_every_reader(text: str) -> None:
    shown = printable(text)
    assert shown.encode().decode() == shown
    ET.fromstring(f"<a>{escape(shown)}</a>")
