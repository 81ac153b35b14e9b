"""Proximity of a query's terms in a title: the smallest window that holds them all, and how far apart pairs stand.

Belongs here: distances between places in the title. Does not belong here: membership and order (`term_overlap.py`).

The measures are those of Tao and Zhai, "An Exploration of Proximity Measures in Information Retrieval" (SIGIR 2007),
section 3, over the distinct terms of the query. Work per row is the query's distinct terms times their occurrences in
the title; memory is the occurrences.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dssm_assets.core.features.number_values import Numbers
from dssm_assets.core.features.term_overlap import Terms


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
