"""The operators and functions of formulas: first on numbers, then on vectors.

Columns are float64 [R]; NaN is missing, infinities never occur. A result is a new column. It is missing in a row if an
argument is missing, or if there is no finite result: division by zero, the logarithm of zero or less, the root of a negative
number, overflow. Truth values are 1 and 0, and every number except zero is true. Angles are in radians, but longitudes and
latitudes in degrees.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np

from dssm_assets.core.arrays import ragged
from dssm_assets.core.arrays.ragged import Mask, Offsets
from dssm_assets.core.features.column_values import Numbers

Compute = Callable[..., Numbers]

EARTH_RADIUS_KM: Final = 6371.0
"""Mean radius of the earth, in whole kilometres as usual for distances on a sphere."""

_MAX_WHOLE: Final = 2.0**53
"""Float64 represents all whole numbers below this limit."""

_MAX_PLACES: Final = 300


@dataclass(frozen=True)
class Function:
    """A named computation.

    Attributes:
        compute: takes one column per argument and returns a new column.
    """

    name: str
    arity: int
    compute: Compute


def without_infinities(numbers: Numbers) -> Numbers:
    """Replaces infinities (overflow, division by zero) by NaN in place."""
    is_infinite = np.isinf(numbers)
    if is_infinite.any():
        numbers[is_infinite] = np.nan
    return numbers


def _finite(compute: Callable[..., Any]) -> Compute:
    return lambda *columns: without_infinities(compute(*columns))


def _is_missing(columns: tuple[Numbers, ...]) -> Mask:
    return np.asarray(np.isnan(columns).any(axis=0))


def _truth(test: Callable[..., Any]) -> Compute:
    def compute(*columns: Numbers) -> Numbers:
        result: Numbers = test(*columns).astype(np.float64)
        result[_is_missing(columns)] = np.nan
        return result

    return compute


def _power(base: Numbers, exponent: Numbers) -> Numbers:
    if len(base) == 1:
        # numpy computes some powers differently for an array of one element, but a batch must equal its rows.
        return _power(np.repeat(base, 2), np.repeat(exponent, 2))[:1]
    result: Numbers = np.power(base, exponent)
    # In numpy 1 to the power of NaN and NaN to the power of 0 are 1.
    result[_is_missing((base, exponent))] = np.nan
    return without_infinities(result)


def _bitwise(operation: Callable[[Any, Any], Any]) -> Compute:
    def compute(left: Numbers, right: Numbers) -> Numbers:
        is_usable = _is_whole(left) & _is_whole(right)
        bits = operation(np.where(is_usable, left, 0).astype(np.int64), np.where(is_usable, right, 0).astype(np.int64))
        return np.where(is_usable, bits.astype(np.float64), np.nan)

    return compute


def _is_whole(numbers: Numbers) -> Mask:
    return np.asarray((np.trunc(numbers) == numbers) & (np.abs(numbers) < _MAX_WHOLE))


def _choose(condition: Numbers, if_true: Numbers, if_false: Numbers) -> Numbers:
    chosen: Numbers = np.where(condition != 0, if_true, if_false)
    chosen[np.isnan(condition)] = np.nan
    return chosen


def _round(numbers: Numbers) -> Numbers:
    # floor(x + 0.5) would be wrong: for the largest number below 0.5 the sum is 1.
    whole = np.trunc(numbers)
    return whole + np.where(np.abs(numbers - whole) >= 0.5, np.sign(numbers), 0.0)


_POWERS_OF_TEN: Final = np.array([float(f"1e{places}") for places in range(_MAX_PLACES + 1)])


def _round_places(numbers: Numbers, places: Numbers) -> Numbers:
    is_usable = _is_whole(places) & (np.abs(places) <= _MAX_PLACES)
    digits = np.where(is_usable, places, 0).astype(np.int64)
    # Division by 100 is exact where multiplication by 0.01 is not.
    scale = _POWERS_OF_TEN[np.abs(digits)]
    scaled = np.where(digits >= 0, numbers * scale, numbers / scale)
    rounded = np.where(digits >= 0, _round(scaled) / scale, _round(scaled) * scale)
    # A number that large has no digits to round, and its scaled form may overflow.
    rounded = np.where((digits >= 0) & (np.abs(scaled) >= _MAX_WHOLE), numbers, rounded)
    return without_infinities(np.where(is_usable, rounded, np.nan))


def _sigmoid(numbers: Numbers) -> Numbers:
    # exp(-|x|) cannot overflow.
    small = np.exp(-np.abs(numbers))
    return np.where(numbers < 0, small, 1.0) / (1.0 + small)


def _distance_km(lng1: Numbers, lat1: Numbers, lng2: Numbers, lat2: Numbers) -> Numbers:
    """Returns the great-circle distance in km between two places, given in degrees; missing if a |latitude| is above 90.

    Uses the haversine formula (R. W. Sinnott, Virtues of the Haversine, 1984), which is precise for small distances too.
    """
    phi1, phi2 = np.radians(lat1), np.radians(lat2)
    half = np.sin((phi2 - phi1) / 2) ** 2 + np.cos(phi1) * np.cos(phi2) * np.sin(np.radians(lng2 - lng1) / 2) ** 2
    result: Numbers = 2 * EARTH_RADIUS_KM * np.arcsin(np.sqrt(np.minimum(half, 1.0)))
    result[(np.abs(lat1) > 90) | (np.abs(lat2) > 90)] = np.nan
    return without_infinities(result)


def _table(arity: int, computes: Mapping[str, Callable[..., Any]]) -> dict[str, Function]:
    return {name: Function(name, arity, compute) for name, compute in computes.items()}


PREFIX: Final = _table(1, {"-": np.negative, "!": _truth(np.logical_not)})

CHOICE: Final = Function("?:", 3, _choose)

INFIX: Final = (
    _table(2, {"+": _finite(np.add), "-": _finite(np.subtract), "*": _finite(np.multiply), "/": _finite(np.divide)})
    | _table(2, {"^": _power, "&": _bitwise(np.bitwise_and), "|": _bitwise(np.bitwise_or)})
    | _table(2, {"&&": _truth(np.logical_and), "||": _truth(np.logical_or), "==": _truth(np.equal), "!=": _truth(np.not_equal)})
    | _table(2, {"<": _truth(np.less), "<=": _truth(np.less_equal)})
    | _table(2, {">": _truth(np.greater), ">=": _truth(np.greater_equal)})
)
"""Binary operators. & and | need whole numbers below 2^53 and use two's complement; for other numbers the result is missing."""

FUNCTIONS: Final = (
    _table(1, {"sin": np.sin, "cos": np.cos, "tan": np.tan, "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan})
    | _table(1, {"sinh": _finite(np.sinh), "cosh": _finite(np.cosh), "tanh": np.tanh})
    | _table(1, {"asinh": np.arcsinh, "acosh": np.arccosh, "atanh": _finite(np.arctanh)})
    | _table(1, {"log2": _finite(np.log2), "log10": _finite(np.log10), "log": _finite(np.log), "ln": _finite(np.log)})
    | _table(1, {"exp": _finite(np.exp), "sqrt": np.sqrt, "sign": np.sign, "abs": np.abs, "sigmoid": _sigmoid})
    | _table(1, {"rint": np.rint, "floor": np.floor, "ceil": np.ceil, "trunc": np.trunc, "round": _round})
    | _table(2, {"roundp": _round_places})
    | _table(4, {"sphere_dist": _distance_km, "haversine": _distance_km})
)
"""Functions of a fixed number of arguments.

log is the natural logarithm, like ln. rint rounds halves to the even number, round rounds them away from zero. roundp(x, d)
rounds to d decimal places, halves away from zero, for d from -300 to 300. sphere_dist and haversine take longitude and
latitude of two places in degrees and return km.
"""

FOLDS: Final = _table(2, {"min": np.minimum, "max": np.maximum, "sum": _finite(np.add), "avg": _finite(np.add)})
"""Functions of any number of arguments: a binary function is applied from left to right. avg divides the sum afterwards."""


class Vectors(NamedTuple):
    """One vector of any length per row.

    Attributes:
        numbers: the numbers of all rows, one row after the other [n]; NaN is missing.
        offsets: offsets of the rows [R + 1].
    """

    numbers: Numbers
    offsets: Offsets

    @property
    def lengths(self) -> Numbers:
        lengths = np.diff(self.offsets).astype(np.float64)
        lengths[lengths == 0] = np.nan
        return lengths

    def with_numbers(self, numbers: Numbers) -> Vectors:
        """Returns vectors of the same lengths with other numbers."""
        return Vectors(numbers, self.offsets)


def _reduce(ufunc: Any, vectors: Vectors) -> Numbers:
    """Reduces each vector to a number by a ufunc; an empty vector gives NaN."""
    result = np.full(len(vectors.offsets) - 1, np.nan)
    is_filled = np.diff(vectors.offsets) > 0
    if is_filled.any():
        result[is_filled] = ufunc.reduceat(vectors.numbers, vectors.offsets[:-1][is_filled])
    return without_infinities(result)


def _sum(vectors: Vectors) -> Numbers:
    return _reduce(np.add, vectors)


def _mean(vectors: Vectors) -> Numbers:
    return _sum(vectors) / vectors.lengths


def _squared_norm(vectors: Vectors) -> Numbers:
    return _sum(vectors.with_numbers(np.square(vectors.numbers)))


def _l2_norm(vectors: Vectors) -> Numbers:
    return np.sqrt(_squared_norm(vectors))


def _keep_equal_lengths(left: Vectors, right: Vectors) -> tuple[Vectors, Vectors]:
    """Empties both vectors in rows with different lengths, because such a row has no result."""
    lengths = np.diff(left.offsets)
    lengths = np.where(lengths == np.diff(right.offsets), lengths, 0)
    offsets = ragged.offsets_of(lengths)
    both = [Vectors(side.numbers[ragged.ranges(side.offsets[:-1], lengths)], offsets) for side in (left, right)]
    return both[0], both[1]


def _dot(left: Vectors, right: Vectors) -> Numbers:
    first, second = _keep_equal_lengths(left, right)
    return _sum(first.with_numbers(first.numbers * second.numbers))


def _euclid_dist(left: Vectors, right: Vectors) -> Numbers:
    first, second = _keep_equal_lengths(left, right)
    return _l2_norm(first.with_numbers(first.numbers - second.numbers))


def _variance(vectors: Vectors, without: int = 0) -> Numbers:
    means = np.repeat(_mean(vectors), np.diff(vectors.offsets))
    squares = _squared_norm(vectors.with_numbers(vectors.numbers - means))
    return without_infinities(squares / (vectors.lengths - without))


VECTOR_FUNCTIONS: Final = (
    _table(1, {"len": lambda vectors: vectors.lengths, "l2_norm": _l2_norm, "squared_norm": _squared_norm})
    | _table(2, {"dot": _dot, "euclid_dist": _euclid_dist})
    | _table(1, {"variance": _variance, "pop_variance": partial(_variance, without=1)})
    | _table(1, {"std_dev": lambda vectors: np.sqrt(_variance(vectors))})
    | _table(1, {"pop_std_dev": lambda vectors: np.sqrt(_variance(vectors, 1))})
    | _table(1, {"reduce_min": partial(_reduce, np.minimum), "reduce_max": partial(_reduce, np.maximum)})
    | _table(1, {"reduce_sum": _sum, "reduce_mean": _mean, "reduce_prod": partial(_reduce, np.multiply)})
)
"""Functions of one or two vectors.

As in the reference, and contrary to the usual meaning of "population", std_dev and variance divide by the length n, while
pop_std_dev and pop_variance divide by n - 1. So the latter two are missing for a vector of one number.
"""
