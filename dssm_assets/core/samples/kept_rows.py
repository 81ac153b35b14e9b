"""Which rows of feature tables the samples of a window point to, and where those stand once the others are left out.

Belongs here: `KeptRows`. Does not belong here: reading the tables and what becomes of their rows (`train_samples.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core.errors import Fault, SchemaError
from dssm_assets.core.samples.id_index import Column, one_array
from dssm_assets.core.samples.sample_fg import use_counts

_MOST_ROWS = int(np.iinfo(np.int32).max)


class KeptRows:
    """The kept rows of several tables, one table after another behind row 0, which stands for "unknown".

    The tables come in the order in which they are first marked, the rows of each in its own order. Days that share a
    table by content name it alike, so its rows stand there once. Of every row a bit is held.
    Example: rows 4 and 1 of a first table and row 0 of a second are marked: they now stand in rows 2, 1 and 3.
    """

    def __init__(self) -> None:
        self._bits: dict[str, npt.NDArray[np.uint8]] = {}
        self._sizes: dict[str, int] = {}
        self._counts: dict[str, int] = {}

    @property
    def num_rows(self) -> int:
        """The number of kept rows, "unknown" included."""
        return 1 + sum(self._counts.values())

    @property
    def tables(self) -> list[str]:
        """The tables of which a row is kept, in order."""
        return [table for table, count in self._counts.items() if count]

    def mark(self, table: str, row_count: int, rows: Column) -> None:
        """Keeps the rows of a table that samples point to.

        Args:
            table: its content, for example a digest.
            row_count: how many rows it has.
            rows: the row of each sample; null points nowhere.

        Raises:
            SchemaError: a row lies outside of the table, or more rows are kept than an int32 can number.
        """
        counts, _ = use_counts(rows, row_count)
        bits = np.packbits(counts > 0)
        self._bits[table] = bits | self._bits.get(table, np.uint8(0))
        self._sizes[table] = row_count
        self._counts[table] = int(np.count_nonzero(self._is_kept(table)))
        if self.num_rows > _MOST_ROWS:
            got = f"{self.num_rows:,}"
            raise SchemaError(Fault("feature rows of the window", f"at most {_MOST_ROWS:,}", got, "shorten window.days"))

    def find(self, table: str | None, rows: Column) -> npt.NDArray[np.int32]:
        """Returns where the row of each sample stands among the kept ones: 0 for null, and if no row of the table was marked.

        Args:
            table: the content that the rows point into; None on the first day of all, when nothing was known.
            rows: rows that were marked.

        Raises:
            SchemaError: a row is not null on the first day.
        """
        if table is None and rows.null_count < len(rows):
            got = f"{len(rows) - rows.null_count} rows of a feature table"
            raise SchemaError(Fault("table positive_sample, first day", "null feature rows", got, "make sample_fg again"))
        if table is None or table not in self._bits:
            return np.zeros(len(rows), np.int32)
        before = 1
        for earlier, count in self._counts.items():
            if earlier == table:
                break
            before += count
        places = np.zeros(self._sizes[table] + 1, np.int32)  # the last is that of null
        is_kept = self._is_kept(table)
        places[:-1][is_kept] = np.arange(before, before + self._counts[table])
        found: npt.NDArray[np.int32] = places[pc.fill_null(one_array(rows), -1).to_numpy()]
        return found

    def take(self, table: str, parts: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yields the kept rows of a table that comes in parts."""
        is_kept, start = self._is_kept(table), 0
        for part in parts:
            yield part.filter(pa.array(is_kept[start : start + part.num_rows]))
            start += part.num_rows

    def _is_kept(self, table: str) -> npt.NDArray[np.bool_]:
        return np.unpackbits(self._bits[table], count=self._sizes[table]).astype(np.bool_)
