"""Canonical users and items, made some rows at a time out of a raw table that need not be in memory.

Belongs here: their order and their rows. Does not belong here: what is refused (`normalise.py`), single columns (`convert.py`).

Shapes: N rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat
from numpy.typing import NDArray

from dssm_assets.core.sources.convert import flat

ROWS: Final = 1 << 16
"""Rows that are made at once."""


@dataclass(frozen=True)
class Entities:
    """A canonical table of users or items. Held are its ids and their order; the rest is taken from the raw table as it is read.

    Attributes:
        key: name of the id.
        ids: [N], distinct, in the order of the raw table.
        raw: the source's rows with our names; mapped from a file it takes no memory.
        counts: what is allowed but worth knowing.
    """

    key: str
    ids: pa.Array
    raw: pa.Table
    counts: Mapping[str, int]

    @property
    def schema(self) -> pa.Schema:
        """Returns the id and then the source's other columns in their order."""
        others = [pa.field(name, plain(pa.nulls(0, kind)).type) for name, kind in _others(self.raw, self.key)]
        return pa.schema([pa.field(self.key, self.ids.type), *others])

    @property
    def table(self) -> pa.Table:
        """Returns all rows in memory."""
        return pa.Table.from_batches(list(self.batches()), self.schema)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yields the rows sorted by id, ROWS of them at a time."""
        order = pc.sort_indices(self.ids).to_numpy().astype(np.int64)
        stored = self.raw.select([name for name, _ in _others(self.raw, self.key)]).to_batches()
        ends = np.cumsum([batch.num_rows for batch in stored])
        for start in range(0, len(order), ROWS):
            chosen = order[start : start + ROWS]
            columns = [self.ids.take(pa.array(chosen)), *map(plain, _gathered(stored, ends, chosen))]
            yield pa.record_batch(columns, schema=self.schema)


def plain(values: pa.ChunkedArray | pa.Array) -> pa.Array:
    """Returns a column as one array, dictionaries decoded; a column without any value becomes text."""
    column = flat(values)
    return column.cast(pa.string()) if pat.is_null(column.type) else column


def _others(raw: pa.Table, key: str) -> list[tuple[str, pa.DataType]]:
    return [(field.name, field.type) for field in raw.schema if field.name != key]


def _gathered(stored: list[pa.RecordBatch], ends: NDArray[np.int64], chosen: NDArray[np.int64]) -> list[Any]:
    """Returns the columns of chosen rows, in that order; of a table in batches no column is joined for it."""
    ascending = np.sort(chosen)
    bounds = np.searchsorted(ascending, [0, *ends.tolist()])
    parts = [
        batch.take(pa.array(ascending[low:high] - (end - batch.num_rows)))
        for batch, end, low, high in zip(stored, ends.tolist(), bounds[:-1], bounds[1:], strict=True)
        if high > low
    ]
    rows = pa.Table.from_batches(parts).combine_chunks()
    if not (chosen == ascending).all():
        rows = rows.take(pa.array(np.searchsorted(ascending, chosen)))
    return list(rows.columns)
