"""Decides whether a day's rows have landed in a source table, from listings and statistics where possible.

    snapshot      landed once there are data files, because a snapshot is valid on every day
    ds_folders    landed once the day's folder has a data file, or the marker file if one is configured; if days of behavior
                  may be empty, also once a later folder exists
    time_column   landed once the table has rows after the day, or has rows of the day and a file written after the day ended

Does not belong here: reading a day (`reader.py`), starting runs (`defs/automation.py`).
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core.config.pipeline import BehaviorTable, Layout, SourceTable
from dssm_assets.core.sources.canonical_tables import EVENT_TIME
from dssm_assets.core.sources.event_time import dates_of, is_ordered
from dssm_assets.storage.sources.source import Source, SourceMissingError, SourceState, find_day
from dssm_assets.storage.sources.source_columns import DS, PlannedPiece, has_value, plan_pieces
from dssm_assets.storage.sources.source_files import open_source


@dataclass(frozen=True)
class Landing:
    """Says whether a day has landed, and why."""

    has_landed: bool
    reason: str


class SourceLanding:
    """The state of one source table at one moment (a look).

    Attributes:
        has_versions: whether the table has versions.
        state: pass this to the next look, None if the next look needs no state.
        late_from: the first day with rows that changed since the look before, by the table's versions. None if unknown.
    """

    def __init__(
        self, table: SourceTable, *, name: str, timezone: str, marker: str | None = None, before: dict[str, Any] | None = None
    ) -> None:
        """Lists the table. `before`: the `state` of an earlier look.

        Raises:
            SourceMissingError: the file or folder does not exist, or a table without day folders has no data files.
            SchemaError: a time column is missing or has no timestamps.
        """
        self.has_versions = table.has_versions
        self._table = table
        self._name = name
        self._zone = ZoneInfo(timezone)
        self._marker = marker
        self._source = open_source(table, name)
        self._days = self._source.days() if table.layout is Layout.DS_FOLDERS else {}
        self.state: SourceState | None = None
        self.late_from: str | None = None
        if table.layout is Layout.SNAPSHOT:
            self._source.pieces()
            return
        if table.layout is Layout.TIME_COLUMN or self.has_versions:
            self.state = _log_state(self._source, timezone, before)
        self.late_from = None if before is None else self._find_change(before["fingerprint"], timezone)

    def landing_of_day(self, ds: str) -> Landing:
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
        """Returns the first day with a change since the fingerprint `before`, None if unknown."""
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


def _log_state(source: Source, timezone: str, before: dict[str, Any] | None) -> SourceState:
    state = source.state()
    if before is not None and state.fingerprint and before.get("fingerprint") == state.fingerprint:
        return replace(state, newest_ms=before["newest_ms"])
    return replace(state, newest_ms=find_newest_ms(source, timezone)) if source.table.layout is Layout.TIME_COLUMN else state


def find_newest_ms(source: Source, timezone: str) -> int | None:
    """Returns the newest timestamp before tomorrow. Without statistics, reads the column.

    Later times, such as 9999-12-31 for a missing time, are ignored. Otherwise all days would count as landed.
    """
    table, ahead_ms, found = source.table, (time.time() + 86_400) * 1000, []
    for plan in plan_pieces(source.pieces()):
        for has_statistics in (True, False):
            parts = (source.read_times(values, timezone) for values in _timestamps(table, plan, has_statistics))
            past = [pc.max(times.filter(pc.less(times, ahead_ms))).as_py() for times in parts]
            if known := [newest for newest in past if newest is not None]:
                found.append(max(known))
                break
    return max(found, default=None)


def _timestamps(table: SourceTable, plan: PlannedPiece, has_statistics: bool) -> Iterator[Any]:
    """Yields the timestamps of a piece, or only the newest if statistics have it."""
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
