"""Writes a first configuration for the tables of a user: surveys them, guesses roles, derives and writes the files."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from dssm_assets.core.columns import EVENT, ITEM_ID, USER_ID
from dssm_assets.core.config.pipeline import BehaviorTable, Layout
from dssm_assets.core.errors import ConfigError, Fault, SchemaError
from dssm_assets.core.features.fg_files import FG_FILE, fg_json
from dssm_assets.core.sources.canonical_tables import EVENT_TIME
from dssm_assets.core.sources.convert import to_ids
from dssm_assets.core.sources.event_time import to_event_time_ms
from dssm_assets.core.sources.time_format import check_time_format, has_clock
from dssm_assets.extras.starter.column_roles import ColumnProfile, Roles, find_roles, is_time
from dssm_assets.extras.starter.log_habits import find_habits, select_positive
from dssm_assets.extras.starter.log_table import LogTable
from dssm_assets.extras.starter.recipe import Recipe
from dssm_assets.extras.starter.starter_config import config_yaml
from dssm_assets.extras.starter.starter_features import starter_fg
from dssm_assets.extras.starter.starter_inputs import (
    CONSTANT_EVENT,
    LogFacts,
    StarterInputs,
    find_contexts,
    order_events,
    positive_events,
    rest_of_log,
)
from dssm_assets.extras.starter.table_survey import TableSurvey, open_rows, survey_table
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
    inputs = _survey(request)
    request.folder.mkdir(parents=True, exist_ok=True)
    (request.folder / FG_FILE).write_text(fg_json(starter_fg(inputs)), encoding="utf-8")
    (request.folder / CONFIG_FILE).write_text(config_yaml(inputs), encoding="utf-8")
    return Starter(request.folder / CONFIG_FILE, inputs)


def _survey(request: StarterRequest) -> StarterInputs:
    users, items = (_survey_entities(uri, side) for side, uri in (("user", request.user), ("item", request.item)))
    log = survey_table(_absolute(request.behavior), "behavior_table", is_log=True)
    user_columns, item_columns = (None if survey is None else survey.columns for survey in (users, items))
    roles = find_roles(user_columns, item_columns, log.columns, request.columns or {})
    layout = Layout.DS_FOLDERS if log.days else Layout.TIME_COLUMN
    log = _with_times(log, _log_time_format(log, roles, request.time_format), layout)
    facts = _facts(log, {"user": users, "item": items}, roles, request.timezone)
    return StarterInputs(request.name, request.timezone, users, items, log, roles, facts, request.recipe)


def _survey_entities(uri: str | None, side: str) -> TableSurvey | None:
    """Returns the survey of users or items, with the format of the first times that are not ISO 8601."""
    if uri is None:
        return None
    survey = survey_table(_absolute(uri), f"{side}_table", is_log=False)
    formats = [column.time_format for column in survey.columns if is_time(column) and column.time_format]
    return _with_times(survey, next(iter(formats), None), survey.table.layout)


def _with_times(survey: TableSurvey, time_format: str | None, layout: Layout) -> TableSurvey:
    return replace(survey, table=survey.table.model_copy(update={"time_format": time_format, "layout": layout}))


def _log_time_format(log: TableSurvey, roles: Roles, given: str | None) -> str | None:
    """Returns the format of the log's times, None if it is ISO 8601 or they are no text.

    Raises:
        ConfigError: the given format is wrong, or the values do not tell the order of day and month.
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


def _absolute(uri: str) -> str:
    """Returns a local path as an absolute path, and a URL unchanged."""
    return uri if len(urlsplit(uri).scheme) > 1 else str(Path(uri).absolute())


def _facts(log: TableSurvey, entities: Mapping[str, TableSurvey | None], roles: Roles, timezone: str) -> LogFacts:
    """Returns events, days and habits of the log, which is read again with the roles of its columns."""
    columns = {USER_ID: roles.user_id, ITEM_ID: roles.item_id, EVENT_TIME: roles.event_time}
    if roles.event is not None:
        columns[EVENT] = roles.event
    contexts = [column.name for column in find_contexts(rest_of_log(log, roles))]
    table = BehaviorTable(
        **log.table.model_dump(exclude={"columns", "keep", "layout", "decimal_mark"}),
        keep=contexts,
        layout=Layout.TIME_COLUMN,
        columns=columns,
        constant_event=CONSTANT_EVENT if roles.event is None else None,
        clock_column=roles.clock,
        incomplete_rows="drop",
    )
    rows = LogTable(table, timezone, contexts)
    folder = open_folder(log.table, "behavior_table")
    parts = [paths[0] for paths in day_folders(folder).values()] if log.days else [None]
    for part in parts:
        for plan in plan_files(table, list_files(folder, part)):
            for block in plan.blocks():
                rows.observe(block)
    days, events = rows.count_days(), rows.count_events()
    select_positive(rows.db, positive_events(order_events([event for event, _ in events.most_common()])))
    habits = find_habits(rows.db)
    if len(days) < 2 or habits is None:
        got = f"{rows.rows:,} rows on {len(days)} days"
        where = f"log {log.table.uri}, column {roles.event_time}"
        raise ConfigError(Fault(where, "rows of at least two days: one to learn from and one to score", got, "give more days"))
    first, last = (dt.date.fromisoformat(day) for day in (min(days), max(days)))
    look_ahead: dict[tuple[str, str], float] = {}
    for side, key, entity_key in (("user", USER_ID, roles.user_key), ("item", ITEM_ID, roles.item_key)):
        survey = entities[side]
        times = [] if survey is None else [column for column in survey.columns if is_time(column) and column.name != entity_key]
        if survey is not None and entity_key is not None and times:
            look_ahead |= {(side, name): later for name, later in _look_ahead(rows, key, survey, entity_key, times, timezone)}
    return LogFacts(
        dict(events.most_common()),
        first,
        last,
        (last - first).days + 1 - len(days),
        habits,
        len(rows.distinct_ids(ITEM_ID)),
        rows.columns_of_items(),
        look_ahead,
    )


def _look_ahead(
    log: LogTable, key: str, survey: TableSurvey, entity_key: str, columns: list[ColumnProfile], timezone: str
) -> list[tuple[str, float]]:
    """Returns the columns of times of users or items, and how many of the ids have a time after their first event."""
    found = []
    with open_rows(survey) as rows:
        ids = to_ids(rows.column(entity_key), entity_key)
        for column in columns:
            try:
                times = to_event_time_ms(
                    rows.column(column.name), unit="auto", timezone=timezone, where=column.name, time_format=column.time_format
                )
            except SchemaError:
                continue
            found.append((column.name, log.later_frac(key, ids, times)))
    return found
