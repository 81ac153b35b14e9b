"""Tiny behavior logs and the engine they are tried on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ibis
import pyarrow as pa

from dssm_assets.core.features_raw.local_time import DAY_MS, shift_day

FIRST_DAY = "2024-01-01"
FIRST_MS = 1_704_067_200_000  # 2024-01-01 00:00 UTC

LOG_SCHEMA = pa.schema(
    [
        ("request_id", pa.string()),
        ("user_id", pa.int64()),
        ("item_id", pa.int64()),
        ("event", pa.string()),
        ("event_time_ms", pa.int64()),
        ("price", pa.float64()),
        ("category", pa.string()),
        ("brand", pa.string()),
    ]
)


def day_name(day: int) -> str:
    """Returns the date of day number `day` (0 = FIRST_DAY)."""
    return shift_day(FIRST_DAY, day)


def at(day: int, ms: int = 0) -> int:
    """Returns the instant `ms` milliseconds into day number `day`, UTC."""
    return FIRST_MS + day * DAY_MS + ms


def log(rows: Sequence[tuple[Any, ...]], schema: pa.Schema = LOG_SCHEMA) -> pa.Table:
    """Returns behavior rows (user, item, event, time, price, category, brand) as a table."""
    names = schema.names[1:]
    return pa.Table.from_pylist([{"request_id": None, **dict(zip(names, row, strict=True))} for row in rows], schema=schema)


def as_text_ids(table: pa.Table) -> pa.Table:
    for name in ("user_id", "item_id"):
        if name in table.column_names:
            table = table.set_column(table.column_names.index(name), name, table.column(name).cast(pa.string()))
    return table


def with_ds(days: dict[int, pa.Table]) -> ibis.Table:
    parts = [table.append_column("ds", pa.array([day_name(day)] * table.num_rows, pa.string())) for day, table in days.items()]
    return ibis.memtable(pa.concat_tables(parts))


def run(con: Any, expression: Any) -> pa.Table:
    return con.to_pyarrow(expression)
