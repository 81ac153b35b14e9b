"""Checks a table of vectors part by part while it is written.

Only the ids stay in memory: they must be unique in the whole table.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core.arrays.ids import find_repeated

SHOWN = 5
"""A report names so many ids per kind of fault."""
NOT_FINITE, ZEROS, TWICE = "not finite (NaN or infinity)", "all zeros", "under the id of another row"


@dataclass(frozen=True)
class Offence:
    """A kind of fault: the number of its rows, and their first ids. User ids are left out, because reports are stored."""

    what: str
    count: int
    first_ids: tuple[str, ...]

    def __str__(self) -> str:
        shown = ", ".join(self.first_ids) + (", ..." if self.count > len(self.first_ids) else "")
        return f"{self.count} {self.what}: {shown}" if self.first_ids else f"{self.count} {self.what}"


@dataclass(frozen=True)
class StructureReport:
    """The structure of a table of vectors, compared with the expected structure.

    Attributes:
        row_count: rows of the table.
        width: floats per vector.
        offences: faults of single rows.
    """

    row_count: int
    expected_row_count: int
    width: int
    offences: tuple[Offence, ...]

    @property
    def passed(self) -> bool:
        return not self.offences and self.row_count == self.expected_row_count

    @property
    def sentence(self) -> str:
        if self.passed:
            return f"{self.row_count} vectors of {self.width} floats, ids unique, all finite, none all zeros"
        faults = []
        if self.row_count != self.expected_row_count:
            faults.append(f"{self.row_count} rows where {self.expected_row_count} were expected")
        return "; ".join([*faults, *map(str, self.offences)])


class VectorStructure:
    """Checks a table in parts of any size, then reports on the whole."""

    def __init__(self, *, width: int, expected_row_count: int, is_of_users: bool = False) -> None:
        self._width, self._expected, self._shown = width, expected_row_count, 0 if is_of_users else SHOWN
        self._ids: list[pa.Array] = []
        self._offences: dict[str, Offence] = {}

    def check_rows(self, ids: pa.Array, vectors: pa.Array) -> None:
        """Checks the next rows.

        Args:
            ids: integers or text, not null.
            vectors: fixed_size_list<float32> of the expected width, not null, one per id.
        """
        self._ids.append(ids)
        # A null among the floats becomes NaN.
        matrix = vectors.flatten().to_numpy(zero_copy_only=False).reshape(len(ids), self._width)
        is_finite = np.isfinite(matrix).all(axis=1)
        self._note(NOT_FINITE, ids.filter(pa.array(~is_finite)))
        self._note(ZEROS, ids.filter(pa.array(is_finite & ~matrix.any(axis=1))))

    def append(self, following: VectorStructure) -> None:
        """Appends the findings of the next block."""
        self._ids += following._ids
        for offence in following._offences.values():
            self._add(offence)

    def report(self) -> StructureReport:
        offences, rows = list(self._offences.values()), sum(map(len, self._ids))
        if rows:
            ids = pa.chunked_array(self._ids)
            if extra := rows - pc.count_distinct(ids).as_py():
                offences.append(Offence(TWICE, extra, self._texts(find_repeated(ids))))
        return StructureReport(rows, self._expected, self._width, tuple(offences))

    def _note(self, what: str, wrong_ids: pa.Array) -> None:
        if len(wrong_ids):
            self._add(Offence(what, len(wrong_ids), self._texts(wrong_ids)))

    def _add(self, more: Offence) -> None:
        known = self._offences.get(more.what, Offence(more.what, 0, ()))
        first = (known.first_ids + more.first_ids)[:SHOWN]
        self._offences[more.what] = Offence(more.what, known.count + more.count, first)

    def _texts(self, ids: pa.Array) -> tuple[str, ...]:
        return tuple(map(str, ids[: self._shown]))
