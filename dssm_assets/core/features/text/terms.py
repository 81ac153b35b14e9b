"""Overlap of two lists of terms per row, a query's and a title's: shared terms, equality, the query inside the title.

Belongs here: the terms of both sides under common numbers, and the measures that order or membership decides. Does not
belong here: distances between terms (`term_proximity.py`), the keys of the feature (`operators/overlap_feature.py`).

Every measure returns one number per row, of no meaning where a side has no terms.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core.arrays import ragged
from dssm_assets.core.arrays.ragged import Offsets
from dssm_assets.core.features import column_values
from dssm_assets.core.features.column_values import Numbers


@dataclass(frozen=True)
class Terms:
    """The terms of one side of every row.

    Attributes:
        codes: number of each term; equal terms of both sides have equal numbers.
        offsets: bounds of each row's terms.
        width: how many numbers there are, at least 1.
    """

    codes: Any
    offsets: Offsets
    width: int

    @property
    def row_count(self) -> int:
        """Rows, those without terms included."""
        return len(self.offsets) - 1

    @cached_property
    def lengths(self) -> Any:
        """Terms of each row."""
        return np.diff(self.offsets)

    @cached_property
    def rows(self) -> Any:
        """Row of each term."""
        return ragged.row_of_value(self.offsets)

    @cached_property
    def cells(self) -> Any:
        """One integer for each term that says both its row and what it is; ascending rows have ascending cells."""
        return self.rows * self.width + self.codes


def terms_of(query: pa.Array, title: pa.Array, separator: str, where: tuple[str, str]) -> tuple[Terms, Terms]:
    """Returns the terms of both columns: elements of lists, or texts split by the separator. Missing ones are left out.

    Raises:
        SchemaError: if the values of a column have no text.
    """
    asked, asked_offsets = column_values.multi_text_values(query, separator, where[0])
    held, held_offsets = column_values.multi_text_values(title, separator, where[1])
    both = pa.concat_arrays([asked.dictionary, held.dictionary]).dictionary_encode()
    names = both.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    width = max(len(both.dictionary), 1)
    asked_codes = names[column_values.codes_of(asked)]
    held_codes = names[len(asked.dictionary) :][column_values.codes_of(held)]
    return Terms(asked_codes, asked_offsets, width), Terms(held_codes, held_offsets, width)


def common_ratio(of: Terms, among: Terms) -> Numbers:
    """Returns which share of the terms of one side occurs on the other; a term that stands twice counts twice.

    By hand: of a, a, b among a, c it is 2/3; the other way round 1/2.
    """
    is_common = pc.is_in(pa.array(of.cells), value_set=pa.array(among.cells)).to_numpy(zero_copy_only=False)
    ratio: Numbers = np.bincount(of.rows, is_common, of.row_count) / np.maximum(of.lengths, 1)
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
    """Returns the place in the title, from 0, where the query's terms first stand side by side in order; -1 if nowhere.

    All places of all rows are compared with the query's first term, those that are left with its second, and so on.
    """
    found = np.full(query.row_count, -1.0)
    places = np.where(query.lengths > 0, np.maximum(title.lengths - query.lengths + 1, 0), 0)
    rows = np.repeat(np.arange(query.row_count), places)
    starts = ragged.ranges(title.offsets[:-1], places)
    depth = 0
    while len(starts):
        is_same = title.codes[starts + depth] == query.codes[query.offsets[rows] + depth]
        starts, rows = starts[is_same], rows[is_same]
        depth += 1
        is_whole = query.lengths[rows] == depth
        # Backwards, so that the first place of a row is written last.
        whole = np.flatnonzero(is_whole)[::-1]
        found[rows[whole]] = starts[whole] - title.offsets[rows[whole]]
        starts, rows = starts[~is_whole], rows[~is_whole]
    return found


def containment(query: Terms, title: Terms) -> Numbers:
    """Returns 1 where the query's terms stand in the title side by side and in order, else 0."""
    return (first_position(query, title) >= 0).astype(np.float64)


@dataclass(frozen=True)
class _Occurrences:
    """The places of titles where terms of the query stand, by row and place.

    Attributes:
        rows: row of each.
        positions: its place in the title, from 0.
        terms: a number for each row and term; ascending in rows.
        ranks: which of the row's query terms it is, from 0.
        term_counts: distinct query terms of each row, those that occur nowhere included.
    """

    rows: Any
    positions: Any
    terms: Any
    ranks: Any
    term_counts: Any


@dataclass(frozen=True)
class PairDistances:
    """What the distances of a row's pairs of query terms come to; infinity and 0 where no pair occurs."""

    least: Numbers
    greatest: Numbers
    total: Numbers
    count: Numbers


def min_cover(query: Terms, title: Terms) -> Numbers:
    """Returns the length of the smallest window of the title that holds every query term; 0 if a term does not occur.

    By hand: a, b in a, x, b, a is 2 (the last two); one term that occurs is 1.
    """
    found = _occurrences(query, title)
    starts = np.full(len(found.rows), np.inf)
    every = np.arange(len(found.rows))
    for rank in range(_most_terms(found)):
        every = every[found.term_counts[found.rows[every]] > rank]
        last = _last_position(found.ranks[every] == rank, found.rows[every], found.positions[every])
        starts[every] = np.minimum(starts[every], last)
    smallest = np.full(query.row_count, np.inf)
    # A term that has not occurred yet leaves the start at minus infinity, and the window infinite.
    np.minimum.at(smallest, found.rows, found.positions - starts + 1)
    return np.where(np.isfinite(smallest), smallest, 0)


def min_dist(query: Terms, title: Terms) -> Numbers:
    """Returns the least distance between two different query terms in the title; its length + 1 without such a pair."""
    pairs = _pair_distances(query, title)
    return _or_beyond(pairs.least, pairs, title)


def max_dist(query: Terms, title: Terms) -> Numbers:
    """Returns the greatest of the pairs' least distances in the title; its length + 1 if no pair occurs.

    By hand: a, b, c in a, b, x, c has the pairs ab 1, bc 2, ac 3.
    """
    pairs = _pair_distances(query, title)
    return _or_beyond(pairs.greatest, pairs, title)


def avg_dist(query: Terms, title: Terms) -> Numbers:
    """Returns the mean of the pairs' least distances, of the pairs that occur; the title's length + 1 without any."""
    pairs = _pair_distances(query, title)
    return _or_beyond(pairs.total / np.maximum(pairs.count, 1), pairs, title)


def _or_beyond(distances: Numbers, pairs: PairDistances, title: Terms) -> Numbers:
    return np.where(pairs.count > 0, distances, title.lengths + 1.0)


def _pair_distances(query: Terms, title: Terms) -> PairDistances:
    """Returns the distances of all pairs of two distinct query terms that both occur in the title.

    The distance of a pair is the least one between an occurrence of each.
    """
    found = _occurrences(query, title)
    result = PairDistances(np.full(query.row_count, np.inf), *(np.zeros(query.row_count) for _ in range(3)))
    every, by_term = np.arange(len(found.rows)), np.argsort(found.terms, kind="stable")
    nearest = np.empty(len(found.rows))
    for rank in range(1, _most_terms(found)):
        every = every[found.term_counts[found.rows[every]] > rank]
        by_term = by_term[found.term_counts[found.rows[by_term]] > rank]
        nearest[every] = _nearest(found.ranks[every] == rank, found.rows[every], found.positions[every])
        # Each pair once: with the terms of lower rank.
        others = by_term[found.ranks[by_term] < rank]
        first = np.flatnonzero(np.diff(found.terms[others], prepend=-1))
        distances = np.minimum.reduceat(nearest[others], first) if len(first) else np.zeros(0)
        occurs = np.isfinite(distances)
        _fold(result, found.rows[others[first[occurs]]], distances[occurs])
    return result


def _fold(result: PairDistances, rows: Any, distances: Numbers) -> None:
    np.minimum.at(result.least, rows, distances)
    np.maximum.at(result.greatest, rows, distances)
    np.add.at(result.total, rows, distances)
    np.add.at(result.count, rows, 1)


def _nearest(is_term: Any, rows: Any, positions: Any) -> Numbers:
    """Returns how far each occurrence is from the nearest of its row where `is_term` is true; infinity without any."""
    before = _last_position(is_term, rows, positions)
    after = -_last_position(is_term[::-1], rows[::-1], -positions[::-1])[::-1]
    nearest: Numbers = np.minimum(positions - before, after - positions)
    return nearest


def _last_position(is_term: Any, rows: Any, positions: Any) -> Numbers:
    """Returns the position of the last occurrence up to each one that `is_term` marks in its row; else minus infinity."""
    last = np.maximum.accumulate(np.where(is_term, np.arange(len(rows)), -1))
    is_there = (last >= 0) & (rows[last] == rows)
    return np.where(is_there, positions[last], -np.inf)


def _most_terms(found: _Occurrences) -> int:
    return int(found.term_counts[found.rows].max(initial=0))


def _occurrences(query: Terms, title: Terms) -> _Occurrences:
    wanted = np.unique(query.cells)
    place = np.searchsorted(wanted, title.cells)
    at = np.flatnonzero(np.append(wanted, -1)[place] == title.cells)
    rows, terms = title.rows[at], place[at]
    counts = np.bincount(wanted // query.width, minlength=query.row_count)
    ranks = terms - (np.cumsum(counts) - counts)[rows]
    return _Occurrences(rows, at - title.offsets[rows], terms, ranks, counts)
