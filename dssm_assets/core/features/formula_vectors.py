"""Functions of a formula that make one number of a row's vector, or of two vectors.

Belongs here: their arithmetic and what is missing. Does not belong here: reading vectors from columns
(`number_vectors.py`), functions of single numbers (`formula_functions.py`).

A result is missing where a vector is empty, where one of its numbers is missing, where two vectors differ in length,
and where it overflows. Only `len` counts: a place without a number is a place. Numbers of one vector are added up in
one order, so a row's result does not depend on the rows beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import numpy as np

from dssm_assets.core.features import lists
from dssm_assets.core.features.formula_functions import Function, without_infinities
from dssm_assets.core.features.lists import Offsets
from dssm_assets.core.features.number_values import Numbers


class Vectors(NamedTuple):
    """A vector of any length per row.

    Attributes:
        numbers: the numbers of all rows, one row after the other; NaN is missing.
        offsets: bounds of each row's numbers.
    """

    numbers: Numbers
    offsets: Offsets

    def rows(self, start: int, stop: int) -> Vectors:
        """Returns the vectors of the rows start to stop - 1."""
        offsets = self.offsets[start : stop + 1]
        return Vectors(self.numbers[offsets[0] : offsets[-1]], offsets - offsets[0])

    @property
    def lengths(self) -> Numbers:
        """How many numbers each row holds; NaN for none."""
        lengths = np.diff(self.offsets).astype(np.float64)
        lengths[lengths == 0] = np.nan
        return lengths

    def with_numbers(self, numbers: Numbers) -> Vectors:
        """Returns the vectors with other numbers at the same places."""
        return Vectors(numbers, self.offsets)


def _reduced(ufunc: Any, vectors: Vectors) -> Numbers:
    """Returns what a ufunc makes of each row's numbers, first to last."""
    result = np.full(len(vectors.offsets) - 1, np.nan)
    is_filled = np.diff(vectors.offsets) > 0
    if is_filled.any():
        result[is_filled] = ufunc.reduceat(vectors.numbers, vectors.offsets[:-1][is_filled])
    return without_infinities(result)


def _sum(vectors: Vectors) -> Numbers:
    return _reduced(np.add, vectors)


def _mean(vectors: Vectors) -> Numbers:
    mean: Numbers = _sum(vectors) / vectors.lengths
    return mean


def _squared_norm(vectors: Vectors) -> Numbers:
    return _sum(vectors.with_numbers(np.square(vectors.numbers)))


def _l2_norm(vectors: Vectors) -> Numbers:
    norm: Numbers = np.sqrt(_squared_norm(vectors))
    return norm


def _pairs(left: Vectors, right: Vectors) -> tuple[Vectors, Vectors]:
    """Returns the vectors that are as long as the other row's; the rest, which have no answer, as empty ones."""
    if np.array_equal(left.offsets, right.offsets):
        return left, right
    lengths = np.diff(left.offsets)
    lengths = np.where(lengths == np.diff(right.offsets), lengths, 0)
    offsets = lists.offsets_of(lengths)
    both = [Vectors(side.numbers[lists.ranges(side.offsets[:-1], lengths)], offsets) for side in (left, right)]
    return both[0], both[1]


def _dot(left: Vectors, right: Vectors) -> Numbers:
    first, second = _pairs(left, right)
    return _sum(first.with_numbers(first.numbers * second.numbers))


def _euclid_dist(left: Vectors, right: Vectors) -> Numbers:
    first, second = _pairs(left, right)
    return _l2_norm(first.with_numbers(first.numbers - second.numbers))


def _squared_deviations(vectors: Vectors) -> Numbers:
    """Returns the sum of squared distances from the mean; from the mean, because sums of squares would cancel."""
    means = np.repeat(_mean(vectors), np.diff(vectors.offsets))
    return _squared_norm(vectors.with_numbers(vectors.numbers - means))


def _variance(vectors: Vectors) -> Numbers:
    variance: Numbers = _squared_deviations(vectors) / vectors.lengths
    return variance


def _pop_variance(vectors: Vectors) -> Numbers:
    return without_infinities(_squared_deviations(vectors) / (vectors.lengths - 1))


def _std_dev(vectors: Vectors) -> Numbers:
    deviation: Numbers = np.sqrt(_variance(vectors))
    return deviation


def _pop_std_dev(vectors: Vectors) -> Numbers:
    deviation: Numbers = np.sqrt(_pop_variance(vectors))
    return deviation


def _named(*functions: Function) -> Mapping[str, Function]:
    return MappingProxyType({function.name: function for function in functions})


VECTOR_FUNCTIONS: Final = _named(
    Function("len", 1, lambda vectors: vectors.lengths),
    Function("l2_norm", 1, _l2_norm),
    Function("squared_norm", 1, _squared_norm),
    Function("dot", 2, _dot),
    Function("euclid_dist", 2, _euclid_dist),
    Function("std_dev", 1, _std_dev),
    Function("pop_std_dev", 1, _pop_std_dev),
    Function("variance", 1, _variance),
    Function("pop_variance", 1, _pop_variance),
    Function("reduce_min", 1, lambda vectors: _reduced(np.minimum, vectors)),
    Function("reduce_max", 1, lambda vectors: _reduced(np.maximum, vectors)),
    Function("reduce_sum", 1, _sum),
    Function("reduce_mean", 1, _mean),
    Function("reduce_prod", 1, lambda vectors: _reduced(np.multiply, vectors)),
)
"""Functions of one or two vectors.

std_dev and variance divide by the length n; pop_std_dev and pop_variance, against what the names say elsewhere, by
n - 1, as in the reference: for a vector of one number they are missing.
"""
