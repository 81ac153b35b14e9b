"""Arrow files on the local disk, written batch by batch and memory-mapped by whoever reads them.

Belongs here: the one way a bundle's tables are written. Does not belong here: parquet (`table_store.py`).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa


def write_arrow(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> int:
    """Writes an uncompressed Arrow IPC file; returns its number of rows. One batch is held at a time."""
    rows = 0
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
            rows += batch.num_rows
    return rows


def write_arrow_table(path: Path, table: pa.Table) -> int:
    """Writes a table as an Arrow IPC file of one batch; returns its number of rows."""
    return write_arrow(path, table.schema, table.combine_chunks().to_batches())
