"""Reads days of a source table as configured, in one of three layouts.

Belongs here: dividing rows into days. Does not belong here: opening a source (`source.py`, `source_files.py`), the column
mapping (`source_columns.py`), the meaning of values (`core/sources`).

The source is read once, in blocks (262,144 rows, or 16 MiB of text). The wanted rows go to a temporary folder on local disk,
removed with the iterator. From there a snapshot or a day folder is memory-mapped, and a log with a time column takes the memory
of one day. Parquet row groups without wanted days are skipped by their statistics, so one day of a log sorted by time costs
little. A csv log is read from start to end. JSON lines are read twice, for their columns and for their rows.
"""

from __future__ import annotations

import datetime as dt
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from dssm_assets.core.config.pipeline import BehaviorTable, FileFormat, Layout
from dssm_assets.core.errors import EmptyDayError, Fault, PartitionMissingError, SchemaError
from dssm_assets.core.progress import count_progress
from dssm_assets.core.sources.canonical_tables import EVENT_TIME
from dssm_assets.core.sources.event_time import dates_of, day_ranges, is_ordered
from dssm_assets.core.sources.normalise import empty_day_fault
from dssm_assets.storage.local_files import ScratchFolder, arrow_writer, map_arrow, write_arrow
from dssm_assets.storage.sources.source import DayBounds, Source, SourcePiece
from dssm_assets.storage.sources.source_columns import CsvTypes, PlannedPiece, csv_types, plan_pieces

_NO_DATE: Final = np.iinfo(np.int32).min


def read_days(
    source: Source, days: Sequence[str], *, timezone: str = "UTC", log: Callable[[str], None] = lambda line: None
) -> Iterator[tuple[str, pa.Table]]:
    """Returns an iterator over (day, raw rows of that day), days ascending and distinct, in one pass over the source.

    Columns have our names (`event_time` is the raw time column of a log); values are unchanged. A day of behavior without rows
    is an empty table if `allow_empty_days` is set.

    Args:
        timezone: zone of the days of a log with a time column.
        log: called with a line of text if rows are left out.

    Raises:
        SourceMissingError: there are no data files.
        PartitionMissingError: days have no folder. Names all of them.
        EmptyDayError: while iterating: days of behavior have no rows and may not be empty. Names all of them.
        SchemaError: while iterating: a mapped column is missing, or a file has the wrong format.
    """
    wanted = sorted({dt.date.fromisoformat(day).isoformat() for day in days})
    if source.table.layout is Layout.SNAPSHOT:
        return _read_snapshot(source, wanted)
    if source.table.layout is Layout.DS_FOLDERS:
        return _read_folders(source, wanted, _check_day_folders(source, wanted), log)
    return _read_log(source, wanted, timezone, log)


def _read_snapshot(source: Source, days: list[str]) -> Iterator[tuple[str, pa.Table]]:
    if days:
        with map_rows(source.pieces()) as rows:
            yield from ((day, rows) for day in days)


@contextmanager
def map_rows(
    pieces: Sequence[SourcePiece], log: Callable[[str], None] = lambda line: None, rows_about: int | None = None
) -> Iterator[pa.Table]:
    """Yields all rows of some pieces as one table, mapped from a file on local disk. An estimate of their number gives the progress an ETA."""
    plans = plan_pieces(pieces)
    types = csv_types(plans)
    schema = plans[0].schema
    with ScratchFolder("source") as scratch:
        read, typed = scratch / "read.arrow", scratch / "typed.arrow"
        unlogged = (block for plan in plans for block in plan.blocks())
        blocks = log_rows(unlogged, log, pieces[0].source.name, rows_about, is_about=True)
        write_arrow(read, schema, (batch for block in blocks for batch in types.observe(block).to_batches()))
        _log_left_out(plans, log)
        rows, found = map_arrow(read), types.apply(schema.empty_table()).schema
        if not found.equals(schema):
            blocks = (types.apply(pa.Table.from_batches([batch])) for batch in rows.to_batches())
            write_arrow(typed, found, (batch for block in blocks for batch in block.to_batches()))
            rows = map_arrow(typed)
        yield rows


def log_rows(
    blocks: Iterable[pa.Table], log: Callable[[str], None], name: str, rows: int | None = None, *, is_about: bool = False
) -> Iterator[pa.Table]:
    """Yields the blocks of a table and logs the progress, with an ETA if `rows`, the total or an estimate of it, is known."""
    count_rows: Callable[[int], None] | None = None
    for block in blocks:
        yield block
        if count_rows is None:  # files are planned and copied before the first block, so it says nothing of the rate
            log_line = lambda line: log(f"{name}: {line}")  # noqa: E731
            count_rows = count_progress(log_line, time.monotonic, rows, "rows", done=block.num_rows, is_about=is_about)
        else:
            count_rows(block.num_rows)


def _log_left_out(plans: Sequence[PlannedPiece], log: Callable[[str], None]) -> None:
    rows = sum((plan.rows for plan in plans), Counter[str]())
    if rows["left_out"]:
        where = plans[0].piece.path if len(plans) == 1 else f"{len(plans)} files"
        log(f"{where}: {rows['left_out']:,} of {rows['read']:,} rows are left out, without a user, an item or a time")


def _check_day_folders(source: Source, days: list[str]) -> dict[str, str]:
    """Returns day -> its folder. A day of behavior that may be empty needs no folder."""
    folders = source.days()
    if not folders:
        remedy = f"set {source.key}.layout to snapshot or time_column, or write day folders"
        raise PartitionMissingError(Fault(source.where, "folders ds=YYYY-MM-DD or ds=YYYYMMDD", "none", remedy))
    may_be_empty = isinstance(source.table, BehaviorTable) and source.table.allow_empty_days
    span = f"no such folder ({len(folders)} from {min(folders)} to {max(folders)})"
    faults = []
    for day in days:
        where = f"table {source.name}, day {day}"
        paths = folders.get(day, [])
        if len(paths) > 1:
            faults.append(Fault(where, "one folder", f"both {' and '.join(paths)}", "delete one of them"))
        elif not paths and not may_be_empty:
            expected = f"a folder ds={day} or ds={day.replace('-', '')} in {source.table.uri}"
            faults.append(Fault(where, expected, span, "write that day"))
    if faults:
        raise PartitionMissingError(faults)
    return {day: folders[day][0] for day in days if day in folders}


def _read_folders(
    source: Source, days: list[str], paths: dict[str, str], log: Callable[[str], None]
) -> Iterator[tuple[str, pa.Table]]:
    empty: pa.Table | None = None
    table = source.table
    for day in days:
        if day in paths:
            with map_rows(source.pieces(paths[day]), log) as rows:
                is_typed = table.format not in (FileFormat.CSV, FileFormat.JSON)
                has_types = rows.num_rows or is_typed or not isinstance(table, BehaviorTable)
                if has_types:
                    yield day, rows
            if has_types:
                continue
        empty = _empty_day(source) if empty is None else empty
        yield day, empty


def _empty_day(source: Source) -> pa.Table:
    """Returns a table without rows, in the types of the first day with rows: types of csv and JSON depend on the values."""
    for paths in source.days().values():
        with map_rows(source.pieces(paths[0])) as rows:
            empty = rows.schema.empty_table()
            if rows.num_rows:
                break
    return empty


def _read_log(source: Source, days: list[str], timezone: str, log: Callable[[str], None]) -> Iterator[tuple[str, pa.Table]]:
    if not days:
        return
    table = source.table
    plans = plan_pieces(source.pieces())
    types = csv_types(plans)
    with ScratchFolder("source") as scratch:
        path = scratch / "rows.arrow"
        batches = _spill(path, plans, types, _DayFilter(source, timezone, days))
        _log_left_out(plans, log)
        if isinstance(table, BehaviorTable) and not table.allow_empty_days:
            EmptyDayError.raise_if(empty_day_fault(day) for day in days if day not in batches)
        with pa.memory_map(str(path)) as spilled_file:
            spilled = pa.ipc.open_file(spilled_file)
            for day in days:
                parts = [spilled.get_batch(index) for index in batches.get(day, [])]
                yield day, types.apply(pa.Table.from_batches(parts, plans[0].schema))


class _DayFilter:
    def __init__(self, source: Source, timezone: str, days: list[str]) -> None:
        self.source = source
        self.timezone = timezone
        self.names = days
        self.days = np.array(days, dtype="datetime64[D]").astype(np.int32)

    def dates(self, timestamps: Any) -> np.ndarray[Any, np.dtype[np.int32]]:
        """Returns each timestamp's day, in days since 1970-01-01; _NO_DATE for a missing timestamp."""
        event_time_ms = self.source.read_times(timestamps, self.timezone)
        dates = dates_of(event_time_ms, self.timezone).cast(pa.int32()).fill_null(int(_NO_DATE))
        return np.asarray(dates.to_numpy(zero_copy_only=False), dtype=np.int32)

    def blocks(self, plan: PlannedPiece) -> Iterator[pa.Table]:
        """Yields a piece's rows. Leaves out rows of other days if statistics allow it."""
        kind = plan.schema.field(EVENT_TIME).type
        if EVENT_TIME not in plan.columns or not is_ordered(kind) or self.source.table.time_format is not None:
            return plan.blocks()

        def may_hold(first: Any, last: Any) -> bool:
            low, high = self.dates(pa.array([first, last], kind))
            return bool(((self.days >= low) & (self.days <= high)).any())

        ranges = day_ranges(self.names, kind, unit=self.source.time_unit, timezone=self.timezone)
        return plan.blocks(DayBounds(plan.columns[EVENT_TIME], ranges, may_hold))


def _spill(path: Path, plans: list[PlannedPiece], types: CsvTypes, day_filter: _DayFilter) -> dict[str, list[int]]:
    """Writes the wanted rows in record batches, each with rows of one day. Returns day -> numbers of its batches, in order."""
    batches: dict[str, list[int]] = {}
    count = missing = 0
    with arrow_writer(path, plans[0].schema) as writer:
        for block in (types.observe(block) for plan in plans for block in day_filter.blocks(plan)):
            dates = day_filter.dates(block.column(EVENT_TIME))
            missing += int((dates == _NO_DATE).sum())
            chosen = np.flatnonzero(np.isin(dates, day_filter.days))
            order = chosen[np.argsort(dates[chosen], kind="stable")]
            rows = block.take(pa.array(order))
            found, starts = np.unique(dates[order], return_index=True)
            for date, start, end in zip(found, starts, np.append(starts, len(order))[1:], strict=True):
                for batch in rows.slice(int(start), int(end - start)).combine_chunks().to_batches():
                    writer.write_batch(batch)
                    batches.setdefault(str(np.datetime64(int(date), "D")), []).append(count)
                    count += 1
    if missing:
        where, got = f"table {day_filter.source.name}, column {EVENT_TIME}", f"{missing} rows without a timestamp"
        raise SchemaError(Fault(where, "a timestamp in every row", got, "drop or fix those rows in the source"))
    return batches
