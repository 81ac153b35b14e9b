"""Writes a first configuration for the tables of a user: surveys them, guesses roles, derives and writes the files."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa

from dssm_assets.core.columns import EVENT, ITEM_ID, USER_ID
from dssm_assets.core.config.pipeline import BehaviorTable, Calendar, Layout
from dssm_assets.core.errors import ConfigError, Fault
from dssm_assets.core.features.fg_files import FG_FILE, fg_json
from dssm_assets.core.sources.canonical_tables import EVENT_TIME
from dssm_assets.core.sources.time_format import check_time_format, has_clock
from dssm_assets.extras.starter.column_roles import Roles, find_roles, is_time
from dssm_assets.extras.starter.log_habits import HabitScan
from dssm_assets.extras.starter.log_scan import LogScan
from dssm_assets.extras.starter.look_ahead import FirstEvents, ItemColumns
from dssm_assets.extras.starter.recipe import Recipe
from dssm_assets.extras.starter.starter_config import config_yaml
from dssm_assets.extras.starter.starter_features import starter_fg
from dssm_assets.extras.starter.starter_inputs import (
    CONSTANT_EVENT,
    RESERVED,
    LogFacts,
    StarterInputs,
    StarterTable,
    find_contexts,
    is_positive,
)
from dssm_assets.extras.starter.table_survey import TableSurvey, read_columns, survey_table
from dssm_assets.storage.config_choice import CONFIG_FILE
from dssm_assets.storage.sources.source_columns import plan_files
from dssm_assets.storage.sources.source_files import day_folders, list_files, open_folder


@dataclass(frozen=True)
class StarterRequest:
    """The tables of a user, and what cannot be guessed from them. Without a user or item table there is None."""

    user: str | None
    item: str | None
    behavior: str
    folder: Path
    name: str = "dssm"
    timezone: str = "UTC"
    columns: Mapping[str, str] | None = None
    recipe: Recipe | None = None
    time_format: str | None = None


@dataclass(frozen=True)
class Starter:
    """What was written: the path of the configuration, and what it was derived from."""

    path: Path
    inputs: StarterInputs


def write_starter(request: StarterRequest, *, is_replacing: bool = False) -> Starter:
    """Writes config.yaml and fg.json for the tables.

    Raises:
        SourceMissingError, SchemaError: if a table cannot be read.
        ConfigError: if a column's role cannot be guessed, the log has fewer than two days, or a file exists already.
    """
    existing = [request.folder / name for name in (CONFIG_FILE, FG_FILE) if (request.folder / name).exists()]
    if existing and not is_replacing:
        raise ConfigError(Fault(str(existing[0]), "no such file", "an existing one", "choose another --out, or pass --force"))
    found = _survey(request)
    request.folder.mkdir(parents=True, exist_ok=True)
    (request.folder / FG_FILE).write_text(fg_json(starter_fg(found)), encoding="utf-8")
    (request.folder / CONFIG_FILE).write_text(config_yaml(found), encoding="utf-8")
    return Starter(request.folder / CONFIG_FILE, found)


def _survey(request: StarterRequest) -> StarterInputs:
    users, items = (_survey_entities(uri, side) for side, uri in (("user", request.user), ("item", request.item)))
    log = survey_table(_absolute(request.behavior), "behavior_table", is_log=True)
    user_columns, item_columns = (None if one is None else one.columns for one in (users, items))
    roles = find_roles(user_columns, item_columns, log.columns, request.columns or {})
    layout = Layout.DS_FOLDERS if log.days else Layout.TIME_COLUMN
    time_format = _log_time_format(log, roles, request.time_format)
    return StarterInputs(
        request.name,
        request.timezone,
        user=None if users is None else _starter_table(users, users.table.layout, _entity_time_format(users)),
        item=None if items is None else _starter_table(items, items.table.layout, _entity_time_format(items)),
        log=_starter_table(log, layout, time_format),
        roles=roles,
        facts=_facts(log, users, items, roles, request.timezone, time_format),
        recipe=request.recipe,
    )


def _survey_entities(uri: str | None, side: str) -> TableSurvey | None:
    return None if uri is None else survey_table(_absolute(uri), f"{side}_table", is_log=False)


def _starter_table(survey: TableSurvey, layout: Layout, time_format: str | None) -> StarterTable:
    table = survey.table
    return StarterTable(
        table.uri, table.format, layout, survey.columns, time_format, table.decimal_mark, table.column_names, table.encoding
    )


def _log_time_format(log: TableSurvey, roles: Roles, given: str | None) -> str | None:
    """Returns the format of the log's times, None if it is ISO 8601 or they are no text.

    Raises:
        ConfigError: the given one is none, or the values do not tell the order of day and month.
    """
    profiles = {column.name: column for column in log.columns}
    clock = None if roles.clock is None else profiles[roles.clock].clock_formats[0]
    if given is not None:
        try:
            checked = check_time_format(given)
        except ValueError as error:
            raise ConfigError(Fault("--time-format", "a format of times", str(error), "correct it")) from error
        return checked if clock is None or has_clock(checked) else f"{checked} {clock}"
    column = profiles[roles.event_time]
    if len(column.time_formats) > 1:
        expected = "times with a day above 12, which tells days from months"
        got = f"{column.summary}, which may be any of: {', '.join(column.time_formats)}"
        remedy = f"name the format, such as --time-format '{column.time_formats[0]}'"
        raise ConfigError(Fault(f"log {log.table.uri}, column {column.name}", expected, got, remedy))
    return column.time_format if clock is None else f"{column.time_format or '%Y-%m-%d'} {clock}"


def _entity_time_format(survey: TableSurvey) -> str | None:
    """Returns the format of the first times of users or items that are not ISO 8601."""
    return next((column.time_format for column in survey.columns if is_time(column) and column.time_format), None)


def _absolute(uri: str) -> str:
    """Returns a local path as an absolute path, and a URL unchanged."""
    return uri if len(urlsplit(uri).scheme) > 1 else str(Path(uri).absolute())


def _facts(
    log: TableSurvey,
    users: TableSurvey | None,
    items: TableSurvey | None,
    roles: Roles,
    timezone: str,
    time_format: str | None,
) -> LogFacts:
    """Returns events, days and habits of the log, which is read again with the roles of its columns."""
    columns = {"user_id": roles.user_id, "item_id": roles.item_id, EVENT_TIME: roles.event_time}
    constant = CONSTANT_EVENT if roles.event is None else None
    if roles.event is not None:
        columns[EVENT] = roles.event
    rest = [column for column in log.columns if column.name not in {*roles.of_log, *RESERVED}]
    possible = [column.name for column in find_contexts(rest)]
    table = BehaviorTable(
        keep=possible,
        uri=log.table.uri,
        format=log.table.format,
        layout=Layout.TIME_COLUMN,
        columns=columns,
        constant_event=constant,
        time_format=time_format,
        clock_column=roles.clock,
        incomplete_rows="drop",
        column_names=log.table.column_names,
        encoding=log.table.encoding,
    )
    scan, habits = LogScan(table, Calendar(start=dt.date(1970, 1, 1), timezone=timezone)), HabitScan()
    item_columns = ItemColumns(ITEM_ID, possible)
    first_events = {
        side: FirstEvents(key, timezone)
        for side, key, survey in (("user", USER_ID, users), ("item", ITEM_ID, items))
        if survey is not None and any(map(is_time, survey.columns))
    }
    for block in _blocks(log, table):
        scan.observe(block)
        item_columns.observe(block)
        habits.observe_block(block, table, timezone, is_positive)
        for one in first_events.values():
            one.observe(block, table)
    if len(scan.days) < 2:
        got = f"{scan.rows:,} rows on {len(scan.days)} days"
        where = f"log {log.table.uri}, column {roles.event_time}"
        raise ConfigError(Fault(where, "rows of at least two days: one to learn from and one to score", got, "give more days"))
    first, last = (dt.date.fromisoformat(day) for day in (min(scan.days), max(scan.days)))
    empty = (last - first).days + 1 - len(scan.days)
    look_ahead: dict[tuple[str, str], float] = {}
    for side, survey, key in (("user", users, roles.user_key), ("item", items, roles.item_key)):
        if survey is not None and key is not None and side in first_events:
            for column in (one for one in survey.columns if is_time(one) and one.name != key):
                blocks = read_columns(survey, [key, column.name])
                later = first_events[side].later_frac(blocks, key, column.name, column.time_format)
                look_ahead[side, column.name] = later
    events = dict(Counter(scan.events).most_common())
    distinct = len(scan.ids.get(ITEM_ID, ()))
    return LogFacts(events, first, last, empty, habits.habits(), distinct, item_columns.find(), look_ahead)


def _blocks(log: TableSurvey, table: BehaviorTable) -> Iterator[pa.Table]:
    folder = open_folder(log.table, "behavior_table")
    parts: Sequence[str | None] = [paths[0] for paths in day_folders(folder).values()] if log.days else [None]
    for part in parts:
        for plan in plan_files(table, list_files(folder, part)):
            yield from plan.blocks()
