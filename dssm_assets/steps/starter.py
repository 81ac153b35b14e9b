"""Writes a first configuration for three tables of a user: surveys them, guesses roles, derives and writes the files.

Does not belong here: the guesses (`core/sources/column_roles.py`, `core/sources/starter_config.py`).
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core.columns import EVENT, ITEM_ID, USER_ID
from dssm_assets.core.config.pipeline import BehaviorTable, Calendar, Layout
from dssm_assets.core.errors import ConfigError, Fault, SchemaError
from dssm_assets.core.sources.canonical_tables import EVENT_TIME
from dssm_assets.core.sources.column_roles import Roles, find_roles
from dssm_assets.core.sources.convert import to_ids, to_text
from dssm_assets.core.sources.event_time import dates_of, to_event_time_ms
from dssm_assets.core.sources.log_habits import HabitScan
from dssm_assets.core.sources.log_scan import LogScan
from dssm_assets.core.sources.starter_config import (
    CONSTANT_EVENT,
    FG_FILE,
    LogFacts,
    StarterInputs,
    StarterTable,
    config_yaml,
    fg_json,
    is_positive,
    starter_fg,
)
from dssm_assets.storage.sources.source_columns import plan_files
from dssm_assets.storage.sources.source_files import day_folders, list_files, open_folder
from dssm_assets.storage.sources.table_survey import TableSurvey, survey_table

CONFIG_FILE = "config.yaml"


@dataclass(frozen=True)
class StarterRequest:
    """The tables of a user, and what cannot be guessed from them."""

    user: str
    item: str
    behavior: str
    folder: Path
    name: str = "dssm"
    timezone: str = "UTC"
    columns: Mapping[str, str] | None = None


def write_starter(request: StarterRequest, *, is_replacing: bool = False) -> Path:
    """Writes config.yaml and fg.json for three tables; returns the path of the configuration.

    Raises:
        SourceMissingError, SchemaError: if a table cannot be read.
        ConfigError: if a column's role cannot be guessed, the log has fewer than two days, or a file exists already.
    """
    existing = [request.folder / name for name in (CONFIG_FILE, FG_FILE) if (request.folder / name).exists()]
    if existing and not is_replacing:
        raise ConfigError(Fault(str(existing[0]), "no such file", "an existing one", "choose another --out, or pass --force"))
    uris = {"user_table": request.user, "item_table": request.item, "behavior_table": request.behavior}
    surveys = {name: survey_table(_absolute(uri), name, is_log=name == "behavior_table") for name, uri in uris.items()}
    users, items, log = surveys.values()
    roles = find_roles(users.columns, items.columns, log.columns, request.columns or {})
    facts = _facts(log, roles, request.timezone)
    sources = [StarterTable(one.table.uri, one.table.format, one.table.layout, one.columns) for one in (users, items)]
    layout = Layout.DS_FOLDERS if log.days else Layout.TIME_COLUMN
    behavior = StarterTable(log.table.uri, log.table.format, layout, log.columns)
    found = StarterInputs(request.name, request.timezone, sources[0], sources[1], behavior, roles, facts)
    request.folder.mkdir(parents=True, exist_ok=True)
    (request.folder / FG_FILE).write_text(fg_json(starter_fg(found)), encoding="utf-8")
    (request.folder / CONFIG_FILE).write_text(config_yaml(found), encoding="utf-8")
    return request.folder / CONFIG_FILE


def _absolute(uri: str) -> str:
    """Returns a local path as an absolute path, and a URL unchanged."""
    return uri if len(urlsplit(uri).scheme) > 1 else str(Path(uri).absolute())


def _facts(log: TableSurvey, roles: Roles, timezone: str) -> LogFacts:
    """Returns events, days and habits of the log, which is read again with the roles of its columns."""
    columns = {"user_id": roles.user_id, "item_id": roles.item_id, EVENT_TIME: roles.event_time}
    constant = CONSTANT_EVENT if roles.event is None else None
    if roles.event is not None:
        columns[EVENT] = roles.event
    table = BehaviorTable(
        uri=log.table.uri, format=log.table.format, layout=Layout.TIME_COLUMN, columns=columns, constant_event=constant
    )
    scan, habits = LogScan(table, Calendar(start=dt.date(1970, 1, 1), timezone=timezone)), HabitScan()
    for block in _blocks(log, table):
        scan.observe(block)
        _observe_habits(habits, block, table, timezone)
    if len(scan.days) < 2:
        got = f"{scan.rows:,} rows on {len(scan.days)} days"
        where = f"log {log.table.uri}, column {roles.event_time}"
        raise ConfigError(Fault(where, "rows of at least two days: one to learn from and one to score", got, "give more days"))
    first, last = (dt.date.fromisoformat(day) for day in (min(scan.days), max(scan.days)))
    empty = (last - first).days + 1 - len(scan.days)
    return LogFacts(dict(Counter(scan.events).most_common()), first, last, empty, habits.habits())


def _blocks(log: TableSurvey, table: BehaviorTable) -> Iterator[pa.Table]:
    folder = open_folder(log.table, "behavior_table")
    parts: Sequence[str | None] = [paths[0] for paths in day_folders(folder).values()] if log.days else [None]
    for part in parts:
        for plan in plan_files(table, list_files(folder, part)):
            yield from plan.blocks()


def _observe_habits(habits: HabitScan, block: pa.Table, table: BehaviorTable, timezone: str) -> None:
    """Adds the positive events of a block; a block with faults, which `validate` names, is left out."""
    try:
        users, items = (to_ids(block.column(name), name) for name in (USER_ID, ITEM_ID))
        time_ms = to_event_time_ms(block.column(EVENT_TIME), unit=table.time_unit, timezone=timezone, where=EVENT_TIME)
        names = None if table.constant_event is not None else to_text(block.column(EVENT), EVENT)
    except SchemaError:
        return
    columns = [users, items, time_ms, dates_of(time_ms, timezone)]
    if names is not None:
        positive = [name for name in pc.unique(names).to_pylist() if name is not None and is_positive(name)]
        kept = pc.is_in(names, value_set=pa.array(positive, pa.string()))
        columns = [column.filter(kept) for column in columns]
    habits.observe(*columns)
