"""A first configuration for surveyed tables, as commented YAML: tables and events, then the filled-in template of the recipe.

Belongs here: the text. Does not belong here: what is chosen (`starter_settings.py`, `starter_features.py`), surveying the tables
(`table_survey.py`), writing the files (`write_starter.py`).
"""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Iterator, Mapping, Sequence
from string import Template
from typing import Final

from dssm_assets.core.config.pipeline import PipelineConfig
from dssm_assets.core.features.fg_files import FG_FILE
from dssm_assets.extras.starter.column_roles import ColumnProfile, ValueKind
from dssm_assets.extras.starter.recipe import Recipe
from dssm_assets.extras.starter.starter_features import unused_columns
from dssm_assets.extras.starter.starter_inputs import CONSTANT_EVENT, StarterInputs
from dssm_assets.extras.starter.table_survey import TableSurvey

_LONGEST: Final = [10, 50, 100, 200]
"""Lengths of lists of a corpus that is large enough."""
_ITEMS_PER_PLACE: Final = 8
"""Items for each place of the longest list."""
_SHORTER: Final = (1, 2, 5, 10, 20, 50, 100)


def config_yaml(inputs: StarterInputs) -> str:
    """Returns the configuration as a YAML file."""
    facts, roles, settings = inputs.facts, inputs.roles, inputs.settings
    columns = {"user_id": roles.user_id, "item_id": roles.item_id, "event_time": roles.event_time, "event": roles.event}
    lines = [
        "# Written by `dssm-assets init` from a survey of the tables. Every choice is a guess, explained in its comment:",
        "# read the file once, correct it, then run: dssm-assets validate --config THIS_FILE",
        f"# Recipe {settings.recipe}: {settings.recipe_reason}.",
        f"# Evaluation days: {settings.evaluation_days.sentence}.",
        *(f"# Note: {note}." for note in inputs.notes),
        f"name: {inputs.name}",
        "",
        "calendar:",
        f"  start: {settings.start}    # the log begins on {facts.first}; days that the window can spare are left out",
        f"  end: {facts.last}    # the log's last day; remove this line for a log that grows every day",
        f"  timezone: {inputs.timezone}    # zone of days, hours and weekdays",
        "",
        "tables:",
        *_entity_lines(inputs, "user"),
        *_entity_lines(inputs, "item"),
        *_table_lines("behavior", inputs.log, {ours: theirs for ours, theirs in columns.items() if theirs is not None}),
        *_log_lines(inputs),
        "",
        "events:",
        *(f"  # {event}: {count:,} rows" for event, count in facts.events.items()),
        f"  funnel: {_list(inputs.funnel)}      # from the widest to the narrowest",
        f"  positive: {_list(inputs.positive)}    # training targets and ground truth: decide this yourself",
    ]
    if inputs.exposure:
        lines.append(f"  exposure: {_list(inputs.exposure)}    # items were shown, not necessarily chosen")
    lines += [
        "",
        "raw_features:",
        "  statistic_days: [1, 7, 30]  # windows of counts, e.g. user:" + inputs.positive[-1].replace("\n", " ") + "_count_7d",
        f"  history_columns: {_list(inputs.history)}   # item columns stored with each item of a user's history",
        "  preference_columns: []      # item columns whose values are counted per user, for lookup_feature",
        "",
        "features:",
        f"  fg_path: {FG_FILE}            # see docs/feature_generation.md, which also lists the statistics of users and items",
        *(f"  # not a feature: {side}.{column}" for side in ("user", "item") for column in unused_columns(inputs, side)),
        "",
        *fill_template(settings.recipe, {**settings.values, "k": choose_cut_offs(inputs.items)}),
        "",
        "# storage: {root: 's3://bucket/prefix'}     # default: the folder `tables` in the home folder",
        "# platform: {owners: ['team:recommendation'], trigger: schedule, schedule_at: '03:00'}",
    ]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def fill_template(recipe: Recipe, values: Mapping[str, object]) -> Iterator[str]:
    """Yields the lines of a recipe's template with their values, without lines whose value is None.

    A key without a comment gets the description that its section of the configuration gives it.
    """
    template = importlib.resources.files("dssm_assets.extras.starter").joinpath("templates", f"{recipe}.yaml")
    section = ""
    for line in template.read_text(encoding="utf-8").splitlines():
        if any(values[name] is None for name in Template(line).get_identifiers()):
            continue
        filled = Template(line).substitute(values)
        key, colon, value = filled.partition(":")
        if colon and not value:
            section = key
        elif colon and "#" not in filled:
            fields = PipelineConfig.model_fields[section].annotation.model_fields  # type: ignore[union-attr]
            filled += f"    # {(fields[key.strip()].description or '').split('. ')[0].rstrip('.')}"
        yield filled


def _entity_lines(inputs: StarterInputs, side: str) -> list[str]:
    survey, key = inputs.side(side)
    if survey is None or key is None:
        return [f"  # no table of {side}s: they are the ids of the log"]
    lines = _table_lines(side, survey, {f"{side}_id": key})
    if times := [column.name for column in inputs.times(side)]:
        lines.append(f"    time_columns: {_list(times)}    # times, whose age as of each day is a feature")
    return lines


def _table_lines(side: str, survey: TableSurvey, columns: dict[str, str]) -> list[str]:
    table = survey.table
    mapped = ", ".join(f"{ours}: {_scalar(theirs)}" for ours, theirs in columns.items() if ours != theirs)
    lines = [
        f"  {side}:                       # {survey.rows:,} rows",
        f"    uri: {_scalar(table.uri)}",
        f"    format: {table.format}",
        f"    layout: {table.layout}",
    ]
    if mapped:
        lines.append(f"    columns: {{{mapped}}}")
    if table.column_names is not None:
        lines.append(
            f"    column_names: {_list(table.column_names)}    # no header line: name them as you like, here and below"
        )
    if table.encoding is not None:
        lines.append(f"    encoding: {table.encoding}    # not UTF-8: correct it if names look wrong")
    if table.time_format is not None:
        lines.append(f"    time_format: {_scalar(table.time_format)}    # of times in texts, by the directives of strptime")
    if table.decimal_mark is not None:
        lines.append(f"    decimal_mark: {_scalar(table.decimal_mark)}    # a comma before the fractions of numbers")
    return lines


def _log_lines(inputs: StarterInputs) -> list[str]:
    roles, lines = inputs.roles, []
    if inputs.incomplete_rows:
        lines.append(f"    incomplete_rows: drop    # {inputs.incomplete_rows}")
    if roles.clock is not None:
        lines.append(
            f"    clock_column: {_scalar(roles.clock)}    # the time of day: read together with the date of event_time"
        )
    if roles.event is None:
        lines.append(f"    constant_event: {CONSTANT_EVENT}    # there is no column of event names: every row gets this event")
    if inputs.values:
        lines.append(f"    value_columns: {_list(inputs.values)}    # numbers to sum per user and item")
    if inputs.contexts:
        lines.append(f"    context_columns: {_list(inputs.contexts)}  # keep only columns that are known at request time")
    lines += [f"    # not used: {column.name} ({column.summary}); {_how_to_use(inputs, column)}" for column in inputs.unused]
    if days := inputs.facts.empty_days:
        lines.append(f"    allow_empty_days: true    # {days} days have no rows: correct, or is data missing?")
    return lines


def _how_to_use(inputs: StarterInputs, column: ColumnProfile) -> str:
    if column.name in inputs.facts.item_columns:
        return "it follows from the item, so no request knows it: give it in a table of items, with --item"
    if column.kind in (ValueKind.LIST, ValueKind.OTHER):
        return "its values cannot be used"
    return "list it in value_columns (summed), context_columns or keep"


def choose_cut_offs(items: int) -> list[int]:
    """Returns the lengths of lists that are scored: up to 200, but no more than an eighth of the items.

    A list of 200 of 167 items has them all, and any list of 200 of 300 finds most: rates near 1 tell no scorer from another; 200 of the 1,682
    films of MovieLens 100K still do (.34 and .51). By hand: 1,682 items have 10, 50, 100 and 200; 167 items have 2, 5, 10 and 20; fewer than
    16 items have 1.
    """
    most = max(1, items // _ITEMS_PER_PLACE)
    if most >= _LONGEST[-1]:
        return _LONGEST
    return [k for k in _SHORTER if k <= most][-len(_LONGEST) :]


def _scalar(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _list(texts: Sequence[str]) -> str:
    return "[" + ", ".join(map(_scalar, texts)) + "]"
