"""Formulas evaluated: against plain Python row by row, over blocks of rows, with missing values."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dssm_assets.core.arrays.ragged import offsets_of
from dssm_assets.core.features.column_values import Numbers
from dssm_assets.core.features.formula.formula import Column, Formula, parse_formula, parse_normalizer
from dssm_assets.core.features.formula.functions import FOLDS, FUNCTIONS, INFIX, VECTOR_FUNCTIONS, Vectors
from dssm_assets_tests.core.features import formula_trees
from dssm_assets_tests.core.features.formula_trees import Tree

NAN = math.nan
Row = tuple[float | None, float | None, float | None]

whole = st.one_of(st.none(), st.integers(-4, 4).map(float))
finite = st.floats(allow_nan=False, allow_infinity=False)
reals = st.one_of(whole, finite, st.sampled_from([0.5, -2.5, 1e308, -1e308, 2.0**53]))
EXACT = formula_trees.trees(formula_trees.WITHOUT_POWER, tuple(formula_trees.CALLS), st.sampled_from([0, 1, 2, 0.5, 7, 1e300]))
POWERS = formula_trees.trees(formula_trees.OF_WHOLE_NUMBERS, ("abs", "min", "max", "sign"), st.sampled_from([0, 1, 2, 3]))
EVERY_FUNCTION = [
    *(f"{function.name}({', '.join('abcd'[: function.arity])})" for function in FUNCTIONS.values()),
    *(f"{name}(a, b, 1)" for name in FOLDS),
    *(f"a {operator} b" for operator in INFIX),
    *(f"a ^ {power}" for power in (2, 3, 0.5, -1)),
    *("-a", "!a", "a ? b : c", "a > 0.5 ? ln(b) : exp(a)"),
]
EVERY_VECTOR_FUNCTION = [f"{function.name}({', '.join('ab'[: function.arity])})" for function in VECTOR_FUNCTIONS.values()]


def numbers(values: list[float | None]) -> Numbers:
    return np.array([NAN if value is None else value for value in values], dtype=np.float64)


def vectors(rows: list[list[float | None]]) -> Vectors:
    return Vectors(numbers([number for row in rows for number in row]), offsets_of([len(row) for row in rows]))


def formula_of(text: str) -> Formula:
    return parse_formula(text, tuple(sorted(set(re.findall(r"\b[abcd]\b", text)))))


def values(text: str, **columns: list[float | None]) -> list[float | None]:
    count = len(next(iter(columns.values()))) if columns else 1
    result = formula_of(text).evaluate({name: numbers(rows) for name, rows in columns.items()}, count)
    return [None if math.isnan(value) else value for value in result.tolist()]


def plain_values(tree: Tree, rows: list[Row]) -> Numbers:
    return numbers([formula_trees.value_of(tree, dict(zip("abc", row, strict=True))) for row in rows])


def columns_of(rows: list[Row]) -> dict[str, Column]:
    return {name: numbers([row[place] for row in rows]) for place, name in enumerate("abc")}


@given(EXACT, st.lists(st.tuples(reals, reals, reals), max_size=6))
def test_formula_equals_plain_python(tree: Tree, rows: list[Row]) -> None:
    formula = formula_of(formula_trees.text_of(tree, lambda: False))
    np.testing.assert_array_equal(formula.evaluate(columns_of(rows), len(rows)), plain_values(tree, rows))


@given(POWERS, st.lists(st.tuples(whole, whole, whole), max_size=6))
def test_powers_equal_plain_python(tree: Tree, rows: list[Row]) -> None:
    formula = formula_of(formula_trees.text_of(tree, lambda: False))
    np.testing.assert_allclose(formula.evaluate(columns_of(rows), len(rows)), plain_values(tree, rows), rtol=1e-12)


@pytest.mark.parametrize("text", EVERY_FUNCTION)
@settings(max_examples=8)
@given(rows=st.lists(st.tuples(reals, reals, reals, reals), min_size=1, max_size=20))
def test_batch_equals_its_rows_and_holds_no_infinity(text: str, rows: list[tuple[float | None, ...]]) -> None:
    formula = formula_of(text)
    columns = {name: numbers([row[place] for row in rows]) for place, name in enumerate("abcd")}
    result = formula.evaluate(columns, len(rows))
    alone = [formula.evaluate({name: column[i : i + 1] for name, column in columns.items()}, 1)[0] for i in range(len(rows))]
    np.testing.assert_array_equal(result, alone)
    assert not np.isinf(result).any()


@pytest.mark.parametrize("text", EVERY_VECTOR_FUNCTION)
@settings(max_examples=8)
@given(data=st.data())
def test_batch_of_vectors_equals_its_rows_and_holds_no_infinity(text: str, data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.tuples(st.integers(0, 20), st.sampled_from([0, 0, 1])), max_size=8))
    left = [data.draw(st.lists(reals, min_size=n, max_size=n)) for n, _ in lengths]
    right = [data.draw(st.lists(reals, min_size=n + more, max_size=n + more)) for n, more in lengths]
    columns: dict[str, Column] = {"a": vectors(left), "b": vectors(right)}
    formula = formula_of(text)
    result = formula.evaluate(columns, len(lengths))
    alone = [formula.evaluate({"a": vectors([a]), "b": vectors([b])}, 1)[0] for a, b in zip(left, right, strict=True)]
    np.testing.assert_array_equal(result, alone)
    assert not np.isinf(result).any()


def test_formula_does_not_modify_its_columns() -> None:
    column = np.array([1.0, NAN, -1.0])
    for text in ("a", "+a", "max(a)", "a / 0", "a > 0", "a ^ 2"):
        result = formula_of(text).evaluate({"a": column}, 3)
        result[:] = 7
        np.testing.assert_array_equal(column, [1.0, NAN, -1.0])


def test_values_by_hand() -> None:
    assert values("a*2 + log10(b) > 1 ? a : b", a=[0.0, 3.0, None, 1.0], b=[100.0, 10.0, 1.0, None]) == [0, 3, None, None]
    assert values("avg(1, 2, 6) + sum(1, 2, 6) + min(1, 2, 6) + max(1, 2, 6)") == [3 + 9 + 1 + 6]
    assert values("min(a, b)", a=[1.0, None], b=[2.0, 2.0]) == [1, None]
    assert values("_pi - _e") == [math.pi - math.e]


@pytest.mark.parametrize(
    "text", ["a + 1", "a * 0", "a == a", "a != 1", "a < 1", "a && 0", "a || 1", "!a", "a & 0", "a | 1", "a ^ 0", "1 ^ a",
             "min(a, 1)", "sum(1, a)", "a ? 1 : 1", "abs(a)", "round(a)", "sigmoid(a)", "roundp(1, a)", "1 ? a : 1"],
)  # fmt: skip
def test_result_is_missing_if_an_operand_is(text: str) -> None:
    assert values(text, a=[None]) == [None]
    assert values(text, a=[1.0]) != [None]


def test_branch_that_is_not_chosen_may_be_missing() -> None:
    assert values("a ? b : c", a=[1.0, 0.0, -0.5], b=[5.0, None, 6.0], c=[None, 4.0, None]) == [5, 4, 6]


@pytest.mark.parametrize(
    "text", ["1/a", "0/a", "a^-1", "log(a)", "ln(a-1)", "log2(a)", "log10(a-1)", "sqrt(a-1)", "(a-1)^0.5", "asin(a+2)",
             "acos(a-2)", "acosh(a)", "atanh(a+1)", "exp(a+710)", "sinh(a+711)", "cosh(a-711)", "(a+10)^309", "1e308*(a+10)",
             "(a+1e308)+1e308", "(a-1e308)-1e308", "sum(1e308,a,1e308)", "avg(1e308,a,1e308)", "(1/a > 0) ? 1 : 2"],
)  # fmt: skip
def test_result_that_is_not_finite_is_missing(text: str) -> None:
    assert values(text, a=[0.0]) == [None]


def test_bitwise_operators_need_whole_numbers_below_2_to_the_53() -> None:
    assert values("a & b", a=[6.0, -1.0, 6.5, 2.0**53, 2.0**53 - 1], b=[3.0, 12.0, 3.0, 1.0, 5.0]) == [2, 12, None, None, 5]
    assert values("a | b", a=[6.0, -2.0, 1.0], b=[3.0, 1.0, 0.5]) == [7, -1, None]


def test_vectors_and_numbers_in_one_formula() -> None:
    columns: dict[str, Column] = {
        "a": vectors([[0.2, 0.3], [], [1.0]]),
        "b": vectors([[0.2, 0.2], [], [2.0]]),
        "c": numbers([1, 1, None]),
    }
    result = formula_of("dot(a, b) + c * len(a)").evaluate(columns, 3)
    np.testing.assert_allclose(result, [2.1, NAN, NAN])
    assert formula_of("dot(a, b) + c * len(a)").vectors == {"a", "b"}


def test_variables_must_be_used_and_have_valid_names() -> None:
    with pytest.raises(ValueError, match=r"'a' does not use the variables b, c; remove them or use them"):
        parse_formula("a", ("a", "b", "c"))
    with pytest.raises(ValueError, match="letters"):
        parse_formula("1", ("u-age",))


ALL = [
    "method=log10",
    "method=zscore,mean=1,standard_deviation=2",
    "method=minmax,min=1,max=3",
    "method=expression,expr=exp(x)",
]


def normalized_values(text: str, *numbers: float) -> list[float | None]:
    result = parse_normalizer(text)(np.array(numbers, dtype=np.float64))
    return [None if math.isnan(number) else number for number in result.tolist()]


@pytest.mark.parametrize("text", [*ALL, "method=expression,expr=1 ? 2 : x", "method=expression,expr=x*0"])
def test_normalizers_keep_missing_numbers(text: str) -> None:
    found = normalized_values(text, math.nan, 1.0)
    assert found[0] is None
    assert found[1] is not None


def test_normalizers_by_hand() -> None:
    assert normalized_values("method=log10", 100.0, 0.0, -5.0) == [2, -10, -10]
    assert normalized_values("method=log10,threshold=1,default=-1", 1.0, 10.0) == [-1, 1]
    assert normalized_values("method=zscore,mean=10,standard_deviation=2", 10.0, 14.0) == [0, 2]
    assert normalized_values("method=minmax,min=2,max=10", 2.0, 6.0) == [0, 0.5]


def test_formula_of_a_normalizer_is_the_rest_of_the_text() -> None:
    assert normalized_values("method=expression,expr=sign(x)", -7.0, 0.0, 2.0) == [-1, 0, 1]
    assert normalized_values(" method = expression , expr = min(x, 3) ", 2.0, 9.0) == [2, 3]
    assert normalized_values("method=expression,expr=x==2 ? 1 : max(x,5,7)", 2.0, 8.0) == [1, 8]
    assert normalized_values("method=expression,expr=\nx\n+ 1", 1.0) == [2]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("method=expression", "written method=expression,expr=... with a formula of x"),
        ("method=expression,formula=x", "written method=expression"),
        ("expr=x,method=expression", "written method=expression"),
        ("method=expression,expr=", "position 1: expected a number"),
        ("method=expression,expr=y+1", r"expected a variable or a constant \(x, _pi, _e\), got 'y'"),
        ("method=expression,expr=3", "does not use the variables x"),
        ("method=expression,expr=len(x)", "x is one number in a normalizer"),
        ("method=expression,expr=x,mean=1", "position 2: expected an operator or the end, got ','"),
        ("method=log2", "unknown normalizer method 'log2'; a method is one of log10, zscore, minmax, expression"),
        ("log10", "unknown normalizer method ''"),
        ("method=zscore,mean=1", r"unknown: \[\], missing: \['standard_deviation'\]"),
        ("method=log10,base=2", r"unknown: \['base'\]"),
        ("method=log10,default=x", "no finite number"),
        ("method=log10,default=inf", "finite"),
        ("method=log10,threshold=-1", "negative"),
        ("method=log10,default=1,default=2", "repeats a parameter"),
        ("method=zscore,mean=1,standard_deviation=0", "above zero"),
        ("method=minmax,min=1,max=1", "above zero"),
    ],
)
def test_malformed_normalizers_are_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_normalizer(text)
