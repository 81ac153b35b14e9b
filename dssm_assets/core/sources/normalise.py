"""Converts raw source tables to the canonical `user_table`, `item_table` and `behavior_table`.

Belongs here: rules for whole tables, such as columns, missing and duplicate keys, known events, order of rows, counts of
accepted irregularities. Does not belong here: single columns (`convert.py`, `event_time.py`), reading files and renaming
columns (`storage/sources`).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat
from numpy.typing import NDArray

from dssm_assets.core.arrays.ids import find_repeated, name_ids
from dssm_assets.core.columns import EVENT, EVENT_TIME_MS, ITEM_ID, REQUEST_ID, USER_ID
from dssm_assets.core.config.pipeline import BehaviorTable, Events, SourceTable
from dssm_assets.core.errors import DuplicateKeyError, EmptyDayError, Fault, SchemaError
from dssm_assets.core.hidden_rows import NOBODY, HiddenRows
from dssm_assets.core.schema import TableSpec, has_repeated
from dssm_assets.core.sources.canonical_tables import BEHAVIOR_TABLE, EVENT_TIME
from dssm_assets.core.sources.convert import check_text, decode_column, to_ids, to_text, to_values
from dssm_assets.core.sources.event_time import dates_of, to_event_time_ms

ROWS: Final = 1 << 16
"""Rows per batch."""
SHOWN: Final = 5
"""An error shows so many of the bad values."""


@dataclass(frozen=True)
class Entities:
    """A canonical table of users or items. Only its ids are in memory; `batches` reads the other columns from the raw table.

    Attributes:
        spec: contract of the table.
        ids: [N], distinct, in the order of the raw table.
        raw: the source's rows with our column names; takes no memory if mapped from a file.
    """

    spec: TableSpec
    ids: pa.Array
    raw: pa.Table

    @property
    def schema(self) -> pa.Schema:
        """The schema has the id, then the source's other columns in their order."""
        (key,) = self.spec.key
        others = [field for field in self.raw.schema if field.name != key]
        plain = [pa.field(field.name, _decode(pa.nulls(0, field.type), "").type) for field in others]
        return pa.schema([pa.field(key, self.ids.type), *plain])

    @property
    def table(self) -> pa.Table:
        return pa.Table.from_batches(list(self.batches()), self.schema)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yields the rows sorted by id, in batches of ROWS.

        Raises:
            SchemaError: text of an attribute is not UTF-8.
        """
        schema = self.schema
        names = schema.names[1:]
        order = pc.sort_indices(self.ids).to_numpy().astype(np.int64)
        stored = self.raw.select(names).to_batches()
        ends = np.cumsum([batch.num_rows for batch in stored])
        for start in range(0, len(order), ROWS):
            chosen = order[start : start + ROWS]
            attributes = zip(names, _gather_rows(stored, ends, chosen), strict=True)
            decoded = [_decode(values, f"table {self.spec.name}, column {name}") for name, values in attributes]
            yield pa.record_batch([self.ids.take(pa.array(chosen)), *decoded], schema=schema)


def _decode(values: pa.ChunkedArray | pa.Array, where: str) -> pa.Array:
    """Returns a column as one array, with dictionaries decoded. A column without any value becomes text."""
    column = check_text(decode_column(values), where)
    return column.cast(pa.string()) if pat.is_null(column.type) else column


def _gather_rows(stored: list[pa.RecordBatch], ends: NDArray[np.int64], chosen: NDArray[np.int64]) -> list[Any]:
    """Returns the columns of the chosen rows, in the order of `chosen`, without joining the batches."""
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


def normalise_entities(raw: pa.Table, spec: TableSpec, hidden: HiddenRows = NOBODY) -> Entities:
    """Returns user_table or item_table: one row per id, read in order of id. The id column comes first.

    Hidden users are left out.

    Raises:
        SchemaError: the id column is missing, has missing values or cannot be ids.
        DuplicateKeyError: an id has more than one row.
        EmptyDayError: there are no rows.
    """
    (key,) = spec.key
    read = _Reader(raw, spec.name)
    ids = read(key, to_ids)
    SchemaError.raise_if(read.faults + _missing_faults({key: ids}, spec))
    if not raw.num_rows:
        raise EmptyDayError(Fault(f"table {spec.name}", "at least one row", "no rows", "load the table into the source"))
    ids = decode_column(ids)
    if has_repeated(ids):
        repeated = find_repeated(ids)
        where, remedy = f"table {spec.name}, column {key}", "keep one row per id in the source, e.g. the newest"
        got = f"{len(repeated)} ids with more than one row{name_ids(repeated, where)}"
        raise DuplicateKeyError(Fault(where, spec.grain, got, remedy))
    if key == USER_ID and (is_hidden := hidden.find(ids)).any():
        is_kept = pa.array(~is_hidden)
        ids, raw = ids.filter(is_kept), raw.filter(is_kept)
    return Entities(spec, ids, raw)


def distinct_ids(raw: pa.Table, key: str) -> pa.Table:
    """Returns a canonical table with only the distinct ids of a log, ascending.

    Raises:
        SchemaError: the column cannot be ids.
    """
    ids = pc.unique(to_ids(raw.column(key), f"table {BEHAVIOR_TABLE.name}, column {key}")).drop_null()
    return pa.table({key: ids.take(pc.sort_indices(ids))})


def convert_times(raw: pa.Table, config: SourceTable, *, name: str, timezone: str) -> pa.Table:
    """Converts time columns of raw users or items to int64 milliseconds since 1970-01-01 UTC. Columns have the source's names.

    Raises:
        SchemaError: a column does not exist or has no times. All such columns are named.
    """
    faults: list[Fault] = []
    for column in config.time_columns:
        where, place = f"table {name}, column {column}", raw.schema.get_field_index(column)
        if place < 0:
            remedy = f"correct tables.{name.removesuffix('_table')}.time_columns"
            faults.append(Fault(where, "the column to exist", f"columns {', '.join(raw.column_names)}", remedy))
            continue
        try:
            times = to_event_time_ms(
                raw.column(place), unit="auto", timezone=timezone, where=where, time_format=config.time_format
            )
        except SchemaError as error:
            faults.extend(error.faults)
        else:
            raw = raw.set_column(place, column, times)
    SchemaError.raise_if(faults)
    return raw


def normalise_behavior(
    raw: pa.Table, config: BehaviorTable, events: Events, *, timezone: str, day: str, hidden: HiddenRows = NOBODY
) -> tuple[pa.Table, dict[str, int]]:
    """Returns behavior_table of one day, sorted by (event_time_ms, user_id, item_id, event), and counts.

    Columns: request_id (null if the source has none), user_id, item_id, event, event_time_ms, the value columns as float64,
    the context columns as text, then the other columns of `keep`. Rows with equal keys are sorted by their other columns
    except lists and uuids, because a database has no order of rows. If rows lie on another day of `timezone`, they are kept and
    counted, because the source filed them under this day. Hidden rows are left out. Counts: rows, rows_on_other_days, users,
    items, and `{event}_rows` for every event of the funnel.

    Raises:
        SchemaError: a column, id or timestamp is missing, an event is unknown or a value is bad. All are named.
        EmptyDayError: the day has no rows and `allow_empty_days` is off.
    """
    if not raw.num_rows and not config.allow_empty_days:
        raise EmptyDayError(empty_day_fault(day))
    table = hidden.drop_rows(_convert_behavior(raw, config, events, timezone))
    ordered = [column.name for column in table.schema if _has_order(column.type)]
    by = dict.fromkeys([*BEHAVIOR_TABLE.key, *ordered], "ascending")
    table = table.take(pc.sort_indices(table, sort_keys=list(by.items())))
    dates = dates_of(table.column(EVENT_TIME_MS), timezone)
    tally = {item["values"]: item["counts"] for item in table.column(EVENT).value_counts().to_pylist()}
    counts = {
        "rows": table.num_rows,
        "rows_on_other_days": pc.sum(pc.not_equal(dates, dt.date.fromisoformat(day)), min_count=0).as_py(),
        "users": pc.count_distinct(table.column(USER_ID)).as_py(),
        "items": pc.count_distinct(table.column(ITEM_ID)).as_py(),
    }
    return table, counts | {f"{event}_rows": tally.get(event, 0) for event in events.funnel}


def _has_order(kind: pa.DataType) -> bool:
    """Returns whether Arrow can sort a column of a type."""
    return not (pat.is_nested(kind) or isinstance(kind, pa.BaseExtensionType))


def _convert_behavior(raw: pa.Table, config: BehaviorTable, events: Events, timezone: str) -> pa.Table:
    read = _Reader(raw, BEHAVIOR_TABLE.name)
    event = pa.repeat(pa.scalar(config.constant_event), raw.num_rows) if config.constant_event else read(EVENT, to_text)
    to_time = partial(to_event_time_ms, unit=config.time_unit, timezone=timezone, time_format=config.time_format)
    columns: dict[str, Any] = {
        REQUEST_ID: read(REQUEST_ID, to_text) if REQUEST_ID in raw.column_names else pa.nulls(raw.num_rows, pa.string()),
        USER_ID: read(USER_ID, to_ids),
        ITEM_ID: read(ITEM_ID, to_ids),
        EVENT: event,
        EVENT_TIME_MS: read(EVENT_TIME, lambda values, where: to_time(values, where=where)),
    }
    read_values = partial(to_values, decimal_mark=config.decimal_mark)
    columns |= {name: read(name, read_values) for name in config.value_columns}
    columns |= {name: read(name, to_text) for name in config.context_columns}
    faults = [*read.faults, *_missing_faults(columns, BEHAVIOR_TABLE), *_unknown_event_faults(columns[EVENT], events)]
    SchemaError.raise_if(faults)
    others = [name for name in raw.column_names if name not in {*columns, EVENT_TIME}]
    columns |= {name: _decode(raw.column(name), f"table {BEHAVIOR_TABLE.name}, column {name}") for name in others}
    return pa.table(columns)


def empty_day_fault(day: str) -> Fault:
    """Returns the fault of a day without behavior."""
    remedy = "load the day into the source, or set tables.behavior.allow_empty_days if nothing happened on it"
    return Fault(f"table {BEHAVIOR_TABLE.name}, day {day}", "at least one row", "no rows", remedy)


class _Reader:
    """Reads columns of a raw table one by one and collects their faults."""

    def __init__(self, raw: pa.Table, table: str) -> None:
        self.raw = raw
        self.table = table
        self.faults: list[Fault] = []

    def __call__(self, name: str, convert: Callable[[Any, str], pa.Array]) -> pa.Array | None:
        where = f"table {self.table}, column {name}"
        if name not in self.raw.column_names:
            present = ", ".join(self.raw.column_names) or "no columns"
            key = self.table.removesuffix("_table")
            self.faults.append(Fault(where, "the column to exist", f"columns {present}", f"map it in tables.{key}.columns"))
            return None
        try:
            return convert(self.raw.column(name), where)
        except SchemaError as error:
            self.faults.extend(error.faults)
            return None


def _missing_faults(columns: Mapping[str, Any], spec: TableSpec) -> list[Fault]:
    return [
        Fault(
            f"table {spec.name}, column {column.name}",
            "a value in every row",
            f"{columns[column.name].null_count} missing in {len(columns[column.name])} rows",
            "drop or fix those rows in the source",
        )
        for column in spec.columns
        if not column.is_nullable and columns[column.name] is not None and columns[column.name].null_count
    ]


def _unknown_event_faults(event: Any, events: Events) -> list[Fault]:
    if event is None:
        return []
    unknown = event.filter(pc.invert(pc.is_in(event, value_set=pa.array(events.funnel)))).drop_null()
    if not len(unknown):
        return []
    tally = sorted((item["values"], item["counts"]) for item in unknown.value_counts().to_pylist())
    got = ", ".join(f"{name!r} ({count} rows)" for name, count in tally)
    remedy = "add them to events.funnel, or drop those rows in the source"
    return [Fault(f"table {BEHAVIOR_TABLE.name}, column {EVENT}", f"events of the funnel {events.funnel}", got, remedy)]
