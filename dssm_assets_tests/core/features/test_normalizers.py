"""Normalizers: their grammar, their arithmetic, and that missing stays missing."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.features.normalizers import parse_normalizer

ALL = [
    "method=log10",
    "method=zscore,mean=1,standard_deviation=2",
    "method=minmax,min=1,max=3",
    "method=expression,expr=exp(x)",
]


def values(text: str, *numbers: float) -> list[float | None]:
    result = parse_normalizer(text)(np.array(numbers, dtype=np.float64))
    return [None if math.isnan(number) else number for number in result.tolist()]


@pytest.mark.parametrize("text", [*ALL, "method=expression,expr=1 ? 2 : x", "method=expression,expr=x*0"])
def test_missing_stays_missing(text: str) -> None:
    found = values(text, math.nan, 1.0)
    assert found[0] is None
    assert found[1] is not None


@pytest.mark.parametrize("text", ALL)
@given(numbers=st.lists(st.floats(allow_infinity=False), max_size=8))
def test_a_batch_equals_its_rows(text: str, numbers: list[float]) -> None:
    column = np.array(numbers, dtype=np.float64)
    normalize = parse_normalizer(text)
    with np.errstate(all="ignore"):
        alone = [normalize(column[i : i + 1])[0] for i in range(len(column))]
        np.testing.assert_array_equal(normalize(column), alone)


def test_values_by_hand() -> None:
    assert values("method=log10", 100.0, 0.0, -5.0) == [2, -10, -10]
    assert values("method=log10,threshold=1,default=-1", 1.0, 10.0) == [-1, 1]
    assert values("method=zscore,mean=10,standard_deviation=2", 10.0, 14.0) == [0, 2]
    assert values("method=minmax,min=2,max=10", 2.0, 6.0) == [0, 0.5]


def test_a_formula_reaches_to_the_end_of_the_text() -> None:
    assert values("method=expression,expr=sign(x)", -7.0, 0.0, 2.0) == [-1, 0, 1]
    assert values(" method = expression , expr = min(x, 3) ", 2.0, 9.0) == [2, 3]
    assert values("method=expression,expr=x==2 ? 1 : max(x,5,7)", 2.0, 8.0) == [1, 8]
    assert values("method=expression,expr=\nx\n+ 1", 1.0) == [2]


def test_a_formula_without_an_answer_is_missing() -> None:
    assert values("method=expression,expr=1/x", 0.0, 2.0) == [None, 0.5]
    assert values("method=expression,expr=log(x)", 0.0, -1.0, 1.0) == [None, None, 0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("method=expression", "written method=expression,expr=..., a formula of x"),
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
        ("method=log10,default=x", "no number"),
        ("method=log10,default=inf", "finite"),
        ("method=log10,threshold=-1", "negative"),
        ("method=log10,default=1,default=2", "twice"),
        ("method=zscore,mean=1,standard_deviation=0", "above zero"),
        ("method=minmax,min=1,max=1", "above zero"),
    ],
)
def test_what_is_no_normalizer_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_normalizer(text)
