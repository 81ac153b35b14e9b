"""A first configuration for surveyed tables, as YAML with a reason for each choice.

Belongs here: the text. Does not belong here: what is chosen (`starter_settings.py`, `starter_features.py`), surveying the tables
(`extras/starter/table_survey.py`), writing the files (`extras/starter/write_starter.py`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from dssm_assets.core.features.fg_files import FG_FILE
from dssm_assets.extras.starter.column_roles import ColumnProfile, ValueKind
from dssm_assets.extras.starter.starter_features import unused_columns
from dssm_assets.extras.starter.starter_inputs import CONSTANT_EVENT, StarterInputs, StarterTable
from dssm_assets.extras.starter.starter_settings import Line

_LONGEST: Final = [10, 50, 100, 200]
"""Lengths of lists of a corpus that is large enough."""
_ITEMS_PER_PLACE: Final = 8
"""Items for each place of the longest list."""
_SHORTER: Final = (1, 2, 5, 10, 20, 50, 100)


def config_yaml(inputs: StarterInputs) -> str:
    """Returns the configuration as a YAML file."""
    facts, roles, settings = inputs.facts, inputs.roles, inputs.settings
    ks, reason = choose_cut_offs(inputs.items)
    lines = [
        "# Written by `dssm-assets init` from a survey of the tables. Every choice is a guess, explained in its comment:",
        "# read the file once, correct it, then run: dssm-assets validate --config THIS_FILE",
        f"# Recipe {settings.recipe}: {settings.recipe_reason}.",
        f"# Evaluation days: {settings.evaluation_days.sentence}.",
        *(f"# Note: {note}." for note in inputs.notes),
        f"name: {inputs.name}",
        "",
        "calendar:",
        f"  start: {settings.start.value}    # {settings.start.reason}",
        f"  end: {facts.last}    # the log's last day; remove this line for a log that grows every day",
        f"  timezone: {inputs.timezone}    # zone of days, hours and weekdays",
        "",
        "tables:",
        *_entity_lines(inputs, "user", inputs.user, roles.user_key),
        *_entity_lines(inputs, "item", inputs.item, roles.item_key),
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
        "window:",
        *_lines(settings.window),
        "",
        "raw_features:",
        "  statistic_days: [1, 7, 30]  # windows of counts, e.g. user:" + f"{_plain(inputs.positive[-1])}_count_7d",
        f"  history_columns: {_list(inputs.history)}   # item columns stored with each item of a user's history",
        "  preference_columns: []      # item columns whose values are counted per user, for lookup_feature",
        "",
        "features:",
        f"  fg_path: {FG_FILE}            # see docs/feature_generation.md, which also lists the statistics of users and items",
        *(f"  # not a feature: {side}.{column}" for side in ("user", "item") for column in unused_columns(inputs, side)),
        "",
        "statistics:",
        *_lines(settings.statistics),
        "",
        "model:",
        *_lines(settings.model),
        "",
        "training:",
        *_lines(settings.training),
        "",
        "channels:",
        *_lines(settings.channels),
        "",
        "evaluation:",
        f"  k: {ks}    # {reason}",
        *_lines(settings.evaluation),
        "",
        "# storage: {root: 's3://bucket/prefix'}     # default: the folder `tables` in the home folder",
        "# platform: {owners: ['team:recommendation'], trigger: schedule, schedule_at: '03:00'}",
    ]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _entity_lines(inputs: StarterInputs, side: str, source: StarterTable | None, key: str | None) -> list[str]:
    if source is None or key is None:
        return [f"  # no table of {side}s: they are the ids of the log"]
    lines = _table_lines(side, source, {f"{side}_id": key})
    if times := [column.name for column in inputs.times(side)]:
        lines.append(f"    time_columns: {_list(times)}    # times, whose age as of each day is a feature")
    return lines


def _table_lines(side: str, source: StarterTable, columns: dict[str, str]) -> list[str]:
    mapped = {ours: theirs for ours, theirs in columns.items() if ours != theirs}
    lines = [
        f"  {side}:                       # {source.columns[0].rows:,} rows" if source.columns else f"  {side}:",
        f"    uri: {_scalar(source.uri)}",
        f"    format: {source.format}",
        f"    layout: {source.layout}",
    ]
    if mapped:
        lines.append(f"    columns: {_map(mapped)}")
    if source.column_names is not None:
        reason = "no header line: name them as you like, here and below"
        lines.append(f"    column_names: {_list(source.column_names)}    # {reason}")
    if source.encoding is not None:
        lines.append(f"    encoding: {source.encoding}    # not UTF-8: correct it if names look wrong")
    if source.time_format is not None:
        lines.append(f"    time_format: {_scalar(source.time_format)}    # of times in texts, by the directives of strptime")
    if source.decimal_mark is not None:
        lines.append(f"    decimal_mark: {_scalar(source.decimal_mark)}    # a comma before the fractions of numbers")
    return lines


def _log_lines(inputs: StarterInputs) -> list[str]:
    roles = inputs.roles
    columns = {"user_id": roles.user_id, "item_id": roles.item_id, "event_time": roles.event_time}
    if roles.event is not None:
        columns["event"] = roles.event
    lines = _table_lines("behavior", inputs.log, columns)
    if inputs.incomplete_rows:
        lines.append(f"    incomplete_rows: drop    # {inputs.incomplete_rows}")
    if roles.clock is not None:
        lines.append(
            f"    clock_column: {_scalar(roles.clock)}    # the time of day: read together with the date of event_time"
        )
    if roles.event is None:
        lines.append(
            f"    constant_event: {CONSTANT_EVENT}          # no column of event names was found: every row gets this event"
        )
    if inputs.values:
        lines.append(f"    value_columns: {_list(inputs.values)}    # numbers to sum per user and item")
    if inputs.contexts:
        lines.append(f"    context_columns: {_list(inputs.contexts)}  # keep only columns that are known at request time")
    lines += [f"    # not used: {column.name} ({column.summary}); {_how_to_use(inputs, column)}" for column in inputs.unused]
    if inputs.facts.empty_days:
        lines.append(
            f"    allow_empty_days: true    # {inputs.facts.empty_days} days have no rows: correct, or is data missing?"
        )
    return lines


def _how_to_use(inputs: StarterInputs, column: ColumnProfile) -> str:
    if column.name in inputs.facts.item_columns:
        return "it follows from the item, so no request knows it: give it in a table of items, with --item"
    if column.kind in (ValueKind.LIST, ValueKind.OTHER):
        return "its values cannot be used"
    return "list it in value_columns (summed), context_columns or keep"


def _lines(lines: Sequence[Line]) -> list[str]:
    return [f"  {line.key}: {line.value}" + (f"    # {line.reason}" if line.reason else "") for line in lines]


def choose_cut_offs(items: int) -> tuple[list[int], str]:
    """Returns the lengths of lists that are scored, and why: up to 200, but no more than an eighth of the items.

    A list of 200 of 167 items has them all, and any list of 200 of 300 finds most: rates near 1 tell no scorer from another; 200 of the 1,682
    films of MovieLens 100K still do (.34 and .51). By hand: 1,682 items have 10, 50, 100 and 200; 167 items have 2, 5, 10 and 20; fewer than
    16 items have 1.
    """
    most = max(1, items // _ITEMS_PER_PLACE)
    if most >= _LONGEST[-1]:
        return list(_LONGEST), f"of {items:,} items"
    fitting = [k for k in _SHORTER if k <= most][-len(_LONGEST) :]
    return fitting, f"the longest is no more than an eighth of the {items:,} items: longer ones are hit by chance"


def _plain(event: str) -> str:
    return event.replace("\n", " ")


def _scalar(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _list(texts: Sequence[str]) -> str:
    return "[" + ", ".join(map(_scalar, texts)) + "]"


def _map(texts: dict[str, str]) -> str:
    return "{" + ", ".join(f"{key}: {_scalar(value)}" for key, value in texts.items()) + "}"
