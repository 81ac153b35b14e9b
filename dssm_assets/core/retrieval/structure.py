"""Checks the structure of a table of vectors, part by part while it is written.

Only the ids are kept, because uniqueness can be checked only over all of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

SHOWN = 5
"""Ids named per kind of fault."""
NULL_IDS, NULL_VECTORS = "without an id", "without a vector"
NOT_FINITE, ZEROS, TWICE = "not finite (NaN or infinity)", "all zeros", "under an id that another row has"


@dataclass(frozen=True)
class Offence:
    """A kind of fault, the number of rows that have it, and their first ids."""

    what: str
    count: int
    first_ids: tuple[str, ...]

    def __str__(self) -> str:
        shown = ", ".join(self.first_ids) + (", ..." if self.count > len(self.first_ids) else "")
        return f"{self.count} {self.what}: {shown}"


@dataclass(frozen=True)
class StructureReport:
    """The structure of a table of vectors against what was expected.

    Attributes:
        row_count: rows found.
        expected_row_count: rows expected.
        width: floats per vector expected.
        wrong_type: type of the vectors if it is not a fixed-size list of `width` float32, else "".
        offences: faults of single rows.
    """

    row_count: int
    expected_row_count: int
    width: int
    wrong_type: str
    offences: tuple[Offence, ...]

    @property
    def passed(self) -> bool:
        """Returns whether the table has no fault."""
        return not self.wrong_type and not self.offences and self.row_count == self.expected_row_count

    @property
    def sentence(self) -> str:
        """Returns the result in one sentence that names the first ids of each kind of fault."""
        if self.passed:
            return f"{self.row_count} vectors of {self.width} floats, ids unique, all finite, none all zeros"
        faults = []
        if self.row_count != self.expected_row_count:
            faults.append(f"{self.row_count} rows where {self.expected_row_count} were expected")
        if self.wrong_type:
            faults.append(f"vectors are {self.wrong_type}, not {self.width} float32 each")
        return "; ".join([*faults, *map(str, self.offences)])

    def facts(self) -> dict[str, Any]:
        """Returns the figures: rows, expected rows, and the number of rows by kind of fault."""
        counts = {offence.what: offence.count for offence in self.offences}
        return {"rows": self.row_count, "expected_rows": self.expected_row_count, "offending_rows": counts}


class VectorStructure:
    """Checks the parts of one table, of any sizes, and reports on the whole."""

    def __init__(self, *, width: int, expected_row_count: int) -> None:
        """Starts a table of `expected_row_count` vectors of `width` floats."""
        self._width, self._expected = width, expected_row_count
        self._ids: list[pa.Array] = []
        self._wrong_type = ""
        self._counts: dict[str, int] = {}
        self._first: dict[str, list[str]] = {}

    def check_rows(self, ids: pa.Array, vectors: pa.Array) -> None:
        """Checks the next rows.

        Args:
            ids: integers or text.
            vectors: fixed_size_list<float32>, one per id.
        """
        self._ids.append(ids)
        self._note(NULL_IDS, ids, ids.is_null())
        kind = vectors.type
        if not pa.types.is_fixed_size_list(kind) or kind.list_size != self._width or kind.value_type != pa.float32():
            self._wrong_type = str(kind)
            return
        self._note(NULL_VECTORS, ids, vectors.is_null())
        present_ids, present = ids, vectors
        if vectors.null_count:  # otherwise nothing needs to be copied
            present_ids, present = ids.filter(vectors.is_valid()), vectors.filter(vectors.is_valid())
        flat = present.flatten().to_numpy(zero_copy_only=False)  # a null among the floats becomes NaN
        matrix = flat.reshape(len(present_ids), self._width)
        is_finite = np.isfinite(matrix).all(axis=1)
        self._note(NOT_FINITE, present_ids, pa.array(~is_finite))
        self._note(ZEROS, present_ids, pa.array(is_finite & ~matrix.any(axis=1)))

    def append(self, following: VectorStructure) -> None:
        """Adds the rows that another one has checked, as those that follow its own."""
        self._ids += following._ids
        self._wrong_type = self._wrong_type or following._wrong_type
        for what, count in following._counts.items():
            self._counts[what] = self._counts.get(what, 0) + count
            first = self._first.setdefault(what, [])
            first += following._first[what][: SHOWN - len(first)]

    def report(self) -> StructureReport:
        """Returns the report on all rows checked so far."""
        offences = [Offence(what, count, tuple(self._first[what])) for what, count in self._counts.items()]
        repeated = _find_repeated(self._ids)
        if repeated is not None:
            extra = pc.sum(pc.subtract(repeated.field("counts"), 1)).as_py()
            offences.append(Offence(TWICE, extra, tuple(_texts(repeated.field("values")[:SHOWN]))))
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


def _find_repeated(parts: list[pa.Array]) -> Any:
    """Returns the ids that occur more than once with their counts, in the order of their first row; None without any."""
    if not parts:
        return None
    ids = pa.chunked_array(parts).drop_null()
    if pc.count_distinct(ids).as_py() == len(ids):
        return None
    counts = pc.value_counts(ids)
    return counts.filter(pc.greater(counts.field("counts"), 1))
