"""Measures of the overlap of two lists of terms per row, of a query and of a title.

First the measures of membership and order, then the measures of distance. Every measure returns one number per row [R], which is
undefined where a side has no terms.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core.arrays import ragged
from dssm_assets.core.arrays.ragged import Offsets, repeat_rows
from dssm_assets.core.features import column_values
from dssm_assets.core.features.column_values import Numbers


@dataclass(frozen=True)
class Terms:
    """The terms of one side of every row.

    Attributes:
        codes: number of each term, equal for equal terms of both sides [n].
        offsets: offsets of the rows [R + 1].
        width: how many numbers there are, at least 1.
    """

    codes: Any
    offsets: Offsets
    width: int

    @property
    def row_count(self) -> int:
        """R, including rows without terms."""
        return len(self.offsets) - 1

    @cached_property
    def lengths(self) -> Any:
        """Number of terms of each row [R]."""
        return np.diff(self.offsets)

    @cached_property
    def rows(self) -> Any:
        """Row of each term [n]."""
        return ragged.row_of_value(self.offsets)

    @cached_property
    def cells(self) -> Any:
        """One integer per row and term, ascending by row [n]."""
        return self.rows * self.width + self.codes


def read_terms(query: pa.Array, title: pa.Array, separator: str, where: tuple[str, str]) -> tuple[Terms, Terms]:
    """Returns the terms of both columns, elements of lists or parts of texts, without missing ones.

    Raises:
        SchemaError: the values of a column have no text.
    """
    query_texts, query_offsets = column_values.multi_text_values(query, separator, where[0])
    title_texts, title_offsets = column_values.multi_text_values(title, separator, where[1])
    query_codes, title_codes, width = column_values.number_texts(query_texts.dictionary, title_texts.dictionary)
    return (
        Terms(query_codes[column_values.dictionary_codes(query_texts)], query_offsets, width),
        Terms(title_codes[column_values.dictionary_codes(title_texts)], title_offsets, width),
    )


def common_ratio(terms: Terms, among: Terms) -> Numbers:
    """Returns the fraction of the terms of one side that occur on the other; a repeated term counts every time.

    Example: of a, a, b among a, c it is 2/3, and of a, c among a, a, b it is 1/2.
    """
    is_common = pc.is_in(pa.array(terms.cells), value_set=pa.array(among.cells)).to_numpy(zero_copy_only=False)
    ratio: Numbers = np.bincount(terms.rows, is_common, terms.row_count) / np.maximum(terms.lengths, 1)
    return ratio


def equality(query: Terms, title: Terms) -> Numbers:
    """Returns 1 where both sides have the same terms in the same order, else 0."""
    is_equal = query.lengths == title.lengths
    compared = is_equal[query.rows]
    differs = query.codes[compared] != title.codes[is_equal[title.rows]]
    is_equal[query.rows[compared][differs]] = False
    equal: Numbers = is_equal.astype(np.float64)
    return equal


def first_position(query: Terms, title: Terms) -> Numbers:
    """Returns the position in the title, from 0, where the sequence of query terms first occurs; -1 if it does not.

    All positions of all rows are compared with the first query term, the remaining ones with the second, and so on.
    """
    found = np.full(query.row_count, -1.0)
    counts = np.where(query.lengths > 0, np.maximum(title.lengths - query.lengths + 1, 0), 0)
    rows = repeat_rows(counts)
    starts = ragged.ranges(title.offsets[:-1], counts)
    depth = 0
    while len(starts):
        is_same = title.codes[starts + depth] == query.codes[query.offsets[rows] + depth]
        starts, rows = starts[is_same], rows[is_same]
        depth += 1
        is_whole = query.lengths[rows] == depth
        # Backwards, so that the first position of a row is written last.
        whole = np.flatnonzero(is_whole)[::-1]
        found[rows[whole]] = starts[whole] - title.offsets[rows[whole]]
        starts, rows = starts[~is_whole], rows[~is_whole]
    return found


def containment(query: Terms, title: Terms) -> Numbers:
    """Returns 1 where the title contains the sequence of query terms, else 0."""
    return (first_position(query, title) >= 0).astype(np.float64)


def min_cover(query: Terms, title: Terms) -> Numbers:
    """Returns the length of the shortest window of the title that contains all query terms; 0 if a term does not occur.

    Example: a, b in a, x, b, a is 2 (the last two); a single term that occurs is 1.
    """
    return _measure_rows(query, title, _shortest_window)


def min_dist(query: Terms, title: Terms) -> Numbers:
    """Returns the smallest distance of two different query terms in the title; its length + 1 if no pair occurs."""
    return _measure_rows(query, title, lambda terms, among: min(_pair_distances(terms, among)))


def max_dist(query: Terms, title: Terms) -> Numbers:
    """Returns the largest of the smallest distances of each pair in the title; its length + 1 if no pair occurs.

    Example: a, b, c in a, b, x, c is 3, because the pairs have distances ab 1, bc 2, ac 3.
    """
    return _measure_rows(query, title, lambda terms, among: max(_pair_distances(terms, among)))


def avg_dist(query: Terms, title: Terms) -> Numbers:
    """Returns the mean of the smallest distances of the pairs that occur; the length of the title + 1 if no pair occurs."""
    return _measure_rows(query, title, lambda terms, among: fmean(_pair_distances(terms, among)))


def _measure_rows(query: Terms, title: Terms, measure: Callable[[set[int], list[int]], float]) -> Numbers:
    """Returns a measure of the distinct query terms among the terms of the title, row by row; 0 where a side has none."""
    numbers = np.zeros(query.row_count)
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
    """Returns the smallest distance of each pair of terms that both occur; the length of the title + 1 if no pair does."""
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
