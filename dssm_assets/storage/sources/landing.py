"""Whether the rows of a day have landed in a source table, judged by listings and statistics where possible.

    snapshot      landed once there are data files: it is valid on every day
    ds_folders    landed once the day's folder holds a data file, or the marker file if one is configured; a day of behavior
                  that may be empty also once a later folder exists
    time_column   landed once the table has rows after the day; or rows of the day and a file written after the day ended

Belongs here: looking. Does not belong here: reading a day (`reader.py`), starting runs (`defs/automation.py`).
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core.config.pipeline import BehaviorTable, Layout, SourceTable
from dssm_assets.core.sources.canonical_tables import EVENT_TIME
from dssm_assets.core.sources.event_time import dates_of, is_ordered
from dssm_assets.storage.sources.source import Source, find_day, open_source
from dssm_assets.storage.sources.source_columns import DS, PlannedPiece, has_value, plan_pieces
from dssm_assets.storage.sources.source_files import SourceMissingError


@dataclass(frozen=True)
class Landing:
    """Whether a day has landed, and the reason as text."""

    has_landed: bool
    reason: str


@dataclass(frozen=True)
class LogState:
    """The state of a table with a time column or with versions at the last look, so that an unchanged table is not read again.

    Attributes:
        fingerprint: of the paths, sizes and modification times of its files, or its version.
        newest_ms: its newest timestamp, unix milliseconds; None without rows, or where its days have folders.
        written_ms: the newest modification time of its files; None if the store does not tell it.
    """

    fingerprint: str
    newest_ms: int | None
    written_ms: int | None


class SourceLanding:
    """The state of one source table at one look.

    Attributes:
        has_versions: of the table.
        state: for the next look; None if that needs none.
        late_from: the first day of which rows were added or removed since the look before, by the table's versions; None if unknown.
    """

    def __init__(
        self, table: SourceTable, *, name: str, timezone: str, marker: str | None = None, before: dict[str, Any] | None = None
    ) -> None:
        """Lists the table; `before` is the `state` of an earlier look.

        Raises:
            SourceMissingError: if the file or folder does not exist, or a table without day folders has no data files.
            SchemaError: if a time column is missing or holds no timestamps.
        """
        self.has_versions = table.has_versions
        self._table = table
        self._name = name
        self._zone = ZoneInfo(timezone)
        self._marker = marker
        self._source = open_source(table, name)
        self._days = self._source.days() if table.layout is Layout.DS_FOLDERS else {}
        self.state: LogState | None = None
        self.late_from: str | None = None
        if table.layout is Layout.SNAPSHOT:
            self._source.pieces()
            return
        if table.layout is Layout.TIME_COLUMN or self.has_versions:
            self.state = _log_state(self._source, timezone, before)
        self.late_from = None if before is None else self._find_change(before["fingerprint"], timezone)

    def landing_of_day(self, ds: str) -> Landing:
        """Returns whether the rows of a day have landed."""
        if self._table.layout is Layout.SNAPSHOT:
            return Landing(True, f"{self._name} is one snapshot, valid on every day")
        return self._landing_of_folder(ds) if self._table.layout is Layout.DS_FOLDERS else self._landing_in_log(ds)

    def _landing_of_folder(self, ds: str) -> Landing:
        paths = self._days.get(ds, [])
        if not paths:
            later = next((day for day in self._days if day > ds), None)
            if later is not None and isinstance(self._table, BehaviorTable) and self._table.allow_empty_days:
                return Landing(True, f"{self._name} has no folder for {ds}, which may be empty, and one for {later}")
            newest = max(self._days, default="none")
            return Landing(False, f"{self._name} has no folder ds={ds} in {self._table.uri} (newest: {newest})")
        if self._marker is not None:
            exists = self._source.has_marker(paths[0], self._marker)
            return Landing(exists, f"{self._name}: {paths[0]}/{self._marker} {'exists' if exists else 'does not exist'}")
        try:
            files = self._source.pieces(paths[0])
        except SourceMissingError:
            return Landing(False, f"{self._name}: the folder of {ds} has no data files yet")
        return Landing(True, f"{self._name} has {len(files)} files for {ds}")

    def _landing_in_log(self, ds: str) -> Landing:
        state = self.state
        if state is None or state.newest_ms is None:
            return Landing(False, f"{self._name} has no rows of times up to now")
        start, end = (self._start_ms(ds, days) for days in (0, 1))
        newest = dt.datetime.fromtimestamp(state.newest_ms / 1000, self._zone).isoformat(timespec="seconds")
        if state.newest_ms >= end:
            return Landing(True, f"{self._name} has rows up to {newest}, after {ds}")
        if state.newest_ms < start:
            return Landing(False, f"{self._name} has rows up to {newest} only, and none of {ds}")
        if state.written_ms is not None and state.written_ms >= end:
            return Landing(True, f"{self._name} has rows of {ds} and was written after the day ended")
        return Landing(False, f"{self._name} has rows up to {newest}, but was not written after {ds} ended")

    def _find_change(self, before: str, timezone: str) -> str | None:
        """Returns the first day with a change since a fingerprint of the table; of one in another format there is no telling."""
        is_ours = self.has_versions and before.startswith(f"{self._table.format} ")
        if self.state is None or not is_ours or self.state.fingerprint == before:
            return None
        if self._table.layout is Layout.DS_FOLDERS:
            first = self._source.first_change(before, DS)
            return None if first is None else find_day(str(first))
        column = self._table.columns.get(EVENT_TIME, EVENT_TIME)
        kind = self._source.pieces()[0].schema().field(column).type
        first = self._source.first_change(before, column) if _has_order(self._table, kind) else None
        return None if first is None else str(dates_of(self._source.read_times(pa.array([first], kind), timezone), timezone)[0])

    def _start_ms(self, ds: str, days: int) -> int:
        day = dt.date.fromisoformat(ds) + dt.timedelta(days=days)
        return round(dt.datetime.combine(day, dt.time(), tzinfo=self._zone).timestamp() * 1000)


def fingerprint(table: SourceTable, name: str) -> str:
    """Returns what changes with a table; of day folders, with the last one; of a log that tells nothing, with its newest time.

    Raises:
        SourceMissingError: if the file or folder does not exist, or holds no data files.
    """
    source = open_source(table, name)
    days = source.days() if table.layout is Layout.DS_FOLDERS else {}
    found = source.stamp(days[max(days)][0] if days else None).fingerprint
    return str(_newest_ms(source, "UTC")) if not found and table.layout is Layout.TIME_COLUMN else found


def find_newest_day(table: SourceTable, name: str, timezone: str, today: str) -> str:
    """Returns the last day of a log up to today, of folders by their names; "" if it has no rows.

    Raises:
        SourceMissingError: if the file or folder does not exist, or holds no data files.
    """
    source = open_source(table, name)
    if table.layout is Layout.DS_FOLDERS:
        return max((ds for ds in source.days() if ds <= today), default="")
    newest_ms = _newest_ms(source, timezone)
    if newest_ms is None:
        return ""
    return min(today, dt.datetime.fromtimestamp(newest_ms / 1000, ZoneInfo(timezone)).date().isoformat())


def _log_state(source: Source, timezone: str, before: dict[str, Any] | None) -> LogState:
    stamp = source.stamp()
    if before is not None and stamp.fingerprint and before.get("fingerprint") == stamp.fingerprint:
        return LogState(stamp.fingerprint, before["newest_ms"], stamp.written_ms)
    newest_ms = _newest_ms(source, timezone) if source.table.layout is Layout.TIME_COLUMN else None
    return LogState(stamp.fingerprint, newest_ms, stamp.written_ms)


def _newest_ms(source: Source, timezone: str) -> int | None:
    """Returns the newest timestamp of the table that is not ahead: from statistics if they have it, else by reading the column.

    Times from tomorrow on are none of events, such as 9999-12-31 where a time is missing: all days would have landed.
    """
    table, ahead_ms, found = source.table, (time.time() + 86_400) * 1000, []
    for plan in plan_pieces(table, source.pieces()):
        for has_statistics in (True, False):
            parts = (source.read_times(values, timezone) for values in _timestamps(table, plan, has_statistics))
            past = [pc.max(times.filter(pc.less(times, ahead_ms))).as_py() for times in parts]
            if known := [newest for newest in past if newest is not None]:
                found.append(max(known))
                break
    return max(found, default=None)


def _timestamps(table: SourceTable, plan: PlannedPiece, has_statistics: bool) -> Iterator[Any]:
    """Yields timestamps of a piece, including its newest one: that alone where statistics have it, and may be used."""
    if EVENT_TIME not in plan.columns:
        return
    if plan.clock is not None:
        yield from (block.column(EVENT_TIME) for block in plan.blocks())
        return
    column, kind = plan.columns[EVENT_TIME], plan.schema.field(EVENT_TIME).type
    newest = plan.piece.newest(column) if has_statistics and _has_order(table, kind) else None
    if newest is not None:
        yield pa.array([newest], kind)
        return
    for block in plan.piece.blocks([column]):
        times = block.column(column)
        yield times.filter(has_value(times)) if plan.needs_all else times


def _has_order(table: SourceTable, kind: pa.DataType) -> bool:
    return table.time_format is None and is_ordered(kind)
