"""The values of a feature as their places among its distinct ones: coded once, counted as often as rows change their weight.

Belongs here: coding a column of encoded values and counting it by rows. Does not belong here: which features and tables
are counted, and the counts tables (`value_counts.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import pyarrow as pa

from dssm_assets.core.features import lists

Counts = np.ndarray[Any, np.dtype[np.int64]]
Codes = np.ndarray[Any, np.dtype[np.unsignedinteger[Any]]]


@dataclass(frozen=True)
class Uses:
    """How often each row of a table counts.

    Attributes:
        counts: of each row; None: every row once.
        without: samples that have no row at all: each counts as one without any value.
    """

    counts: Counts | None = None
    without: int = 0

    @cached_property
    def used(self) -> tuple[Counts, Counts] | None:
        """The rows that count at all, and how often each does; None: every row once."""
        if self.counts is None:
            return None
        rows = np.flatnonzero(self.counts)
        return rows, self.counts[rows]


ONCE: Final = Uses()


@dataclass(frozen=True)
class CodedValues:
    """The values of a column: innermost ones of lists, and a null for every list without any.

    Attributes:
        distinct: the different values, ascending, a null last.
        codes: of each value its place in `distinct`.
        bounds: where the values of each row begin, and the end; None: one value per row.
    """

    distinct: pa.Array
    codes: Codes
    bounds: lists.Offsets | None = None

    @classmethod
    def of(cls, column: pa.Array | pa.ChunkedArray) -> CodedValues:
        """Returns the values of an encoded column: float32 or int64, or lists of them. NaN is missing, -0.0 is 0.0."""
        array = lists.one_array(column)
        values, bounds = _values(array) if lists.is_list(array.type) else (array, None)
        if pa.types.is_float32(values.type):
            numbers = values.to_numpy(zero_copy_only=False) + np.float32(0)
            values = pa.array(numbers, pa.float32(), mask=np.isnan(numbers))
        encoded = values.dictionary_encode()
        none = len(encoded.dictionary)
        order = np.append(np.argsort(encoded.dictionary.to_numpy(zero_copy_only=False)), none)
        places = np.empty(none + 1, np.min_scalar_type(none))
        places[order] = np.arange(none + 1, dtype=places.dtype)
        codes = places[encoded.indices.fill_null(none).to_numpy(zero_copy_only=False)]
        distinct = pa.concat_arrays([encoded.dictionary, pa.nulls(1, values.type)]).take(pa.array(order))
        return cls(distinct, codes, bounds)

    def counted(self, uses: Uses) -> tuple[pa.Array, Counts]:
        """Returns the distinct values that count, ascending with null last, and how often each does."""
        codes, weights = self.codes, None
        if uses.used is not None:
            rows, weights = uses.used
            if self.bounds is not None:
                starts, lengths = self.bounds[rows], np.diff(self.bounds)[rows]
                codes, weights = codes[lists.ranges(starts, lengths)], np.repeat(weights, lengths)
            else:
                codes = codes[rows]
        # bincount sums weights as floats, exactly as long as they stay below 2^53.
        counts = np.bincount(codes, weights=weights, minlength=len(self.distinct)).astype(np.int64)
        counts[-1] += uses.without
        there = np.flatnonzero(counts)
        return self.distinct.take(pa.array(there)), counts[there]


def _values(array: pa.Array) -> tuple[pa.Array, lists.Offsets]:
    """Returns the innermost values of lists, a null in the place of a list without any, and the bounds of each row's."""
    flat, offsets = lists.flatten(array)
    if lists.is_list(flat.type):
        values, bounds = _values(flat)
        return values, bounds[offsets]
    lengths = np.diff(offsets)
    bounds = lists.offsets_of(np.maximum(lengths, 1))
    if len(flat) == bounds[-1]:
        return flat, bounds
    places = np.full(bounds[-1], -1, np.int64)
    places[lists.ranges(bounds[:-1], lengths)] = np.arange(len(flat))
    return flat.take(pa.array(places, mask=places < 0)), bounds
