"""Formulas as text and as MathML."""

import xml.etree.ElementTree as ET

import pytest

from unmask.coursework.bounds.calculus import CALCULUS
from unmask.coursework.bounds.intervals import Interval
from unmask.report.notation import interval_mathml, mathml, plain

EXPRESSIONS = sorted(
    {
        text
        for c in CALCULUS.values()
        for text in (
            c.formula,
            c.slope_formula,
            *(e.expression for e in (c.low, c.high, c.slope_low, c.slope_high)),
            *(e.place for e in (c.low, c.high, c.slope_low, c.slope_high)),
        )
    }
)


def read(markup):
    return ET.fromstring(str(markup).replace("&nbsp;", " "))


def text_of(markup):
    return "".join(read(markup).itertext()).replace("\u2061", "").replace("\u2062", "")


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_formula_can_be_typeset_and_printed(expression):
    assert read(mathml(expression)).tag == "math"
    assert not set("*_\n") & set(plain(expression))


@pytest.mark.parametrize(
    ("expression", "line", "letters"),
    [
        ("1 - tanh(x)**2", "1 − tanh(x)²", "1−tanh2(x)"),
        ("(a - (b - c))*d", "(a − (b − c))·d", "(a−(b−c))d"),
        ("a/(b/c)", "a/(b/c)", "abc"),
        ("-(a + b)*c", "−(a + b)·c", "−(a+b)c"),
        ("(-x)**2", "(−x)²", "(−x)2"),
        ("2*(2/3)*x", "2·(2/3)·x", "2·23x"),
        ("x if x >= 0 else -x", "x if x ≥ 0, else −x", "{xif x≥0−xotherwise"),
        ("x -> -inf", "x → −∞", "x→−∞"),
        ("x -> 0-", "x → 0⁻", "x→0−"),
        ("approx(x, -0.5)", "x ≈ −0.5", "x≈−0.5"),
        ("abs(x) < inf", "|x| < ∞", "|x|<∞"),
        ("Phi(sqrt(2))*lam", "Φ(√2)·λ", "Φ(2)λ"),
    ],
)
def test_parentheses_stand_where_they_are_needed(expression, line, letters):
    assert plain(expression) == line
    assert text_of(mathml(expression)) == letters


def test_structure_of_a_fraction_a_root_and_a_power():
    fraction = read(mathml("2/sqrt(pi)*exp(-x**2)"))
    assert [e.tag for e in fraction.iter()] == [
        "math", "mrow", "mfrac", "mn", "msqrt", "mi", "mo", "msup", "mi", "mrow", "mo", "msup",
        "mi", "mn",
    ]  # fmt: skip


def test_intervals_show_their_ends():
    assert text_of(interval_mathml(Interval(-0.25, float("inf"), True, False))) == "[−0.25,∞)"


def test_what_has_no_notation_is_refused():
    with pytest.raises(ValueError, match="no notation"):
        mathml("[x]")
