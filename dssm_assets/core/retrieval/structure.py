"""Checks a table of vectors part by part while it is written."""

from __future__ import annotations

import pyarrow as pa

from dssm_assets.core.arrays.ids import find_repeated
from dssm_assets.core.retrieval.vectors import find_unusable

SHOWN = 5
"""A report names so many ids per kind of fault."""


class VectorStructure:
    """Checks a table in parts of any size, then reports on the whole. Only the ids stay in memory, because they must be unique.

    User ids are not named, because reports are stored.
    """

    def __init__(self, *, width: int, expected_row_count: int, is_of_users: bool = False) -> None:
        self._width, self._expected, self._shown = width, expected_row_count, 0 if is_of_users else SHOWN
        self._ids: list[pa.Array] = []
        self._wrong: dict[str, list[pa.Array]] = {}  # kind of fault -> ids

    @property
    def row_count(self) -> int:
        return sum(map(len, self._ids))

    def check_rows(self, ids: pa.Array, vectors: pa.Array) -> None:
        """Checks the next rows.

        Args:
            ids: integers or text, not null.
            vectors: fixed_size_list<float32> of the expected width, not null, one per id.
        """
        self._ids.append(ids)
        # A null among the floats becomes NaN.
        matrix = vectors.flatten().to_numpy(zero_copy_only=False).reshape(len(ids), self._width)
        for what, is_wrong in find_unusable(matrix).items():
            self._wrong.setdefault(what, []).append(ids.filter(pa.array(is_wrong)))

    def append(self, following: VectorStructure) -> None:
        """Appends the findings of the next block."""
        self._ids += following._ids
        for what, ids in following._wrong.items():
            self._wrong.setdefault(what, []).extend(ids)

    def report(self) -> tuple[bool, str]:
        """Returns whether the table is sound, and a sentence with the number of each fault and its first ids."""
        rows, faults = self.row_count, list[str]()
        if rows != self._expected:
            faults.append(f"{rows} rows where {self._expected} were expected")
        wrong = {what: pa.chunked_array(parts) for what, parts in self._wrong.items()}
        if rows:
            wrong["ids of several rows"] = find_repeated(pa.chunked_array(self._ids))
        for what, ids in wrong.items():
            shown = ", ".join([*map(str, ids[: self._shown].to_pylist()), *(["..."] if len(ids) > self._shown else [])])
            faults += [f"{len(ids)} {what}" + (f": {shown}" if self._shown else "")] if len(ids) else []
        sound = f"{rows} vectors of {self._width} floats, ids unique, all finite, none all zeros"
        return not faults, "; ".join(faults) or sound
