"""Measures of the overlap of two lists of terms per row, those of a query and those of a title.

First the measures of membership and order, then those of distance. Every measure returns one number per row [R], which is
undefined where a side has no terms.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
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


@dataclass(frozen=True)
class _Occurrences:
    """The occurrences of query terms in titles, by row and position.

    Attributes:
        rows: row of each occurrence.
        positions: its position in the title, from 0.
        terms: one number per row and term, ascending by row.
        ranks: number of the term among the distinct query terms of the row, from 0.
        term_counts: number of distinct query terms of each row, including those that do not occur.
    """

    rows: Any
    positions: Any
    terms: Any
    ranks: Any
    term_counts: Any


@dataclass(frozen=True)
class _PairDistances:
    """Minimum, maximum, sum and count of the distances of the pairs of query terms of each row; infinity and 0 without a pair."""

    least: Numbers
    greatest: Numbers
    total: Numbers
    count: Numbers


def min_cover(query: Terms, title: Terms) -> Numbers:
    """Returns the length of the shortest window of the title that contains all query terms; 0 if a term does not occur.

    Example: a, b in a, x, b, a is 2 (the last two); a single term that occurs is 1.
    """
    found = _occurrences(query, title)
    starts = np.full(len(found.rows), np.inf)
    every = np.arange(len(found.rows))
    for rank in range(_most_terms(found)):
        every = every[found.term_counts[found.rows[every]] > rank]
        last = _last_position(found.ranks[every] == rank, found.rows[every], found.positions[every])
        starts[every] = np.minimum(starts[every], last)
    smallest = np.full(query.row_count, np.inf)
    # While a term has not occurred, the start is minus infinity and the window infinite.
    np.minimum.at(smallest, found.rows, found.positions - starts + 1)
    return np.where(np.isfinite(smallest), smallest, 0)


def min_dist(query: Terms, title: Terms) -> Numbers:
    """Returns the smallest distance of two different query terms in the title; its length + 1 if no pair occurs."""
    pairs = _pair_distances(query, title)
    return _or_length(pairs.least, pairs, title)


def max_dist(query: Terms, title: Terms) -> Numbers:
    """Returns the largest of the smallest distances of each pair in the title; its length + 1 if no pair occurs.

    Example: a, b, c in a, b, x, c is 3, because the pairs have distances ab 1, bc 2, ac 3.
    """
    pairs = _pair_distances(query, title)
    return _or_length(pairs.greatest, pairs, title)


def avg_dist(query: Terms, title: Terms) -> Numbers:
    """Returns the mean of the smallest distances of the pairs that occur; the length of the title + 1 if no pair occurs."""
    pairs = _pair_distances(query, title)
    return _or_length(pairs.total / np.maximum(pairs.count, 1), pairs, title)


def _or_length(distances: Numbers, pairs: _PairDistances, title: Terms) -> Numbers:
    return np.where(pairs.count > 0, distances, title.lengths + 1.0)


def _pair_distances(query: Terms, title: Terms) -> _PairDistances:
    """Returns the distances of all pairs of distinct query terms that both occur in the title.

    The distance of a pair is the smallest distance of two of their occurrences.
    """
    found = _occurrences(query, title)
    result = _PairDistances(np.full(query.row_count, np.inf), *(np.zeros(query.row_count) for _ in range(3)))
    every, by_term = np.arange(len(found.rows)), np.argsort(found.terms, kind="stable")
    nearest = np.empty(len(found.rows))
    for rank in range(1, _most_terms(found)):
        every = every[found.term_counts[found.rows[every]] > rank]
        by_term = by_term[found.term_counts[found.rows[by_term]] > rank]
        nearest[every] = _nearest(found.ranks[every] == rank, found.rows[every], found.positions[every])
        # Each pair once, with the terms of lower rank.
        others = by_term[found.ranks[by_term] < rank]
        first = np.flatnonzero(np.diff(found.terms[others], prepend=-1))
        distances = np.minimum.reduceat(nearest[others], first) if len(first) else np.zeros(0)
        occurs = np.isfinite(distances)
        _add_distances(result, found.rows[others[first[occurs]]], distances[occurs])
    return result


def _add_distances(result: _PairDistances, rows: Any, distances: Numbers) -> None:
    np.minimum.at(result.least, rows, distances)
    np.maximum.at(result.greatest, rows, distances)
    np.add.at(result.total, rows, distances)
    np.add.at(result.count, rows, 1)


def _nearest(is_term: Any, rows: Any, positions: Any) -> Numbers:
    """Returns the distance of each occurrence to the nearest one of its row that `is_term` marks; infinity without one."""
    before = _last_position(is_term, rows, positions)
    after = -_last_position(is_term[::-1], rows[::-1], -positions[::-1])[::-1]
    nearest: Numbers = np.minimum(positions - before, after - positions)
    return nearest


def _last_position(is_term: Any, rows: Any, positions: Any) -> Numbers:
    last = np.maximum.accumulate(np.where(is_term, np.arange(len(rows)), -1))
    is_there = (last >= 0) & (rows[last] == rows)
    return np.where(is_there, positions[last], -np.inf)


def _most_terms(found: _Occurrences) -> int:
    return int(found.term_counts[found.rows].max(initial=0))


def _occurrences(query: Terms, title: Terms) -> _Occurrences:
    wanted = np.unique(query.cells)
    position = np.searchsorted(wanted, title.cells)
    found = np.flatnonzero(np.append(wanted, -1)[position] == title.cells)
    rows, terms = title.rows[found], position[found]
    counts = np.bincount(wanted // query.width, minlength=query.row_count)
    ranks = terms - (np.cumsum(counts) - counts)[rows]
    return _Occurrences(rows, found - title.offsets[rows], terms, ranks, counts)
