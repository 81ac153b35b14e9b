"""A first configuration for a person's own three tables: looked at, decided, written, and held against the tables again.

Belongs here: the order of it. Does not belong here: the guesses (`core/sources/column_roles.py`, `core/sources/starter.py`).
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from dssm_assets.core.columns import EVENT
from dssm_assets.core.config.pipeline import BehaviorTable, Calendar, Layout
from dssm_assets.core.errors import ConfigError, Fault
from dssm_assets.core.sources.canonical_tables import EVENT_TIME
from dssm_assets.core.sources.column_roles import Roles, find_roles
from dssm_assets.core.sources.log_scan import LogScan
from dssm_assets.core.sources.starter import CONSTANT_EVENT, FG_FILE, Found, LogFacts, Source, config_text, fg_of, fg_text
from dssm_assets.storage.sources.source_columns import plan_files
from dssm_assets.storage.sources.source_files import day_folders, list_files, open_folder
from dssm_assets.storage.sources.table_survey import Survey, survey

CONFIG_FILE = "config.yaml"


@dataclass(frozen=True)
class Asked:
    """What a person said: where the tables lie, and what no look can tell."""

    user: str
    item: str
    behavior: str
    folder: Path
    name: str = "dssm"
    timezone: str = "UTC"
    columns: Mapping[str, str] | None = None


def write_starter(asked: Asked, *, is_replacing: bool = False) -> Path:
    """Writes config.yaml and fg.json for three tables; returns the path of the configuration.

    Raises:
        SourceMissingError, SchemaError: a table cannot be read.
        ConfigError: a column's role cannot be told; the log has no rows, or one day only; a file is there already.
    """
    standing = [asked.folder / name for name in (CONFIG_FILE, FG_FILE) if (asked.folder / name).exists()]
    if standing and not is_replacing:
        raise ConfigError(Fault(str(standing[0]), "no such file", "one", "name another --out, or say --force"))
    uris = {"user_table": asked.user, "item_table": asked.item, "behavior_table": asked.behavior}
    surveys = {name: survey(_absolute(uri), name, is_log=name == "behavior_table") for name, uri in uris.items()}
    users, items, log = surveys.values()
    roles = find_roles(users.columns, items.columns, log.columns, asked.columns or {})
    facts = _facts(log, roles, asked.timezone)
    sources = [Source(one.table.uri, one.table.format, one.table.layout, one.columns) for one in (users, items)]
    layout = Layout.DS_FOLDERS if log.days else Layout.TIME_COLUMN
    behavior = Source(log.table.uri, log.table.format, layout, log.columns)
    found = Found(asked.name, asked.timezone, sources[0], sources[1], behavior, roles, facts)
    asked.folder.mkdir(parents=True, exist_ok=True)
    (asked.folder / FG_FILE).write_text(fg_text(fg_of(found)), encoding="utf-8")
    (asked.folder / CONFIG_FILE).write_text(config_text(found), encoding="utf-8")
    return asked.folder / CONFIG_FILE


def _absolute(uri: str) -> str:
    """Returns a local path made absolute, because a configuration is read from anywhere; a URL stays."""
    return uri if len(urlsplit(uri).scheme) > 1 else str(Path(uri).absolute())


def _facts(log: Survey, roles: Roles, timezone: str) -> LogFacts:
    """Returns events and days of the log, read once more with its columns in their roles."""
    columns = {"user_id": roles.user_id, "item_id": roles.item_id, EVENT_TIME: roles.event_time}
    constant = CONSTANT_EVENT if roles.event is None else None
    if roles.event is not None:
        columns[EVENT] = roles.event
    table = BehaviorTable(
        uri=log.table.uri, format=log.table.format, layout=Layout.TIME_COLUMN, columns=columns, constant_event=constant
    )
    scan = LogScan(table, Calendar(start=dt.date(1970, 1, 1), timezone=timezone))
    folder = open_folder(log.table, "behavior_table")
    parts: Sequence[str | None] = [paths[0] for paths in day_folders(folder).values()] if log.days else [None]
    for part in parts:
        for plan in plan_files(table, list_files(folder, part)):
            for raw in plan.file.blocks(list(dict.fromkeys(plan.columns.values()))):
                scan.observe(plan.block(raw))
    if len(scan.days) < 2:
        got = f"{scan.rows:,} rows on {len(scan.days)} days"
        where = f"log {log.table.uri}, column {roles.event_time}"
        raise ConfigError(Fault(where, "rows of at least two days: one to learn from and one to score", got, "give more days"))
    first, last = (dt.date.fromisoformat(day) for day in (min(scan.days), max(scan.days)))
    empty = (last - first).days + 1 - len(scan.days)
    return LogFacts(dict(Counter(scan.events).most_common()), first, last, empty)
