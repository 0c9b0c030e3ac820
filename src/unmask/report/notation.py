"""Formulas, written as Python expressions, become plain text or MathML."""

from __future__ import annotations

import ast
import re

from markupsafe import Markup, escape

from unmask.coursework.bounds.intervals import Interval, shown

# How norms are written in reports and figures.
NORMS = {"linf": "L∞", "l2": "L2", "l1": "L1", "l0": "L0"}

_LETTERS = {
    "pi": "π",
    "inf": "∞",
    "Phi": "Φ",
    "phi": "φ",
    "sigma": "σ",
    "lam": "λ",
    "alpha": "α",
}
_PLAIN = (
    (r"\*\*2", "²"),
    (r"\*", "·"),
    (r"sqrt\((\w+)\)", r"√\1"),
    (r"abs\((\w+)\)", r"|\1|"),
    (r"approx\((.+), (.+)\)", r"\1 ≈ \2"),
    (r"->", "→"),
    (r"(→ .+)-$", r"\1⁻"),
    (r"==", "="),
    (r"<=", "≤"),
    (r">=", "≥"),
    (r"-", "−"),
    (r" else ", ", else "),
)
_RELATIONS: dict[type[ast.cmpop], str] = {
    ast.Eq: "=",
    ast.Lt: "<",
    ast.LtE: "≤",
    ast.Gt: ">",
    ast.GtE: "≥",
}
_SUM, _PRODUCT, _SIGN, _POWER, _ATOM = range(5)


def plain(expression: str) -> str:
    """Return a formula or a condition as one line of Unicode: "1 − tanh(x)²"."""
    for pattern, replacement in _PLAIN:
        expression = re.sub(pattern, replacement, expression)
    return re.sub(r"[A-Za-z]+", lambda word: _LETTERS.get(word[0], word[0]), expression)


def mathml(expression: str) -> Markup:
    """Return a formula or a condition as a math element."""
    return Markup('<math displaystyle="true">{}</math>').format(_place(expression))


def interval_mathml(interval: Interval) -> Markup:
    """Return an interval as a math element, with round brackets at open ends."""
    return Markup("<math><mrow>{}{}{}{}{}</mrow></math>").format(
        _operator("[" if interval.low_closed else "("),
        number_mathml(shown(interval.low)),
        _operator(","),
        number_mathml(shown(interval.high)),
        _operator("]" if interval.high_closed else ")"),
    )


def number_mathml(digits: str) -> Markup:
    """Return a number, as `shown` writes it, for the inside of a math element."""
    if digits.startswith("−"):
        return _row(_operator("−"), number_mathml(digits[1:]))
    return Markup("<mn>{}</mn>").format(digits)


def _place(expression: str) -> Markup:
    source, arrow, limit = expression.partition("->")
    if not arrow:
        return _node(ast.parse(source, mode="eval").body)
    value = _place(limit.strip().removesuffix("-"))
    if limit.endswith("-"):
        value = Markup("<msup>{}{}</msup>").format(value, _operator("−"))
    return _row(_place(source.strip()), _operator("→"), value)


def _node(node: ast.expr, binding: int = _SUM) -> Markup:
    """Return the node, in parentheses where it binds less strongly than its surroundings."""
    markup, own = _written(node)
    return _bracketed(markup) if own < binding else markup


def _written(node: ast.expr) -> tuple[Markup, int]:
    """Return the node's markup and how strongly it binds."""
    match node:
        case ast.Constant(value=value):
            return number_mathml(str(value)), _ATOM
        case ast.Name(id=name):
            return Markup("<mi>{}</mi>").format(_LETTERS.get(name, name)), _ATOM
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _row(_operator("−"), _node(operand, _SIGN)), _SUM
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub() as op, right=right):
            sign = _operator("+" if isinstance(op, ast.Add) else "−")
            return _row(_node(left), sign, _node(right, _PRODUCT)), _SUM
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            times = _operator(
                "·" if _ends_innumber_mathml(left) and _isnumber_mathml(right) else "\u2062"
            )
            leads = _SUM if isinstance(left, ast.UnaryOp) else _PRODUCT
            return _row(_node(left, leads), times, _node(right, _SIGN)), _PRODUCT
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            return Markup("<mfrac>{}{}</mfrac>").format(_node(left), _node(right)), _SIGN
        case ast.BinOp(left=ast.Call(func=function, args=[argument]), op=ast.Pow(), right=right):
            power = Markup("<msup>{}{}</msup>").format(_node(function), _node(right))
            return _row(power, _bracketed(_node(argument))), _POWER
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            base = _node(left, _ATOM)
            return Markup("<msup>{}{}</msup>").format(base, _node(right)), _POWER
        case ast.Call(func=ast.Name(id=name), args=arguments):
            return _call(name, arguments), _POWER
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            return _row(_node(left), _operator(_RELATIONS[type(op)]), _node(right)), _SUM
        case ast.IfExp(test=test, body=body, orelse=other):
            return _cases(_node(body), _node(test), _node(other)), _ATOM
    raise ValueError(f"no notation for {ast.unparse(node)}")


def _call(name: str, arguments: list[ast.expr]) -> Markup:
    first = _node(arguments[0])
    match name:
        case "sqrt":
            return Markup("<msqrt>{}</msqrt>").format(first)
        case "abs":
            return _row(_operator("|"), first, _operator("|"))
        case "exp":
            return Markup("<msup><mi>e</mi>{}</msup>").format(first)
        case "approx":
            return _row(first, _operator("≈"), _node(arguments[1]))
    symbol = Markup("<mi>{}</mi>").format(_LETTERS.get(name, name))
    return _row(symbol, _operator("\u2061"), _bracketed(first))


def _cases(body: Markup, test: Markup, other: Markup) -> Markup:
    return Markup(
        "<mrow><mo>{{</mo><mtable>"
        "<mtr><mtd>{}</mtd><mtd><mtext>if&nbsp;</mtext>{}</mtd></mtr>"
        "<mtr><mtd>{}</mtd><mtd><mtext>otherwise</mtext></mtd></mtr>"
        "</mtable></mrow>"
    ).format(body, test, other)


def _isnumber_mathml(node: ast.expr) -> bool:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        return _isnumber_mathml(node.left) and _isnumber_mathml(node.right)
    return isinstance(node, ast.Constant)


def _ends_innumber_mathml(node: ast.expr) -> bool:
    is_product = isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult)
    return _isnumber_mathml(node.right if is_product else node)  # type: ignore[attr-defined]


def _row(*parts: Markup) -> Markup:
    return Markup("<mrow>{}</mrow>").format(Markup("").join(parts))


def _bracketed(markup: Markup) -> Markup:
    return _row(_operator("("), markup, _operator(")"))


def _operator(sign: str) -> Markup:
    return Markup("<mo>{}</mo>").format(escape(sign))
