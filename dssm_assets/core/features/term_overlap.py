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

from dssm_assets.core.features import lists, text_values
from dssm_assets.core.features.lists import Offsets
from dssm_assets.core.features.number_values import Numbers


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
        return lists.row_of_value(self.offsets)

    @cached_property
    def cells(self) -> Any:
        """One integer for each term that says both its row and what it is; ascending rows have ascending cells."""
        return self.rows * self.width + self.codes


def terms_of(query: pa.Array, title: pa.Array, separator: str, where: tuple[str, str]) -> tuple[Terms, Terms]:
    """Returns the terms of both columns: elements of lists, or texts split by the separator. Missing ones are left out.

    Raises:
        SchemaError: if the values of a column have no text.
    """
    asked, asked_offsets = text_values.multi_text_values(query, separator, where[0])
    held, held_offsets = text_values.multi_text_values(title, separator, where[1])
    both = pa.concat_arrays([asked.dictionary, held.dictionary]).dictionary_encode()
    names = both.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    width = max(len(both.dictionary), 1)
    asked_codes = names[text_values.codes_of(asked)]
    held_codes = names[len(asked.dictionary) :][text_values.codes_of(held)]
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
    starts = lists.ranges(title.offsets[:-1], places)
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
