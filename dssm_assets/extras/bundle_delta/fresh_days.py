"""Reads the days after a bundle's day, up to the last day with events: first stored days, then days straight from the sources.

A day that has not ended has no partition, because its statistics would be incomplete. For such a day the steps of the daily
tables write to a temporary store, which reads all other days from the regular store.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from zoneinfo import ZoneInfo

from dssm_assets.core.config.pipeline import Layout, SourceTable
from dssm_assets.core.schema import TableSpec
from dssm_assets.core.sources.canonical_tables import ITEM_TABLE, USER_TABLE
from dssm_assets.steps import features_raw, sample, source
from dssm_assets.steps.workspace import StepResult, Workspace, day_before, days_between
from dssm_assets.storage.config_file import LoadedConfig
from dssm_assets.storage.manifest import Manifest
from dssm_assets.storage.overlay import OverlayStore
from dssm_assets.storage.sources.landing import find_newest_ms
from dssm_assets.storage.sources.source_files import open_source

_HISTORY = "user_history_fg"


@dataclass(frozen=True)
class FreshDays:
    """The tables of the days after a bundle's day.

    Attributes:
        workspace: reads these tables and the regular tables; encodes features by the given definitions.
        tables: "user" or "item" -> the partitions with the newest rows. Usually there is one. If the configuration has no such
            source, there is one per day, with the ids of the day's log.
        history: user_history_fg of the days, ascending.
        end: the day after the last day.
    """

    workspace: Workspace
    tables: Mapping[str, list[Manifest]]
    history: list[Manifest]
    end: str


@contextmanager
def open_fresh_days(workspace: Workspace, loaded: LoadedConfig, after: str, today: str) -> Iterator[FreshDays]:
    """Yields the tables of the days after `after`, up to the last day of the log or the store, at most today.

    The tables are removed when the block ends.

    Args:
        loaded: the configuration, with the feature definitions to encode by.
        today: the current day, which has not ended, in the time zone of the calendar. At least the day after `after` is read.

    Raises:
        InputError: a source cannot be read, or its rows are refused by the rules of the daily tables.
    """
    first = last = day_before(after, -1)
    if first < today:
        newest = _find_newest_day(loaded.config.tables.behavior, "behavior_table", loaded.config.calendar.timezone, today)
        stored = [ds for ds in workspace.tables.partitions.days(_HISTORY) if ds <= today]
        last = max([first, newest, *stored])
    days = days_between(first, last)
    with workspace.tables.partitions.staging_in_store() as folder:
        behavior = loaded.config.tables.behavior.model_copy(update={"allow_empty_days": True})  # a day may have no events yet
        tables_of_day = loaded.config.tables.model_copy(update={"behavior": behavior})
        config = loaded.config.model_copy(update={"tables": tables_of_day})
        store = OverlayStore(workspace.tables.partitions, "fresh", folder)
        fresh = workspace.over(replace(loaded, config=config), store)
        unread = [ds for ds in days if workspace.find(_HISTORY, ds) is None]
        tables = {
            "user": _read_entities(fresh, config.tables.user, USER_TABLE, source.user_table, days, unread, today),
            "item": _read_entities(fresh, config.tables.item, ITEM_TABLE, source.item_table, days, unread, today),
        }
        for step in (source.behavior_table, features_raw.behavior, features_raw.user_history, sample.user_history_fg):
            list(step(fresh, unread))
        yield FreshDays(fresh, tables, fresh.need_all(_HISTORY, days), day_before(last, -1))


def _read_entities(
    fresh: Workspace,
    table: SourceTable | None,
    spec: TableSpec,
    step: Callable[[Workspace, Sequence[str]], Iterator[StepResult]],
    days: Sequence[str],
    unread: Sequence[str],
    today: str,
) -> list[Manifest]:
    """Returns the partitions with the newest rows. Unread days get these partitions, too."""
    if table is None:
        list(step(fresh, unread))
        return fresh.need_all(spec.name, days)
    targets = sorted({*unread, days[-1]})
    if table.layout is not Layout.DS_FOLDERS:
        list(step(fresh, targets))
        return [fresh.need(spec.name, days[-1])]
    landed = sorted(ds for ds in open_source(table, spec.name).days() if days[0] <= ds <= max(today, days[-1]))
    list(step(fresh, landed[-1:]))
    newest = fresh.need(spec.name, landed[-1] if landed else day_before(days[0]))
    rows = fresh.tables.read(newest)
    for ds in targets:
        if ds != newest.ds:
            fresh.tables.write(spec, ds, rows)
    return [newest]


def find_fingerprint(table: SourceTable, name: str) -> str:
    """Returns a text that changes when a table changes.

    For day folders it covers only the last folder. For a log without versions it also has the newest time.

    Raises:
        SourceMissingError: the file or folder does not exist, or has no data files.
    """
    source = open_source(table, name)
    days = source.days() if table.layout is Layout.DS_FOLDERS else {}
    fingerprint = source.state(days[max(days)][0] if days else None).fingerprint
    return str(find_newest_ms(source, "UTC")) if not fingerprint and table.layout is Layout.TIME_COLUMN else fingerprint


def _find_newest_day(table: SourceTable, name: str, timezone: str, today: str) -> str:
    """Returns the last day of a log, at most today. "" if the log has no rows. Day folders are judged by their names.

    Raises:
        SourceMissingError: the file or folder does not exist, or has no data files.
    """
    source = open_source(table, name)
    if table.layout is Layout.DS_FOLDERS:
        return max((ds for ds in source.days() if ds <= today), default="")
    newest_ms = find_newest_ms(source, timezone)
    if newest_ms is None:
        return ""
    return min(today, dt.datetime.fromtimestamp(newest_ms / 1000, ZoneInfo(timezone)).date().isoformat())
