"""Functions of vectors: by hand, against plain Python, and what is missing."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dssm_assets.core.features.formula_vectors import VECTOR_FUNCTIONS, Vectors
from dssm_assets.core.features.lists import offsets_of

PLAIN: dict[str, Callable[[list[float]], float]] = {
    "len": len,
    "l2_norm": lambda row: math.sqrt(sum(x * x for x in row)),
    "squared_norm": lambda row: sum(x * x for x in row),
    "std_dev": statistics.pstdev,
    "pop_std_dev": statistics.stdev,
    "variance": statistics.pvariance,
    "pop_variance": statistics.variance,
    "reduce_min": min,
    "reduce_max": max,
    "reduce_sum": sum,
    "reduce_mean": statistics.fmean,
    "reduce_prod": math.prod,
}
rows_of_numbers = st.lists(st.lists(st.floats(-100, 100).map(lambda x: round(x, 3)), max_size=12), max_size=8)


def vectors(*rows: list[float]) -> Vectors:
    return Vectors(np.array([x for row in rows for x in row], dtype=np.float64), offsets_of([len(row) for row in rows]))


def values(name: str, *columns: Vectors) -> list[float | None]:
    with np.errstate(all="ignore"):
        return [None if math.isnan(x) else x for x in VECTOR_FUNCTIONS[name].compute(*columns).tolist()]


def plain(name: str, row: list[float]) -> float:
    try:
        return float(PLAIN[name](row)) if row else math.nan
    except statistics.StatisticsError:
        return math.nan


@pytest.mark.parametrize("name", PLAIN)
@settings(max_examples=40)
@given(rows=rows_of_numbers)
def test_functions_equal_plain_python(name: str, rows: list[list[float]]) -> None:
    found = [math.nan if x is None else x for x in values(name, vectors(*rows))]
    np.testing.assert_allclose(found, [plain(name, row) for row in rows], rtol=1e-9, atol=1e-9)


@given(st.lists(st.lists(st.tuples(st.integers(-99, 99), st.integers(-99, 99)), min_size=1, max_size=9), max_size=8))
def test_products_and_distances_equal_plain_python(rows: list[list[tuple[int, int]]]) -> None:
    sides = [vectors(*([float(pair[side]) for pair in row] for row in rows)) for side in (0, 1)]
    assert values("dot", *sides) == [sum(x * y for x, y in row) for row in rows]
    assert values("euclid_dist", *sides) == [math.sqrt(sum((x - y) ** 2 for x, y in row)) for row in rows]


def test_every_function_is_tested_here() -> None:
    assert set(VECTOR_FUNCTIONS) == {*PLAIN, "dot", "euclid_dist"}


def test_std_dev_divides_by_n_and_pop_std_dev_by_n_minus_1() -> None:
    column = vectors([1.0, 3.0], [5.0])
    assert values("variance", column) == [1, 0]
    assert values("std_dev", column) == [1, 0]
    assert values("pop_variance", column) == [2, None]
    assert values("pop_std_dev", column) == [math.sqrt(2), None]


def test_an_empty_vector_is_missing_also_first_last_and_alone() -> None:
    for name in PLAIN:
        assert [x is None for x in values(name, vectors([], [1.0, 2.0], [], [], [3.0, 4.0], []))] == [
            True,
            False,
            True,
            True,
            False,
            True,
        ]
        assert values(name, vectors([])) == [None]
        assert values(name, vectors()) == []


def test_a_missing_number_makes_all_but_the_length_missing() -> None:
    for name in PLAIN:
        found = values(name, vectors([1.0, math.nan, 2.0], [1.0, 2.0]))
        assert found[0] == (3 if name == "len" else None)
        assert found[1] is not None


def test_vectors_of_different_lengths_have_no_answer_and_disturb_no_other_row() -> None:
    left = vectors([9.0], [1.0, 2.0], [3.0, 4.0, 5.0], [], [6.0])
    right = vectors([2.0], [1.0, 2.0, 3.0], [1.0, 1.0, 1.0], [7.0], [])
    assert values("dot", left, right) == [18, None, 12, None, None]
    assert values("euclid_dist", left, right) == [7, None, math.sqrt(4 + 9 + 16), None, None]


def test_overflow_is_missing() -> None:
    big = vectors([1e200, 1e200], [1e308, 1e308], [2.0])
    assert values("reduce_prod", big) == [None, None, 2]
    assert values("squared_norm", big) == [None, None, 4]
    assert values("reduce_sum", big) == [2e200, None, 2]
    assert values("variance", vectors([1e308, -1e308])) == [None]
    assert values("dot", vectors([1e308, -1e308]), vectors([10.0, 10.0])) == [None]


def test_rows_of_vectors_are_cut_out_whole() -> None:
    part = vectors([1.0], [], [2.0, 3.0], [4.0]).rows(1, 3)
    assert (part.numbers.tolist(), part.offsets.tolist()) == ([2.0, 3.0], [0, 0, 2])
