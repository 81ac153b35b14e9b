"""Writes a first configuration for a user's tables: surveys them, guesses roles, derives settings, writes the files."""

from __future__ import annotations

import datetime as dt
import math
import os
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from dssm_assets.core.columns import EVENT, ITEM_ID, USER_ID
from dssm_assets.core.config.pipeline import BehaviorTable, Layout, check_timezone
from dssm_assets.core.errors import ConfigError, Fault, SchemaError
from dssm_assets.core.evaluation.evaluation_tables import TOTAL_HIT_RATE
from dssm_assets.core.features.fg_files import FG_FILE, fg_json
from dssm_assets.core.names import check_time_format
from dssm_assets.core.sources.canonical_tables import EVENT_TIME
from dssm_assets.core.sources.convert import to_ids
from dssm_assets.core.sources.event_time import to_event_time_ms
from dssm_assets.core.sources.time_format import has_clock
from dssm_assets.defs.automation import TRAIN_AND_EVALUATE
from dssm_assets.defs.scene import Scene
from dssm_assets.extras.starter.column_roles import Roles, ValueKind, find_roles, is_time
from dssm_assets.extras.starter.config_checks import describe_validation, validate
from dssm_assets.extras.starter.log_table import LogTable, drop_tail, find_habits, plan_log, select_positive, to_date, to_number
from dssm_assets.extras.starter.starter_config import (
    CONSTANT_EVENT,
    StarterInputs,
    config_yaml,
    find_contexts,
    order_events,
    positive_events,
    rest_of_log,
    starter_fg,
)
from dssm_assets.extras.starter.starter_settings import Recipe, calendar_start
from dssm_assets.extras.starter.table_survey import TableSurvey, open_rows, survey_table
from dssm_assets.materialize import plan_runs
from dssm_assets.storage.config_choice import CONFIG_FILE, UI_COMMAND
from dssm_assets.storage.config_file import LoadedConfig, load_config
from dssm_assets.storage.sources.reader import log_rows

_PARTITION_S, _FIT_S, _EVENT_S = 0.011, 30.0, 3e-4
"""Seconds per partition, evaluation day and positive event. MovieLens-100K takes 90 s, MovieLens-1M ten minutes, Online Retail four."""
SHOWN_DAYS: Final = 4
"""The printed commands evaluate at most so many last days. Each of them is a fit."""


def write_starter(
    behavior: str,
    folder: Path,
    *,
    user: str | None = None,
    item: str | None = None,
    name: str = "dssm",
    timezone: str = "UTC",
    columns: Mapping[str, str] | None = None,
    recipe: Recipe | None = None,
    time_format: str | None = None,
    is_replacing: bool = False,
    log: Callable[[str], None] = lambda line: None,
) -> StarterInputs:
    """Writes config.yaml and fg.json for a user's tables and returns the facts that they are based on.

    Args:
        columns: role in the log (user_id, item_id, event_time, event) -> column, if it cannot be guessed.
        recipe: None: chosen by the log's habits.
        time_format: None: found by the values of the log.
        log: receives progress lines while the behavior log is read.

    Raises:
        SourceMissingError, SchemaError: a table cannot be read.
        ConfigError: a column's role cannot be guessed, the log has fewer than two days, the time zone is unknown, or a file exists.
    """
    try:
        check_timezone(timezone)
    except ValueError as error:
        expected = "the name of a time zone, such as Europe/Berlin"
        raise ConfigError(Fault("--timezone", expected, repr(timezone), "correct it")) from error
    existing = [folder / file for file in (CONFIG_FILE, FG_FILE) if (folder / file).exists()]
    if existing and not is_replacing:
        raise ConfigError(Fault(str(existing[0]), "no such file", "an existing one", "choose another --out, or pass --force"))
    users, items = _survey_entities(user, "user"), _survey_entities(item, "item")
    survey = survey_table(_absolute(behavior), "behavior_table", is_log=True, log=log)
    user_columns, item_columns = (None if survey is None else survey.columns for survey in (users, items))
    roles = find_roles(user_columns, item_columns, survey.columns, columns or {})
    survey = _change(
        survey,
        time_format=_log_time_format(survey, roles, time_format),
        layout=Layout.DS_FOLDERS if survey.days else Layout.TIME_COLUMN,
    )
    facts = _find_facts(survey, {"user": users, "item": items}, roles, timezone, log)
    inputs = StarterInputs(folder / CONFIG_FILE, name, timezone, users, items, survey, roles, recipe=recipe, **facts)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FG_FILE).write_text(fg_json(starter_fg(inputs)), encoding="utf-8")
    inputs.path.write_text(config_yaml(inputs), encoding="utf-8")
    return inputs


def _survey_entities(uri: str | None, side: str) -> TableSurvey | None:
    """Returns the survey of users or items, with the format of the first times that are not ISO 8601."""
    if uri is None:
        return None
    survey = survey_table(_absolute(uri), f"{side}_table", is_log=False)
    formats = [column.time_format for column in survey.columns if is_time(column) and column.time_format]
    return _change(survey, time_format=next(iter(formats), None))


def _change(survey: TableSurvey, **settings: Any) -> TableSurvey:
    return replace(survey, table=survey.table.model_copy(update=settings))


def _absolute(uri: str) -> str:
    return uri if len(urlsplit(uri).scheme) > 1 else str(Path(uri).absolute())


def _log_time_format(log: TableSurvey, roles: Roles, given: str | None) -> str | None:
    """Returns the format of the log's times. None: ISO 8601, or no text. Refuses times whose order of day and month is unknown."""
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


def _find_facts(
    survey: TableSurvey, entities: Mapping[str, TableSurvey | None], roles: Roles, timezone: str, log: Callable[[str], None]
) -> dict[str, Any]:
    """Reads the log again with the roles of its columns. Returns the attributes of `StarterInputs` from `events` on."""
    columns = {USER_ID: roles.user_id, ITEM_ID: roles.item_id, EVENT_TIME: roles.event_time}
    columns |= {} if roles.event is None else {EVENT: roles.event}
    contexts = find_contexts(rest_of_log(survey, roles))
    table = BehaviorTable(
        **survey.table.model_dump(exclude={"columns", "keep", "decimal_mark"}),
        keep=contexts,
        columns=columns,
        constant_event=CONSTANT_EVENT if roles.event is None else None,
        clock_column=roles.clock,
        incomplete_rows="drop",
    )
    rows = LogTable(table, timezone, contexts)
    blocks = (block for plans in plan_log(table, survey.days) for plan in plans for block in plan.blocks())
    for block in log_rows(blocks, log, "behavior_table, second pass", survey.rows):
        rows.observe(block)
    log(f"behavior_table: reading the habits in {rows.rows:,} rows")
    strays = rows.drop_strays(dt.date.today())
    days, events = rows.count_days(), rows.count_events()
    tail = drop_tail(rows.db) if select_positive(rows.db, positive_events(order_events(list(events)))) else 0
    habits = find_habits(rows.db)
    if len(days) < 2 or habits is None:
        got = f"{rows.rows:,} rows on {len(days)} days"
        where = f"log {survey.table.uri}, column {roles.event_time}"
        raise ConfigError(Fault(where, "rows of at least two days: one to learn from and one to score", got, "give more days"))
    first, last = (dt.date.fromisoformat(day) for day in (min(days), max(days)))
    user = rows.first_user(calendar_start(first, to_date(habits.days[-1])))
    if any(column.name == roles.user_id and column.kind is ValueKind.NUMBER for column in survey.columns):
        user = str(int(float(user)))  # ids that some rows lack may be floats: 17000.0
    keys = (("user", USER_ID, roles.user_key), ("item", ITEM_ID, roles.item_key))
    return {
        "events": events,
        "first": first,
        "last": last,
        "empty_days": (last - first).days + 1 - len(days),
        "strays": strays,
        "tail": tail,
        "habits": habits,
        "log_items": len(rows.distinct_ids(ITEM_ID)),
        "item_columns": rows.columns_of_items(),
        "example_user": user,
        "look_ahead": {
            (side, name): later
            for side, key, entity_key in keys
            if entity_key is not None
            for name, later in _look_ahead(rows, key, entities[side], entity_key, timezone)
        },
    }


def _look_ahead(
    log: LogTable, key: str, survey: TableSurvey | None, entity_key: str, timezone: str
) -> Iterator[tuple[str, float]]:
    """Yields each time column of users or items, with the fraction of ids whose time lies after their first event."""
    times = [] if survey is None else [column for column in survey.columns if is_time(column) and column.name != entity_key]
    if survey is None or not times:
        return
    with open_rows(survey) as rows:
        ids = to_ids(rows.column(entity_key), entity_key)
        for column in times:
            values = rows.column(column.name)
            try:
                read = to_event_time_ms(
                    values, unit="auto", timezone=timezone, where=column.name, time_format=column.time_format
                )
            except SchemaError:
                continue
            yield column.name, log.later_frac(key, ids, read)


def describe_starter(
    inputs: StarterInputs,
    home: Path,
    today: dt.date,
    project: Path | None = None,
    log: Callable[[str], None] = lambda line: None,
) -> tuple[str, bool]:
    """Describes the written files, and returns the text and whether they match the tables as of the day `today`.

    The text lists the choices and their reasons, and then either the mismatches or the next commands.

    Args:
        project: for a component, the folder of the project. Dagster then makes the runs, under the names of the project's UI.
    """
    settings = inputs.settings
    loaded = load_config(inputs.path, home, checks_features=False)
    log(f"{inputs.path} is checked against the tables")
    found = validate(loaded, today, log, inputs.log.rows)
    lines = [
        f"Wrote {inputs.path} and fg.json next to it. Read config.yaml once: a comment explains each choice.",
        f"Recipe {settings.recipe}: {settings.recipe_reason}.",
        *(f"Note: {note}." for note in inputs.notes),
        describe_validation(found, str(inputs.path)),
    ]
    if not found.faults:
        lines += [_describe_cost(inputs, loaded, _first_days(inputs, project)), "", "Next:"]
        lines += [f"  {command}" for command in _next_commands(inputs, home, project)]
    return "\n".join(lines), not found.faults


def _first_days(inputs: StarterInputs, project: Path | None) -> tuple[str, str]:
    """Returns the first and the last evaluation day of the first command, which is for one day inside a project."""
    days, settings = inputs.settings.evaluation_days, inputs.settings
    last = days.shown or settings.start + dt.timedelta(days=days.window)
    first = last
    if project is None and settings.values["span_days"] is None:  # else each day is a span of several, which is a fit for each
        first = min((day for day in map(to_date, days.days) if day > last - dt.timedelta(days=SHOWN_DAYS)), default=last)
    return first.isoformat(), last.isoformat()


def _describe_cost(inputs: StarterInputs, loaded: LoadedConfig, days: tuple[str, str]) -> str:
    made = plan_runs(Scene(loaded), TRAIN_AND_EVALUATE, *days, with_upstream=True).days_by_asset
    partitions, fits = sum(made.values()), made[TOTAL_HIT_RATE.name]
    events = inputs.habits.day_events[inputs.habits.days >= to_number(inputs.settings.start)].sum()
    seconds = _PARTITION_S * partitions + _FIT_S * fits + _EVENT_S * float(events)
    return (
        f"The first command makes {partitions:,} partitions of {max(made.values()):,} days and {fits} fit{'s' if fits > 1 else ''}: about "
        f"{math.ceil(seconds / 60)} min on two quiet cores."
    )


def _next_commands(inputs: StarterInputs, home: Path, project: Path | None) -> list[str]:
    (first, last), name = _first_days(inputs, project), inputs.name
    config, folder = shlex.quote(str(inputs.path)), shlex.quote(str(home))
    if project is None:
        commands = [f"export DSSM_CONFIG={config} DAGSTER_HOME={folder}"]
        fit = f"dssm-assets materialize train_and_evaluate --from {first} --to {last} --with-upstream"
        publish, ui = f"dssm-assets materialize publish --from {last} --with-upstream", UI_COMMAND
    else:
        instance = shlex.quote(str(home.parent / "instance"))
        commands = [f"cd {shlex.quote(str(project))}", f"export DSSM_CONFIG={config} DSSM_HOME={folder}"]
        if "DAGSTER_HOME" not in os.environ:
            commands.append(f"mkdir -p {instance} && export DAGSTER_HOME={instance}  # where Dagster records runs")
        fit = f"dg launch --job {name}_train_and_evaluate --partition {last}"
        publish, ui = f"dg launch --job {name}_publish --partition {last}", "dg dev"
    return [
        *commands,
        fit,
        "dssm-assets hit-rates",
        f"{publish}  # what recall and serve answer from",
        f"dssm-assets recall --user-id {shlex.quote(inputs.example_user)} -k 20",
        "dssm-assets serve --port 8000  # lists over HTTP: http://127.0.0.1:8000/docs",
        f"{ui}  # the UI: http://127.0.0.1:3000",
    ]
