"""Functions of formulas: against Python's math, and by hand where they have rules of their own."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import ROUND_HALF_UP, Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.features.formula import parse_formula
from dssm_assets.core.features.formula_functions import EARTH_RADIUS_KM, FUNCTIONS

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
"""round and rint are told apart below."""


def value(text: str) -> float | None:
    (number,) = parse_formula(text, ()).evaluate({}, 1).tolist()
    return None if math.isnan(number) else number


def of_math(name: str, point: float) -> float:
    try:
        return float(SAME_AS_MATH[name](point))
    except (ValueError, OverflowError):
        return math.nan


def test_every_function_is_tested_here() -> None:
    assert set(FUNCTIONS) == {*SAME_AS_MATH, "roundp", "sphere_dist", "haversine"}


@pytest.mark.parametrize("name", SAME_AS_MATH)
def test_functions_equal_those_of_math(name: str) -> None:
    found = parse_formula(f"{name}(x)", ("x",)).evaluate({"x": np.array(POINTS)}, len(POINTS))
    expected = [of_math(name, point) for point in POINTS]
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


@given(st.integers(-(10**9), 10**9), st.integers(0, 6))
def test_a_decimal_of_few_places_is_its_own_rounding(digits: int, places: int) -> None:
    number = digits / 10**places
    assert value(f"roundp({number!r}, {places})") == number


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


def test_a_sigmoid_never_overflows() -> None:
    assert value("sigmoid(1e6)") == 1
    assert value("sigmoid(-1e6)") == 0
    assert value("sigmoid(0)") == 0.5
