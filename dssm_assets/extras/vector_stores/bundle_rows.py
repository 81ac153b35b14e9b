"""Reads a bundle's rows for a vector store, and compares the rows of two bundles."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core import columns as col
from dssm_assets.core.arrays.ragged import combine_chunks
from dssm_assets.core.config.pipeline import VectorTable
from dssm_assets.core.errors import ConfigError, Fault
from dssm_assets.core.file_names import BundleFile
from dssm_assets.core.progress import count_progress
from dssm_assets.core.sources.convert import decode_column
from dssm_assets.extras.vector_stores.store import DAY, INTEREST, KEYS, MODEL_DIGEST, RESERVED, Changes, Rows
from dssm_assets.service.bundle.bundle_store import FetchedBundle
from dssm_assets.storage.local_files import map_arrow
from dssm_assets.storage.sources.table_source import quote_name

BATCH_ROWS = 10_000
_FILES = {VectorTable.ITEM: (BundleFile.ITEM_VECTORS, BundleFile.ITEM_COLUMNS), VectorTable.USER: (BundleFile.USER_VECTORS,)}


class BundleRows:
    """The rows of one table, read from a bundle's files on the local disk."""

    def __init__(self, bundle: FetchedBundle, table: VectorTable) -> None:
        """Maps the bundle's files into memory.

        Raises:
            ConfigError: a filter column has a name that the store uses itself.
        """
        manifest, folder = bundle.manifest, bundle.folder
        self.table, self._key = table, KEYS[table][0]
        day = str(manifest["ds"])
        self._constants = {DAY: day, MODEL_DIGEST: str(manifest["inputs"][f"dssm_model/{day}"])}
        if table is VectorTable.USER:  # one row per user and interest
            stored, interests = map_arrow(folder / BundleFile.USER_VECTORS), int(manifest.get("interests", 1))
            ids, vectors = (combine_chunks(stored.column(name)) for name in (col.USER_ID, col.USER_TOWER_EMB))
            columns = {
                self._key: ids.take(pa.array(np.repeat(np.arange(len(ids)), interests))),
                INTEREST: pa.array(np.tile(np.arange(interests, dtype=np.int32), len(ids))),
                col.USER_TOWER_EMB: pa.FixedSizeListArray.from_arrays(vectors.flatten(), int(manifest["dims"])),
            }
            self.content = pa.table(columns)
            return
        stored = map_arrow(folder / BundleFile.ITEM_VECTORS)
        columns = {self._key: stored.column(col.ITEM_ID), col.ITEM_TOWER_EMB: stored.column(col.ITEM_TOWER_EMB)}
        if BundleFile.ITEM_COLUMNS in manifest["files"]:
            others = map_arrow(folder / BundleFile.ITEM_COLUMNS)
            if taken := sorted(RESERVED & set(others.column_names)):
                expected = f"columns with other names than {', '.join(sorted(RESERVED))}"
                raise ConfigError(Fault("serving.filters", expected, ", ".join(taken), "rename them in tables.item.columns"))
            columns |= {name: decode_column(others.column(name)) for name in others.column_names}
        self.content = pa.table(columns)

    def to_rows(self, log: Callable[[str], None]) -> Rows:
        """Returns the rows to write. `log` receives progress lines while they are read."""
        return Rows(self.complete(self.content.slice(0, 0)).schema, self.content.num_rows, self._read_batches(log))

    def find_changes(self, before: BundleRows) -> Changes:
        """Returns the changes that turn another bundle's rows into these. Both must have the same model and columns."""
        after, keys = self.content, KEYS[self.table]
        others = (quote_name(name) for name in after.column_names if name not in keys)
        differs = " OR ".join(f"after.{name} IS DISTINCT FROM before.{name}" for name in others)
        with duckdb.connect() as connection:
            connection.register("after", after)
            connection.register("before", before.content)
            joined = f"SELECT after.* FROM after LEFT JOIN before USING ({', '.join(keys)}) WHERE {differs}"
            changed = connection.sql(joined).to_arrow_table()
        gone = pc.unique(before.content.column(self._key))
        gone = gone.filter(pc.invert(pc.is_in(gone, combine_chunks(after.column(self._key)))))
        return Changes(self.complete(changed.cast(after.schema)), gone)

    def complete(self, rows: pa.Table) -> pa.Table:
        """Appends the constant columns, such as the day, to `rows`."""
        for name, value in self._constants.items():
            rows = rows.append_column(name, pa.repeat(pa.scalar(value), rows.num_rows))
        return rows

    def _read_batches(self, log: Callable[[str], None]) -> Iterator[pa.RecordBatch]:
        total = self.content.num_rows
        count_rows = count_progress(lambda line: log(f"{self.table} vectors: {line}"), time.monotonic, total, "rows")
        for start in range(0, total, BATCH_ROWS):
            yield from self.complete(self.content.slice(start, BATCH_ROWS)).combine_chunks().to_batches()
            count_rows(min(BATCH_ROWS, total - start))


def describe_files(manifest: Mapping[str, Any], table: VectorTable) -> list[str | None]:
    """Returns the digests of the bundle's files that a table's rows are read from."""
    return [manifest["files"].get(name, {}).get("sha256") for name in _FILES[table]]
