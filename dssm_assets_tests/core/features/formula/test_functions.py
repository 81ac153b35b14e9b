"""Functions of formulas: against Python's math, and by hand where they have rules of their own."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from decimal import ROUND_HALF_UP, Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.arrays.ragged import offsets_of
from dssm_assets.core.features.formula.formula import parse_formula
from dssm_assets.core.features.formula.functions import EARTH_RADIUS_KM, FUNCTIONS, VECTOR_FUNCTIONS, Vectors

POINTS = [-1000.5, -3.0, -1.0, -0.75, -1e-9, 0.0, 1e-9, 0.25, 0.5, 1.0, 1.5, 2.0, 10.0, 700.0, 1e6, 1e300]
SAME_AS_MATH: dict[str, Callable[[float], float]] = {
    **{name: getattr(math, name) for name in ("sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh")},
    **{
        name: getattr(math, name)
        for name in ("acosh", "atanh", "log2", "log10", "log", "exp", "sqrt", "floor", "ceil", "trunc")
    },
    "ln": math.log,
    "abs": abs,
    "rint": round,
    "sign": lambda x: (x > 0) - (x < 0),
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)) if x > 0 else math.exp(x) / (1 + math.exp(x)),
    "round": lambda x: float(Decimal(x).to_integral_value(ROUND_HALF_UP)),
}
"""A separate test compares round and rint."""


def value(text: str) -> float | None:
    (number,) = parse_formula(text, ()).evaluate({}, 1).tolist()
    return None if math.isnan(number) else number


def math_value(name: str, point: float) -> float:
    try:
        return float(SAME_AS_MATH[name](point))
    except (ValueError, OverflowError):
        return math.nan


def test_every_function_is_tested() -> None:
    assert set(FUNCTIONS) == {*SAME_AS_MATH, "roundp", "sphere_dist", "haversine"}


@pytest.mark.parametrize("name", SAME_AS_MATH)
def test_functions_equal_the_math_module(name: str) -> None:
    found = parse_formula(f"{name}(x)", ("x",)).evaluate({"x": np.array(POINTS)}, len(POINTS))
    expected = [math_value(name, point) for point in POINTS]
    np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-300)
    assert not all(math.isnan(number) for number in expected)


def test_rounding_of_halves() -> None:
    assert [value(f"round({x})") for x in ("0.5", "-0.5", "2.5", "-2.5", "2.4999999999999996")] == [1, -1, 3, -3, 2]
    assert [value(f"rint({x})") for x in ("0.5", "-0.5", "1.5", "2.5", "-2.5")] == [0, 0, 2, 2, -2]
    assert value("round(0.49999999999999994)") == 0
    assert value("round(4503599627370497)") == 4503599627370497


def test_rounding_to_places() -> None:
    assert value("roundp(3.14159, 2)") == 3.14
    assert value("roundp(-2.5, 0)") == -3
    assert value("roundp(1250, -2)") == 1300
    assert value("roundp(0.125, 2)") == 0.13
    assert value("roundp(1e300, 250)") == 1e300
    assert value("roundp(0.1, 300)") == 0.1
    assert value("roundp(1, 0.5)") is None
    assert value("roundp(1, 301)") is None
    assert value("roundp(1, -301)") is None
    assert value("roundp(7, -300)") == 0


@pytest.mark.parametrize("name", ["sphere_dist", "haversine"])
def test_distances_are_kilometres_on_a_sphere(name: str) -> None:
    one_degree_km = EARTH_RADIUS_KM * math.pi / 180
    assert EARTH_RADIUS_KM == 6371
    assert value(f"{name}(10, 0, 11, 0)") == pytest.approx(one_degree_km)
    assert value(f"{name}(10, 20, 10, 21)") == pytest.approx(one_degree_km)
    assert value(f"{name}(179.5, 0, -179.5, 0)") == pytest.approx(one_degree_km)
    assert value(f"{name}(0, 90, 77, -90)") == pytest.approx(180 * one_degree_km)
    assert value(f"{name}(0, 0, 180, 0)") == pytest.approx(180 * one_degree_km)
    assert value(f"{name}(2.3522, 48.8566, -0.1276, 51.5072)") == pytest.approx(343.5, abs=0.5)  # Paris to London
    assert value(f"{name}(5, 60, 5.000001, 60)") == pytest.approx(one_degree_km * 1e-6 * 0.5, rel=1e-6)
    assert value(f"{name}(5, 60, 5, 60)") == 0
    assert value(f"{name}(0, 91, 0, 0)") is None
    assert value(f"{name}(0, 0, 0, -90.5)") is None


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
@given(rows=rows_of_numbers)
def test_vector_functions_equal_plain_python(name: str, rows: list[list[float]]) -> None:
    found = [math.nan if x is None else x for x in values(name, vectors(*rows))]
    np.testing.assert_allclose(found, [plain(name, row) for row in rows], rtol=1e-9, atol=1e-9)


@given(st.lists(st.lists(st.tuples(st.integers(-99, 99), st.integers(-99, 99)), min_size=1, max_size=9), max_size=8))
def test_products_and_distances_equal_plain_python(rows: list[list[tuple[int, int]]]) -> None:
    sides = [vectors(*([float(pair[side]) for pair in row] for row in rows)) for side in (0, 1)]
    assert values("dot", *sides) == [sum(x * y for x, y in row) for row in rows]
    assert values("euclid_dist", *sides) == [math.sqrt(sum((x - y) ** 2 for x, y in row)) for row in rows]


def test_every_vector_function_is_tested() -> None:
    assert set(VECTOR_FUNCTIONS) == {*PLAIN, "dot", "euclid_dist"}


def test_overflow_is_missing() -> None:
    big = vectors([1e200, 1e200], [1e308, 1e308], [2.0])
    assert values("reduce_prod", big) == [None, None, 2]
    assert values("squared_norm", big) == [None, None, 4]
    assert values("reduce_sum", big) == [2e200, None, 2]
    assert values("variance", vectors([1e308, -1e308])) == [None]
    assert values("dot", vectors([1e308, -1e308]), vectors([10.0, 10.0])) == [None]
