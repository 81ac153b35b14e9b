"""overlap_feature: measures how far the terms of two inputs overlap, such as a query and a title.

A measure gives one number per row [R]. It is undefined if a side has no terms.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property, partial
from statistics import fmean
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from dssm_assets.core.arrays import ragged
from dssm_assets.core.arrays.ids import find_positions
from dssm_assets.core.arrays.ragged import Offsets
from dssm_assets.core.features import column_values
from dssm_assets.core.features.column_values import Numbers
from dssm_assets.core.features.expressions import ExpressionText
from dssm_assets.core.features.operators.base import MULTI_SEPARATOR, NumericOperator


class Method(StrEnum):
    """Measures of the overlap.

    The ratios count occurrences: a term that occurs twice counts twice. The proximity measures use the distinct terms of the
    query. A query of one term has no pairs, so its distances are the length of the title + 1, and its cover is 1 if the term
    occurs in the title.
    """

    QUERY_COMMON_RATIO = "query_common_ratio"
    """Fraction of the terms of the query that occur in the title."""
    TITLE_COMMON_RATIO = "title_common_ratio"
    """Fraction of the terms of the title that occur in the query."""
    IS_CONTAIN = "is_contain"
    """1 if the title contains the terms of the query in sequence, else 0."""
    IS_EQUAL = "is_equal"
    """1 if both have the same terms in the same order, else 0."""
    INDEX_OF = "index_of"
    """Position in the title, from 0, of the first occurrence of the whole query; -1 if it does not occur."""
    PROXIMITY_MIN_COVER = "proximity_min_cover"
    """Length of the shortest window of the title with all terms of the query; 0 if the title lacks a term."""
    PROXIMITY_MIN_DIST = "proximity_min_dist"
    """Distance of the nearest pair of query terms in the title; the length of the title + 1 if no pair occurs."""
    PROXIMITY_MAX_DIST = "proximity_max_dist"
    """Takes each pair's smallest distance in the title; the largest of these. Without a pair the length of the title + 1."""
    PROXIMITY_AVG_DIST = "proximity_avg_dist"
    """Takes each pair's smallest distance in the title; the mean of these. Without a pair the length of the title + 1."""


class OverlapFeature(NumericOperator):
    """Measures the overlap of two lists of terms, by one measure. The row is missing if a side has no terms.

    Terms are the elements of a list, or the parts of a text between separators. Missing and empty terms are ignored and take
    no position.

    Attributes:
        query: the terms to look for.
        title: the terms to search.
        method: the measure, see `Method`.
        separator: separates the terms of a text (default: the character 0x1d).
    """

    feature_type: Literal["overlap_feature"] = "overlap_feature"
    query: ExpressionText
    title: ExpressionText
    input_keys = ("query", "title")
    method: Method
    separator: str = Field(default=MULTI_SEPARATOR, min_length=1)

    def compute(self, inputs: Sequence[pa.Array]) -> pa.Array:
        sides = [column_values.multi_text_values(array, self.separator, self.where(i)) for i, array in enumerate(inputs)]
        known = pa.concat_arrays([texts.dictionary.cast(pa.string()) for texts, _ in sides]).unique()
        query, title = (
            Terms(find_positions(texts.dictionary, known)[column_values.dictionary_codes(texts)], offsets, max(len(known), 1))
            for texts, offsets in sides
        )
        numbers = _MEASURES[self.method](query, title)
        return self.finish(np.where((query.lengths > 0) & (title.lengths > 0), numbers, np.nan))


@dataclass(frozen=True)
class Terms:
    """The terms of one side (query or title) of all rows.

    Attributes:
        codes: number of each term [n]; equal terms have equal numbers, also across both sides.
        offsets: offsets of the rows [R + 1].
        width: numbers are below this width, at least 1.
    """

    codes: Any
    offsets: Offsets
    width: int

    @cached_property
    def lengths(self) -> Any:
        return np.diff(self.offsets)

    @cached_property
    def rows(self) -> Any:
        return ragged.row_of_value(self.offsets)

    @cached_property
    def cells(self) -> Any:
        """Returns one integer per row and term, ascending by row [n]."""
        return self.rows * self.width + self.codes


def _common_ratio(terms: Terms, among: Terms) -> Numbers:
    is_common = pc.is_in(pa.array(terms.cells), value_set=pa.array(among.cells)).to_numpy(zero_copy_only=False)
    return np.asarray(np.bincount(terms.rows, is_common, len(terms.lengths)) / np.maximum(terms.lengths, 1))


def _first_position(query: Terms, title: Terms) -> Numbers:
    """Compares the first query term at all positions of the titles, then the second term at the remaining positions, and so on."""
    found = np.full(len(query.lengths), -1.0)
    counts = np.where(query.lengths > 0, np.maximum(title.lengths - query.lengths + 1, 0), 0)
    rows = ragged.repeat_rows(counts)
    starts = ragged.ranges(title.offsets[:-1], counts)
    depth = 0
    while len(starts):
        is_same = title.codes[starts + depth] == query.codes[query.offsets[rows] + depth]
        starts, rows = starts[is_same], rows[is_same]
        depth += 1
        is_whole = query.lengths[rows] == depth
        # Written backwards, so that a row's first position overwrites its later ones.
        whole = np.flatnonzero(is_whole)[::-1]
        found[rows[whole]] = starts[whole] - title.offsets[rows[whole]]
        starts, rows = starts[~is_whole], rows[~is_whole]
    return found


def _measure_rows(measure: Callable[[set[int], list[int]], float], query: Terms, title: Terms) -> Numbers:
    """Applies a measure to each row's distinct query terms and title. A row without terms on a side gets 0."""
    numbers = np.zeros(len(query.lengths))
    for row in np.flatnonzero((query.lengths > 0) & (title.lengths > 0)).tolist():
        terms, among = (side.codes[side.offsets[row] : side.offsets[row + 1]].tolist() for side in (query, title))
        numbers[row] = measure(set(terms), among)
    return numbers


def _shortest_window(terms: set[int], title: list[int]) -> int:
    last: dict[int, int] = {}
    shortest = 0
    for position, term in enumerate(title):
        if term in terms:
            last[term] = position
            if len(last) == len(terms):
                length = position - min(last.values()) + 1
                shortest = min(shortest or length, length)
    return shortest


def _pair_distances(terms: set[int], title: list[int]) -> list[int]:
    """Returns the smallest distance of each pair of terms in the title. If no pair occurs, returns the length of the title + 1."""
    last: dict[int, int] = {}
    nearest: dict[tuple[int, int], int] = {}
    for position, term in enumerate(title):
        if term in terms:
            for other, before in last.items():
                if other != term:
                    pair = min(term, other), max(term, other)
                    nearest[pair] = min(nearest.get(pair, position), position - before)
            last[term] = position
    return list(nearest.values()) or [len(title) + 1]


_MEASURES: Final[Mapping[Method, Callable[[Terms, Terms], Any]]] = {
    Method.QUERY_COMMON_RATIO: _common_ratio,
    Method.TITLE_COMMON_RATIO: lambda query, title: _common_ratio(title, query),
    Method.IS_CONTAIN: lambda query, title: _first_position(query, title) >= 0,
    Method.IS_EQUAL: lambda query, title: (query.lengths == title.lengths) & (_first_position(query, title) == 0),
    Method.INDEX_OF: _first_position,
    Method.PROXIMITY_MIN_COVER: partial(_measure_rows, _shortest_window),
    Method.PROXIMITY_MIN_DIST: partial(_measure_rows, lambda terms, title: min(_pair_distances(terms, title))),
    Method.PROXIMITY_MAX_DIST: partial(_measure_rows, lambda terms, title: max(_pair_distances(terms, title))),
    Method.PROXIMITY_AVG_DIST: partial(_measure_rows, lambda terms, title: fmean(_pair_distances(terms, title))),
}
