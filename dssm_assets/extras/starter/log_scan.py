"""One pass over a behaviour log in blocks: its counts and everything that is wrong with it.

Belongs here: counts and faults over blocks. Does not belong here: reading them (`storage/sources`) and converting a day to its
canonical form (`normalise.py`), which refuses the same faults day by day.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core.columns import EVENT, ITEM_ID, USER_ID
from dssm_assets.core.config.pipeline import BehaviorTable, Calendar, Events
from dssm_assets.core.errors import Fault, SchemaError
from dssm_assets.core.sources.canonical_tables import EVENT_TIME
from dssm_assets.core.sources.convert import to_ids, to_text, to_values
from dssm_assets.core.sources.event_time import days_of, to_event_time_ms

TABLE = "behavior_table"
SHOWN = 5


class LogScan:
    """Collects distinct ids, counts by event and day, and one fault per column, from blocks with our column names."""

    def __init__(self, config: BehaviorTable, calendar: Calendar) -> None:
        self._config = config
        self._zone = calendar.timezone
        self.rows = 0
        self.events: Counter[str] = Counter()
        self.days: Counter[str] = Counter()
        self.ids: dict[str, pa.Array] = {}
        self._missing: Counter[str] = Counter()
        self._faults: dict[str, Fault] = {}

    def observe(self, block: pa.Table) -> None:
        """Adds a block."""
        config = self._config
        self.rows += block.num_rows
        for name in (USER_ID, ITEM_ID):
            ids = self._read(block, name, to_ids)
            if ids is not None:
                self._missing[name] += ids.null_count
                self._add_ids(name, ids)
        if config.constant_event is None:
            self._count(self.events, EVENT, self._read(block, EVENT, to_text))
        else:
            self.events[config.constant_event] += block.num_rows
        timestamps = self._read(
            block,
            EVENT_TIME,
            lambda values, where: to_event_time_ms(
                values, unit=config.time_unit, timezone=self._zone, where=where, time_format=config.time_format
            ),
        )
        if timestamps is not None:
            self._count(self.days, EVENT_TIME, days_of(timestamps, self._zone))
        for name in config.value_columns:
            self._read(block, name, partial(to_values, decimal_mark=config.decimal_mark))
        for name in config.context_columns:
            self._read(block, name, to_text)

    def faults(self, events: Events) -> list[Fault]:
        """Returns all faults of the observed rows."""
        found = list(self._faults.values())
        for name, count in self._missing.items():
            if count:
                remedy = "drop or fix those rows in the source"
                found.append(Fault(_where(name), "a value in every row", f"{count:,} missing in {self.rows:,} rows", remedy))
        unknown = sorted(set(self.events) - set(events.funnel))
        if unknown:
            got = ", ".join(f"{name!r} ({self.events[name]:,} rows)" for name in unknown[: 4 * SHOWN])
            remedy = "add them to events.funnel, or drop those rows in the source"
            found.append(Fault(_where(EVENT), f"events of the funnel {events.funnel}", got, remedy))
        for name in events.funnel:
            if self.rows and name not in self.events:
                found_events = ", ".join(sorted(self.events)) or "none"
                found.append(
                    Fault(
                        f"key events.funnel, {name}",
                        f"an event of the log: {found_events}",
                        "no row",
                        "correct its spelling, or remove it",
                    )
                )
        return found

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

    def _count(self, counts: Counter[str], name: str, values: pa.Array | None) -> None:
        if values is None:
            return
        self._missing[name] += values.null_count
        for entry in values.drop_null().value_counts().to_pylist():
            counts[entry["values"]] += entry["counts"]

    def _add_ids(self, name: str, ids: pa.Array) -> None:
        fresh = pc.unique(ids).drop_null()
        known = self.ids.get(name)
        if known is not None and known.type == fresh.type:
            fresh = pc.unique(pa.concat_arrays([known, fresh]))
        self.ids[name] = fresh


def _where(column: str) -> str:
    return f"table {TABLE}, column {column}"
