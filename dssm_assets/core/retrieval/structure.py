"""The structure of a table of vectors, checked part by part while it is written.

Belongs here: what must hold for every row and for the whole of such a table. Does not belong here: reading vectors for
a search (`vectors.py`), writing tables.

The vectors pass through and are forgotten; of the rows only the ids are kept, since only all of them together tell
whether they are unique.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

SHOWN = 5
"""Ids that a sentence names."""
NULL_IDS, NULL_VECTORS = "without an id", "without a vector"
NOT_FINITE, ZEROS, TWICE = "not finite (NaN or infinity)", "all zeros", "under an id that another row has"


@dataclass(frozen=True)
class Offence:
    """One way in which rows are wrong: which way, how many, and the first of their ids."""

    what: str
    count: int
    first_ids: tuple[str, ...]

    def __str__(self) -> str:
        shown = ", ".join(self.first_ids) + (", ..." if self.count > len(self.first_ids) else "")
        return f"{self.count} {self.what}: {shown}"


@dataclass(frozen=True)
class StructureReport:
    """What a table of vectors is, beside what it should be.

    Attributes:
        row_count: rows that came.
        expected_row_count: rows that should have come.
        width: floats per vector that the table should have.
        wrong_type: type of the vectors where it is not a fixed-size list of that many float32, else "".
        offences: what is wrong with single rows.
    """

    row_count: int
    expected_row_count: int
    width: int
    wrong_type: str
    offences: tuple[Offence, ...]

    @property
    def passed(self) -> bool:
        """Tells whether everything is as it should be."""
        return not self.wrong_type and not self.offences and self.row_count == self.expected_row_count

    @property
    def sentence(self) -> str:
        """Returns what was found, in one sentence that names the first ids of every kind of fault."""
        if self.passed:
            return f"{self.row_count} vectors of {self.width} floats, ids unique, all finite, none all zeros"
        faults = []
        if self.row_count != self.expected_row_count:
            faults.append(f"{self.row_count} rows where {self.expected_row_count} were expected")
        if self.wrong_type:
            faults.append(f"vectors are {self.wrong_type}, not {self.width} float32 each")
        return "; ".join([*faults, *map(str, self.offences)])

    def facts(self) -> dict[str, Any]:
        """Returns the figures: rows, expected rows, and how many rows are wrong in each way that occurs."""
        counts = {offence.what: offence.count for offence in self.offences}
        return {"rows": self.row_count, "expected_rows": self.expected_row_count, "offending_rows": counts}


class VectorStructure:
    """Takes the parts of one table, in any sizes, and reports on the whole."""

    def __init__(self, *, width: int, expected_row_count: int) -> None:
        """Expects so many floats per vector and so many rows."""
        self._width, self._expected = width, expected_row_count
        self._ids: list[pa.Array] = []
        self._wrong_type = ""
        self._counts: dict[str, int] = {}
        self._first: dict[str, list[str]] = {}

    def check_rows(self, ids: pa.Array, vectors: pa.Array) -> None:
        """Takes the next rows.

        Args:
            ids: integers or text.
            vectors: fixed_size_list<float32>, as many.
        """
        self._ids.append(ids)
        self._note(NULL_IDS, ids, ids.is_null())
        kind = vectors.type
        if not pa.types.is_fixed_size_list(kind) or kind.list_size != self._width or kind.value_type != pa.float32():
            self._wrong_type = str(kind)
            return
        self._note(NULL_VECTORS, ids, vectors.is_null())
        held, known = ids, vectors
        if vectors.null_count:  # else nothing need be copied
            held, known = ids.filter(vectors.is_valid()), vectors.filter(vectors.is_valid())
        flat = known.flatten().to_numpy(zero_copy_only=False)  # a null among the floats becomes NaN
        matrix = flat.reshape(len(held), self._width)
        is_finite = np.isfinite(matrix).all(axis=1)
        self._note(NOT_FINITE, held, pa.array(~is_finite))
        self._note(ZEROS, held, pa.array(is_finite & ~matrix.any(axis=1)))

    def append(self, behind: VectorStructure) -> None:
        """Takes the rows that another has taken, as those behind its own."""
        self._ids += behind._ids
        self._wrong_type = self._wrong_type or behind._wrong_type
        for what, count in behind._counts.items():
            self._counts[what] = self._counts.get(what, 0) + count
            first = self._first.setdefault(what, [])
            first += behind._first[what][: SHOWN - len(first)]

    def report(self) -> StructureReport:
        """Returns the report on everything taken so far."""
        offences = [Offence(what, count, tuple(self._first[what])) for what, count in self._counts.items()]
        again = _repeated(self._ids)
        if again is not None:
            extra = pc.sum(pc.subtract(again.field("counts"), 1)).as_py()
            offences.append(Offence(TWICE, extra, tuple(_texts(again.field("values")[:SHOWN]))))
        rows = sum(map(len, self._ids))
        return StructureReport(rows, self._expected, self._width, self._wrong_type, tuple(offences))

    def _note(self, what: str, ids: pa.Array, is_wrong: pa.Array) -> None:
        count = is_wrong.true_count
        if not count:
            return
        self._counts[what] = self._counts.get(what, 0) + count
        first = self._first.setdefault(what, [])
        first += _texts(ids.filter(is_wrong)[: SHOWN - len(first)])


def _texts(ids: Iterable[pa.Scalar]) -> list[str]:
    return [str(value) if value.is_valid else "null" for value in ids]


def _repeated(parts: list[pa.Array]) -> Any:
    """Returns the ids that occur more than once with their counts, in the order of their first row; None without any."""
    if not parts:
        return None
    ids = pa.chunked_array(parts).drop_null()
    if pc.count_distinct(ids).as_py() == len(ids):
        return None
    counts = pc.value_counts(ids)
    return counts.filter(pc.greater(counts.field("counts"), 1))
