"""Whether the rows of a day have landed in a source table, judged by listings and statistics where possible.

    snapshot      landed once there are data files: it is valid on every day
    ds_folders    landed once the day's folder holds a data file, or the marker file if one is configured; a day of behaviour
                  that may be empty also once a later folder exists
    time_column   landed once the table has rows after the day; or rows of the day and a file written after the day ended

Belongs here: looking. Does not belong here: reading a day (`reader.py`), starting runs (`defs/automation.py`).
"""

from __future__ import annotations

import datetime as dt
import hashlib
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dssm_assets.core.config.pipeline import BehaviorTable, FileFormat, Layout, SourceTable
from dssm_assets.core.sources.canonical_tables import EVENT_TIME
from dssm_assets.core.sources.event_time import to_event_time_ms
from dssm_assets.storage.sources.source_columns import PlannedFile, has_value, plan_files
from dssm_assets.storage.sources.source_files import (
    SourceFile,
    SourceFolder,
    SourceMissingError,
    column_bounds,
    day_folders,
    is_ordered,
    list_files,
    open_folder,
)


@dataclass(frozen=True)
class Landing:
    """Whether a day has landed, and the reason as text."""

    has_landed: bool
    reason: str


@dataclass(frozen=True)
class LogState:
    """The state of a table with a time column at the last look, so that an unchanged table is not read again.

    Attributes:
        fingerprint: of the paths, sizes and modification times of its files.
        newest_ms: its newest timestamp, unix milliseconds; None without rows.
        written_ms: the newest modification time of its files; None if the store does not tell it.
    """

    fingerprint: str
    newest_ms: int | None
    written_ms: int | None

    def to_json(self) -> dict[str, Any]:
        """Returns the state as JSON values."""
        return asdict(self)


class SourceLanding:
    """The state of one source table at one look."""

    def __init__(
        self, table: SourceTable, *, name: str, timezone: str, marker: str | None = None, before: dict[str, Any] | None = None
    ) -> None:
        """Lists the table; `before` is the `state` of an earlier look.

        Raises:
            SourceMissingError: if the file or folder does not exist, or a table without day folders has no data files.
            SchemaError: if a time column is missing or holds no timestamps.
        """
        self._table = table
        self._name = name
        self._zone = ZoneInfo(timezone)
        self._marker = marker
        self._folder = open_folder(table, name)
        self._days = day_folders(self._folder) if table.layout is Layout.DS_FOLDERS else {}
        self.state: LogState | None = None
        if table.layout is Layout.SNAPSHOT:
            list_files(self._folder)
        elif table.layout is Layout.TIME_COLUMN:
            self.state = _log_state(table, self._folder, timezone, before)

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
            marker = posixpath.join(paths[0], self._marker)
            exists = bool(self._folder.fs.exists(marker))
            return Landing(exists, f"{self._name}: {marker} {'exists' if exists else 'does not exist'}")
        try:
            files = list_files(self._folder, paths[0])
        except SourceMissingError:
            return Landing(False, f"{self._name}: the folder of {ds} has no data files yet")
        return Landing(True, f"{self._name} has {len(files)} files for {ds}")

    def _landing_in_log(self, ds: str) -> Landing:
        state = self.state
        if state is None or state.newest_ms is None:
            return Landing(False, f"{self._name} has no rows")
        start, end = (self._start_ms(ds, days) for days in (0, 1))
        newest = dt.datetime.fromtimestamp(state.newest_ms / 1000, self._zone).isoformat(timespec="seconds")
        if state.newest_ms >= end:
            return Landing(True, f"{self._name} has rows up to {newest}, after {ds}")
        if state.newest_ms < start:
            return Landing(False, f"{self._name} has rows up to {newest} only, and none of {ds}")
        if state.written_ms is not None and state.written_ms >= end:
            return Landing(True, f"{self._name} has rows of {ds} and was written after the day ended")
        return Landing(False, f"{self._name} has rows up to {newest}, but was not written after {ds} ended")

    def _start_ms(self, ds: str, days: int) -> int:
        day = dt.date.fromisoformat(ds) + dt.timedelta(days=days)
        return round(dt.datetime.combine(day, dt.time(), tzinfo=self._zone).timestamp() * 1000)


def fingerprint_files(table: SourceTable, name: str) -> str:
    """Returns a digest of the paths, sizes and modification times of a table's files; of day folders, those of the last one.

    Raises:
        SourceMissingError: if the file or folder does not exist, or holds no data files.
    """
    folder = open_folder(table, name)
    days = day_folders(folder) if table.layout is Layout.DS_FOLDERS else {}
    return _fingerprint([(file.path, *_stamp(file)) for file in list_files(folder, days[max(days)][0] if days else None)])


def _fingerprint(stamps: Sequence[tuple[str, int | None, int | None]]) -> str:
    return hashlib.sha256(repr(stamps).encode()).hexdigest()


def _log_state(table: SourceTable, folder: SourceFolder, timezone: str, before: dict[str, Any] | None) -> LogState:
    files = list_files(folder)
    stamps = [(file.path, *_stamp(file)) for file in files]
    fingerprint = _fingerprint(stamps)
    written_ms = max((modified for _, _, modified in stamps if modified is not None), default=None)
    if before is not None and before.get("fingerprint") == fingerprint:
        return LogState(fingerprint, before["newest_ms"], written_ms)
    return LogState(fingerprint, _newest_ms(table, files, timezone), written_ms)


def _stamp(file: SourceFile) -> tuple[int | None, int | None]:
    """Returns the size and the modification time (unix milliseconds) of a file, None where the store does not tell it."""
    info = file.fs.info(file.path)
    modified = info.get("mtime") or info.get("LastModified") or info.get("last_modified") or info.get("created")
    seconds = modified.timestamp() if isinstance(modified, dt.datetime) else modified
    return info.get("size"), None if seconds is None else round(float(seconds) * 1000)


def _newest_ms(table: SourceTable, files: Sequence[SourceFile], timezone: str) -> int | None:
    """Returns the newest timestamp of the files: from parquet statistics if they have it, else by reading the column."""
    unit = table.time_unit if isinstance(table, BehaviorTable) else "auto"
    found = []
    for plan in plan_files(table, files):
        for values in _timestamps(table, plan):
            where = f"table {plan.file.name}, column {EVENT_TIME}"
            times = to_event_time_ms(values, unit=unit, timezone=timezone, where=where, time_format=table.time_format)
            newest = pc.max(times).as_py()
            if newest is not None:
                found.append(int(newest))
    return max(found) if found else None


def _timestamps(table: SourceTable, plan: PlannedFile) -> Iterator[Any]:
    """Yields timestamps of a file, including its newest one."""
    if EVENT_TIME not in plan.columns:
        return
    if plan.clock is not None:
        yield from (block.column(EVENT_TIME) for block in plan.blocks())
        return
    column, kind = plan.columns[EVENT_TIME], plan.schema.field(EVENT_TIME).type
    has_bounds = table.format is FileFormat.PARQUET and table.time_format is None and is_ordered(kind)
    newest = _newest_by_statistics(plan.file, column) if has_bounds else None
    if newest is not None:
        yield pa.array([newest], kind)
        return
    for block in plan.file.blocks([column], json=plan.json):
        times = block.column(column)
        yield times.filter(has_value(times)) if plan.needs_all else times


def _newest_by_statistics(file: SourceFile, column: str) -> Any:
    with file.fs.open(file.path, "rb") as handle:
        metadata = pq.ParquetFile(handle).metadata
    bounds = [column_bounds(metadata.row_group(index), column) for index in range(metadata.num_row_groups)]
    return max((last for _, last in filter(None, bounds)), default=None) if all(bounds) else None
