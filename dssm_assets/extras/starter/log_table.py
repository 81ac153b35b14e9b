"""A behaviour log, read once in blocks into a temporary database: its counts, and everything that is wrong with it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

import duckdb
import pyarrow as pa

from dssm_assets.core.columns import EVENT, ITEM_ID, USER_ID
from dssm_assets.core.config.pipeline import BehaviorTable, Events, Layout
from dssm_assets.core.errors import Fault, SchemaError
from dssm_assets.core.sources.canonical_tables import EVENT_TIME
from dssm_assets.core.sources.convert import to_ids, to_text, to_values
from dssm_assets.core.sources.event_time import dates_of, to_event_time_ms
from dssm_assets.storage.local_files import ScratchFolder
from dssm_assets.storage.sources.source import open_source
from dssm_assets.storage.sources.source_columns import PlannedPiece, plan_pieces

_SAMPLED_ROWS: Final = 200_000
_LEAST_PAIRS: Final = 100
_FOLLOWS_FROM: Final = 0.5
_TIME_MS: Final = "time_ms"


def plan_log(table: BehaviorTable, days: Iterable[str]) -> Iterator[list[PlannedPiece]]:
    """Yields groups of a log's files with a common schema: all files at once, or those of each day folder of some days."""
    source = open_source(table, "behavior_table")
    if table.layout is not Layout.DS_FOLDERS:
        yield plan_pieces(table, source.pieces())
        return
    folders = source.days()
    for day in days:
        if day in folders:
            yield plan_pieces(table, source.pieces(folders[day][0]))


class LogTable:
    """Rows of a log in the table `log` of a database: user_id, item_id and event as text, time_ms, day (since 1970-01-01), others as text.

    A value that cannot be read is null, and its column has a fault.
    """

    def __init__(self, config: BehaviorTable, timezone: str, others: Sequence[str] = ()) -> None:
        """Makes an empty table; `others` are further columns to store."""
        self._config, self._zone, self._others = config, timezone, others
        self._folder = ScratchFolder("log")
        self.db = duckdb.connect(str(self._folder.path / "log.duckdb"))
        named = "".join(f", other_{number} VARCHAR" for number in range(len(others)))
        self.db.execute(
            f"CREATE TABLE log (user_id VARCHAR, item_id VARCHAR, event VARCHAR, time_ms BIGINT, day INTEGER{named})"
        )
        self._faults: dict[str, Fault] = {}

    def observe(self, block: pa.Table) -> None:
        """Adds a block with our column names."""
        config, zone = self._config, self._zone

        def to_times(values: Any, where: str) -> pa.Array:
            return to_event_time_ms(values, unit=config.time_unit, timezone=zone, where=where, time_format=config.time_format)

        times = self._read(block, EVENT_TIME, to_times)
        constant = pa.repeat(config.constant_event, block.num_rows) if config.constant_event else None
        columns = [
            self._read(block, USER_ID, to_ids),
            self._read(block, ITEM_ID, to_ids),
            self._read(block, EVENT, to_text) if constant is None else constant,
            times,
            None if times is None else dates_of(times, zone).cast(pa.int32()),
            *(self._read(block, name, to_text) for name in self._others),
        ]
        for name in config.context_columns:
            self._read(block, name, to_text)
        for name in config.value_columns:
            self._read(block, name, lambda values, where: to_values(values, where, config.decimal_mark))
        arrays = [pa.nulls(block.num_rows) if values is None else values for values in columns]
        self.db.register("block", pa.table(arrays, [f"column_{number}" for number in range(len(arrays))]))
        self.db.execute("INSERT INTO log SELECT * FROM block")

    @property
    def rows(self) -> int:
        return int(self._first("SELECT count(*) FROM log")[0])

    def count_events(self) -> dict[str, int]:
        """Returns event -> rows, the most frequent first."""
        query = "SELECT event, count(*) AS n FROM log WHERE event IS NOT NULL GROUP BY event ORDER BY n DESC, event"
        return dict(self.db.execute(query).fetchall())

    def count_days(self) -> dict[str, int]:
        """Returns day (YYYY-MM-DD) -> rows, ascending."""
        counts = self.db.execute("SELECT day, count(*) FROM log WHERE day IS NOT NULL GROUP BY 1 ORDER BY 1").fetchall()
        return {to_date(day).isoformat(): count for day, count in counts}

    def distinct_ids(self, key: str) -> pa.Array:
        """Returns the distinct ids of a side as text, ascending."""
        query = f"SELECT DISTINCT {key} FROM log WHERE {key} IS NOT NULL ORDER BY 1"
        return self.db.sql(query).to_arrow_table().column(0).combine_chunks()

    def faults(self, events: Events) -> list[Fault]:
        """Returns all faults of the rows."""
        faults = list(self._faults.values())
        rows, counts = self.rows, self.count_events()
        for column, name in ((USER_ID, USER_ID), (ITEM_ID, ITEM_ID), (EVENT, EVENT), (_TIME_MS, EVENT_TIME)):
            (missing,) = self._first(f"SELECT count(*) - count({column}) FROM log")
            if missing and _where(name) not in self._faults:
                remedy = "drop or fix those rows in the source"
                faults.append(Fault(_where(name), "a value in every row", f"{missing:,} missing in {rows:,} rows", remedy))
        if unknown := sorted(set(counts) - set(events.funnel)):
            got = ", ".join(f"{name!r} ({counts[name]:,} rows)" for name in unknown[:20])
            remedy = "add them to events.funnel, or drop those rows in the source"
            faults.append(Fault(_where(EVENT), f"events of the funnel {events.funnel}", got, remedy))
        expected = f"an event of the log: {', '.join(sorted(counts)) or 'none'}"
        return faults + [
            Fault(f"key events.funnel, {name}", expected, "no row", "correct its spelling, or remove it")
            for name in events.funnel
            if rows and name not in counts
        ]

    def later_frac(self, key: str, ids: Any, times_ms: Any) -> float:
        """Returns the fraction of ids with a time and an event whose time is on a later day than the first event.

        A time of registration lies before the first event. A column of last visits tells on every earlier day what happened later.
        """
        days = dates_of(times_ms, self._zone).cast(pa.int32())
        self.db.register("entities", pa.table({"id": ids.cast(pa.string()), "day": days}))
        first = f"SELECT {key} AS id, min(day) AS day FROM log GROUP BY {key}"
        (later,) = self._first(f"SELECT avg((entities.day > first.day)::INT) FROM entities JOIN ({first}) AS first USING (id)")
        return float(later or 0.0)

    def columns_of_items(self) -> frozenset[str]:
        """Returns the other columns that follow from the item: as a context of requests they would tell a model in training what to find.

        With s, how often two successive rows of an item share the value, and c, how often any two rows do, (s - c) / (1 - c) is .5
        or more (Cohen's kappa), over 100 such pairs of the first rows at least.
        """
        following = set()
        for number, name in enumerate(self._others):
            first = f"SELECT rowid AS number, item_id, other_{number} AS value FROM log WHERE rowid < {_SAMPLED_ROWS}"
            same = f"SELECT value = lag(value) OVER (PARTITION BY item_id ORDER BY number) AS same FROM ({first})"
            pairs, shared = self._first(f"SELECT count(same), avg(same::INT) FROM ({same})")
            counts = f"SELECT count(*) AS n FROM ({first}) WHERE value IS NOT NULL GROUP BY value"
            values, chance = self._first(f"SELECT count(*), sum(n * n) / sum(n) ** 2 FROM ({counts})")
            if pairs >= _LEAST_PAIRS and values > 1 and (shared - chance) / (1 - chance) >= _FOLLOWS_FROM:
                following.add(name)
        return frozenset(following)

    def _first(self, query: str) -> tuple[Any, ...]:
        row: tuple[Any, ...] = self.db.execute(query).fetchall()[0]
        return row

    def _read(self, block: pa.Table, name: str, convert: Callable[[Any, str], pa.Array]) -> pa.Array | None:
        """Returns a converted column; None if it is faulty, and the fault is recorded once per column."""
        if name not in block.column_names:
            return None
        try:
            return convert(block.column(name), _where(name))
        except SchemaError as error:
            for fault in error.faults:
                self._faults.setdefault(fault.where, fault)
            return None


def to_date(day: int) -> dt.date:
    """Returns the date of a day since 1970-01-01."""
    return dt.date(1970, 1, 1) + dt.timedelta(int(day))


def to_number(date: dt.date) -> int:
    """Returns the days from 1970-01-01 to a date."""
    return (date - dt.date(1970, 1, 1)).days


def _where(column: str) -> str:
    return f"table behavior_table, column {column}"
