"""Ranges of a key, so that a query whose rows belong to one key each can run over some keys after the others.

Where a key's rows of the result come from that key's rows of the inputs alone, the result over all keys is what ranges of
them give one after the other: the engine then holds what a range takes, however many keys there are.

Belongs here: where ranges begin and the inputs' rows in one. Does not belong here: running the query (`duckdb_engine.py`).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import ibis
import pyarrow.parquet as pq

from dssm_assets.storage.manifest import Manifest
from dssm_assets.storage.table_store import TableStore

RANGE_GROUPS: Final = 8
"""Row groups of the longest input that is stored in the key's order, for a range."""


@dataclass(frozen=True)
class KeyRange:
    """Keys from `first` on and before `end`; None: there is no such bound."""

    first: Any = None
    end: Any = None

    def of(self, table: ibis.Table, key: str) -> ibis.Table:
        """Returns a table's rows with these keys; all its rows if it has no such column."""
        if key not in table.columns:
            return table
        bounds = [] if self.first is None else [table[key] >= self.first]
        bounds += [] if self.end is None else [table[key] < self.end]
        return table.filter(*bounds) if bounds else table


def key_ranges(store: TableStore, key: str, inputs: Sequence[Manifest]) -> list[KeyRange]:
    """Returns ranges that hold every key once, in ascending order; one without bounds where inputs are short."""
    longest = max((_first_keys(store, key, manifest) for manifest in inputs), key=len, default=[])
    starts = sorted(set(longest[RANGE_GROUPS::RANGE_GROUPS]))
    return [KeyRange(first, end) for first, end in zip([None, *starts], [*starts, None], strict=True)]


def within(tables: Mapping[str, ibis.Table], key: str, keys: KeyRange) -> dict[str, ibis.Table]:
    """Returns the rows of some tables that are in a range."""
    return {name: keys.of(table, key) for name, table in tables.items()}


def _first_keys(store: TableStore, key: str, manifest: Manifest) -> list[Any]:
    """Returns the least key of each row group; nothing where they are unknown or not in the key's order."""
    if key not in [column.name for column in manifest.columns]:
        return []
    reader = store.partitions.reader([manifest])
    seen: list[tuple[Any, Any] | None] = []
    for path in store.paths([manifest]):
        with reader.open(path, "rb") as handle:
            seen += _bounds(pq.ParquetFile(handle).metadata, key)
    known = [bounds for bounds in seen if bounds is not None]
    is_ordered = len(known) == len(seen) and all(a[1] <= b[0] for a, b in itertools.pairwise(known))
    return [low for low, _ in known] if is_ordered else []


def _bounds(metadata: pq.FileMetaData, key: str) -> list[tuple[Any, Any] | None]:
    """Returns the least and the greatest key of each row group of a file that has rows; None: it does not say."""
    column = metadata.schema.names.index(key)
    groups = [metadata.row_group(number).column(column) for number in range(metadata.num_row_groups)]
    said = [group.statistics for group in groups if group.num_values]
    return [(known.min, known.max) if known is not None and known.has_min_max else None for known in said]
