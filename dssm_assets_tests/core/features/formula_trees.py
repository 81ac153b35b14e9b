"""Random formulas as trees: their texts, and their value for one row by plain Python, for the tests of formulas.

A tree is a tuple: ("number", x), ("variable", name), ("prefix", operator, tree), ("infix", operator, left, right),
("choice", condition, tree, tree), ("call", name, trees).
"""

from __future__ import annotations

import decimal
import math
from collections.abc import Callable, Mapping
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

Tree = tuple[Any, ...]

LOOSE_TO_TIGHT = (
    ("||",),
    ("&&",),
    ("|",),
    ("&",),
    ("<", "<=", ">", ">=", "==", "!="),
    ("+", "-"),
    ("*", "/"),
    ("sign",),
    ("^",),
)
RANKS = {operator: rank for rank, operators in enumerate(LOOSE_TO_TIGHT, 1) for operator in operators}
INFIX = tuple(operator for operator in RANKS if operator != "sign")
WITHOUT_POWER = tuple(operator for operator in INFIX if operator != "^")
OF_WHOLE_NUMBERS = tuple(operator for operator in INFIX if operator != "/")

CALLS: dict[str, Callable[..., float]] = {
    "abs": abs,
    "floor": math.floor,
    "ceil": math.ceil,
    "trunc": math.trunc,
    "sign": lambda x: (x > 0) - (x < 0),
    "rint": round,
    "round": lambda x: float(decimal.Decimal(x).to_integral_value(decimal.ROUND_HALF_UP)),
    "sqrt": math.sqrt,
    "min": min,
    "max": max,
}
FOLDS = ("min", "max")


def trees(infix: tuple[str, ...], calls: tuple[str, ...], numbers: SearchStrategy[float]) -> SearchStrategy[Tree]:
    """Returns trees of these operators, functions and literals over the variables a, b and c."""
    leaves = st.one_of(st.tuples(st.just("number"), numbers), st.tuples(st.just("variable"), st.sampled_from("abc")))

    def grown(inner: SearchStrategy[Tree]) -> SearchStrategy[Tree]:
        called = st.sampled_from(calls).flatmap(
            lambda name: st.tuples(
                st.just("call"), st.just(name), st.lists(inner, min_size=1, max_size=3 if name in FOLDS else 1).map(tuple)
            )
        )
        return st.one_of(
            st.tuples(st.just("prefix"), st.sampled_from("-!"), inner),
            st.tuples(st.just("infix"), st.sampled_from(infix), inner, inner),
            st.tuples(st.just("infix"), st.sampled_from(infix), inner, inner),
            st.tuples(st.just("choice"), inner, inner, inner),
            called,
        )

    return st.recursive(leaves, grown, max_leaves=12)


def rank_of(tree: Tree) -> int:
    """Returns how tightly the outermost operator binds."""
    match tree[0]:
        case "infix":
            return RANKS[tree[1]]
        case "prefix":
            return RANKS["sign"]
        case "choice":
            return 0
    return len(LOOSE_TO_TIGHT) + 1


def text_of(tree: Tree, more: Callable[[], bool]) -> str:
    """Returns the tree's text: parentheses where the grammar needs them, and wherever `more` says so."""

    def part(inner: Tree, is_needed: bool) -> str:
        text = text_of(inner, more)
        return f"({text})" if is_needed or more() else text

    match tree:
        case ("prefix", operator, inner):
            text = f"{operator}{part(inner, rank_of(inner) < RANKS['sign'])}"
        case ("infix", "^", left, right):
            # A sign after ^ needs none: nothing else can be meant.
            text = f"{part(left, rank_of(left) <= RANKS['^'])}^{part(right, rank_of(right) < RANKS['sign'])}"
        case ("infix", operator, left, right):
            own = RANKS[operator]
            text = f"{part(left, rank_of(left) < own)} {operator}{part(right, rank_of(right) <= own)}"
        case ("choice", condition, if_true, if_false):
            text = f"{part(condition, rank_of(condition) == 0)} ?{part(if_true, False)}: {part(if_false, False)}"
        case ("call", name, arguments):
            text = f"{name}({', '.join(part(argument, False) for argument in arguments)})"
        case _:
            text = str(tree[1])
    return text


def value_of(tree: Tree, row: Mapping[str, float | None]) -> float | None:
    """Returns the tree's value for one row, None for missing."""
    match tree:
        case ("choice", condition, if_true, if_false):
            truth = value_of(condition, row)
            return None if truth is None else value_of(if_true if truth else if_false, row)
        case ("call", name, arguments):
            return _applied(CALLS[name] if len(arguments) > 1 or name not in FOLDS else float, arguments, row)
        case ("prefix", operator, inner):
            return _applied({"-": lambda x: -x, "!": lambda x: not x}[operator], (inner,), row)
        case ("infix", operator, left, right):
            return _applied(_INFIX[operator], (left, right), row)
    return float(tree[1]) if tree[0] == "number" else row[tree[1]]


def _applied(compute: Callable[..., float], trees: tuple[Tree, ...], row: Mapping[str, float | None]) -> float | None:
    operands = [value_of(tree, row) for tree in trees]
    if any(operand is None for operand in operands):
        return None
    try:
        value = float(compute(*operands))
    except (ArithmeticError, ValueError):
        return None
    return value if math.isfinite(value) else None


def _whole(number: float) -> int:
    if not number.is_integer() or abs(number) >= 2**53:
        raise ValueError("no whole number")
    return int(number)


_INFIX: dict[str, Callable[[float, float], float]] = {
    "+": lambda x, y: x + y,
    "-": lambda x, y: x - y,
    "*": lambda x, y: x * y,
    "/": lambda x, y: x / y,
    "^": math.pow,
    "&": lambda x, y: _whole(x) & _whole(y),
    "|": lambda x, y: _whole(x) | _whole(y),
    "&&": lambda x, y: bool(x) and bool(y),
    "||": lambda x, y: bool(x) or bool(y),
    "<": lambda x, y: x < y,
    "<=": lambda x, y: x <= y,
    ">": lambda x, y: x > y,
    ">=": lambda x, y: x >= y,
    "==": lambda x, y: x == y,
    "!=": lambda x, y: x != y,
}
