"""A behaviour log, read once in blocks into a temporary database: its counts, and everything that is wrong with it.

Belongs here: faults and counts of rows. Does not belong here: reading blocks (`storage/sources`), how users and items behave
(`log_habits.py`), converting a day to its canonical form (`normalise.py`), which refuses the same faults day by day.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import duckdb
import pyarrow as pa

from dssm_assets.core.columns import EVENT, ITEM_ID, USER_ID
from dssm_assets.core.config.pipeline import BehaviorTable, Events
from dssm_assets.core.errors import Fault, SchemaError
from dssm_assets.core.sources.canonical_tables import EVENT_TIME
from dssm_assets.core.sources.convert import to_ids, to_text, to_values
from dssm_assets.core.sources.event_time import dates_of, to_event_time_ms
from dssm_assets.storage.local_files import ScratchFolder

_SHOWN_EVENTS: Final = 20
_SAMPLED_ROWS: Final = 200_000
_LEAST_PAIRS: Final = 100
_FOLLOWS_FROM: Final = 0.5
_TIME_MS: Final = "time_ms"
_DAY: Final = "day"


class LogTable:
    """Rows of a log: user_id, item_id and event as text, time_ms, day (since 1970-01-01) and some other columns as text.

    A value that cannot be read is null, and its column has a fault.
    """

    def __init__(self, config: BehaviorTable, timezone: str, others: Sequence[str] = ()) -> None:
        """Makes an empty table.

        Args:
            config: of the log.
            timezone: zone of days.
            others: further columns to store.
        """
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
        config = self._config
        times = self._read(
            block, EVENT_TIME, partial(_to_times, unit=config.time_unit, timezone=self._zone, time_format=config.time_format)
        )
        columns = {
            USER_ID: self._read(block, USER_ID, to_ids),
            ITEM_ID: self._read(block, ITEM_ID, to_ids),
            EVENT: pa.repeat(config.constant_event, block.num_rows)
            if config.constant_event
            else self._read(block, EVENT, to_text),
            _TIME_MS: times,
            _DAY: None if times is None else dates_of(times, self._zone).cast(pa.int32()),
        }
        columns |= {name: self._read(block, name, to_text) for name in (*self._others, *config.context_columns)}
        for name in config.value_columns:
            self._read(block, name, partial(to_values, decimal_mark=config.decimal_mark))
        stored = [columns[name] for name in (USER_ID, ITEM_ID, EVENT, _TIME_MS, _DAY, *self._others)]
        arrays = [pa.nulls(block.num_rows) if values is None else values for values in stored]
        self.db.register("block", pa.table(arrays, [f"column_{number}" for number in range(len(arrays))]))
        self.db.execute("INSERT INTO log SELECT * FROM block")

    @property
    def rows(self) -> int:
        """Returns the number of rows."""
        return int(self.db.execute("SELECT count(*) FROM log").fetchall()[0][0])

    def count_events(self) -> Counter[str]:
        """Returns event -> rows."""
        return Counter(
            dict(self.db.execute("SELECT event, count(*) FROM log WHERE event IS NOT NULL GROUP BY 1 ORDER BY 1").fetchall())
        )

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
        found = list(self._faults.values())
        rows, counts = self.rows, self.count_events()
        for column, name in ((USER_ID, USER_ID), (ITEM_ID, ITEM_ID), (EVENT, EVENT), (_TIME_MS, EVENT_TIME)):
            (missing,) = self.db.execute(f"SELECT count(*) - count({column}) FROM log").fetchall()[0]
            if missing and _where(name) not in self._faults:
                remedy = "drop or fix those rows in the source"
                found.append(Fault(_where(name), "a value in every row", f"{missing:,} missing in {rows:,} rows", remedy))
        if unknown := sorted(set(counts) - set(events.funnel)):
            got = ", ".join(f"{name!r} ({counts[name]:,} rows)" for name in unknown[:_SHOWN_EVENTS])
            remedy = "add them to events.funnel, or drop those rows in the source"
            found.append(Fault(_where(EVENT), f"events of the funnel {events.funnel}", got, remedy))
        for name in events.funnel:
            if rows and name not in counts:
                expected = f"an event of the log: {', '.join(sorted(counts)) or 'none'}"
                found.append(Fault(f"key events.funnel, {name}", expected, "no row", "correct its spelling, or remove it"))
        return found

    def later_frac(self, key: str, ids: Any, times_ms: Any) -> float:
        """Returns the fraction of ids with a time and an event whose time is on a later day than the first event.

        A time of registration lies before the first event. A time of the last visit lies after it: a table with such a column
        knows on every earlier day what happened later. By hand: ids a and b have their first events on day 3; times of day 1 and
        of day 5 give .5.

        Args:
            key: user_id or item_id.
            ids: of the user or item table.
            times_ms: their times.
        """
        days = dates_of(times_ms, self._zone).cast(pa.int32())
        self.db.register("entities", pa.table({"id": ids.cast(pa.string()), "day": days}))
        first = f"SELECT {key} AS id, min(day) AS day FROM log GROUP BY {key}"
        query = f"SELECT avg((entities.day > first.day)::INT) FROM entities JOIN ({first}) AS first USING (id)"
        return float(self.db.execute(query).fetchall()[0][0] or 0.0)

    def columns_of_items(self) -> frozenset[str]:
        """Returns the other columns that follow from the item: two rows of one item share the value far more often than any two rows do.

        The category of an item is known only with the item: as a context of requests it would tell a model in training what to find.
        With s, how often two successive rows of an item share the value, and c, how often any two rows do, (s - c) / (1 - c) is .5
        or more (Cohen's kappa), over 100 such pairs of the first rows at least. By hand: items a and b in turn, a always "x" and b
        always "y": s is 1, c is .5, which gives 1.
        """
        return frozenset(
            name for number, name in enumerate(self._others) if self._agreement(f"other_{number}") >= _FOLLOWS_FROM
        )

    def _agreement(self, column: str) -> float:
        first = f"SELECT rowid AS number, item_id, {column} AS value FROM log WHERE rowid < {_SAMPLED_ROWS}"
        same = f"SELECT value = lag(value) OVER (PARTITION BY item_id ORDER BY number) AS same FROM ({first})"
        pairs, shared = self.db.execute(f"SELECT count(same), avg(same::INT) FROM ({same})").fetchall()[0]
        counts = f"SELECT count(*) AS n FROM ({first}) WHERE value IS NOT NULL GROUP BY value"
        values, chance = self.db.execute(f"SELECT count(*), sum(n * n) / sum(n) ** 2 FROM ({counts})").fetchall()[0]
        return (shared - chance) / (1 - chance) if pairs >= _LEAST_PAIRS and values > 1 else 0.0

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


def _to_times(values: Any, where: str, **settings: Any) -> pa.Array:
    return to_event_time_ms(values, where=where, **settings)


def _where(column: str) -> str:
    return f"table behavior_table, column {column}"
