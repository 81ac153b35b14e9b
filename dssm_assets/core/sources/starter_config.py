"""A first configuration for surveyed tables: events, days and features, as YAML with a reason for each choice.

Belongs here: the choices and the text. Does not belong here: surveying the tables (`storage/sources/table_survey.py`), writing
the files (`steps/starter.py`).
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from dssm_assets.core.features_raw import plan
from dssm_assets.core.sources.column_roles import ColumnProfile, Roles, ValueKind
from dssm_assets.core.sources.log_habits import LogHabits
from dssm_assets.core.sources.starter_settings import Line, StarterSettings, choose_settings

CONSTANT_EVENT: Final = "act"
FG_FILE: Final = "fg.json"
_EXPOSURE: Final = re.compile(r"^(expr|expos\w*|impression\w*|imp|imps|show\w*|display\w*)$", re.IGNORECASE)
_UNDONE: Final = re.compile(
    r"cancel|refund|return|dislike|unlike|unfav|unfollow|unsubscribe|remove|delete|hide|block|report", re.IGNORECASE
)
_STAGES: Final = tuple(
    re.compile(words, re.IGNORECASE)
    for words in (
        r"expr|expos|impress|^imps?$|show|display",
        r"view|visit|browse|^pv$|detail",
        r"click|play|open|watch|read",
        r"fav|like|collect|wish|bookmark|share",
        r"cart|basket",
        r"buy|purchas|order|pay|transaction|checkout|convert|conversion|subscribe|rent",
    )
)
CODE: Final = "item_code"
"""Feature and embedding of the item's closed-form code: the item once more, under another name."""
_FEW: Final = 20
"""Distinct integers up to which a column is a category."""
_MANY: Final = 1000
"""Distinct texts up to which a column is a category even if they rarely repeat; beyond it, free text."""
_RESERVED: Final = {"user_id", "item_id", "ds", "event", "event_time", "event_time_ms", "request_id", "hour", "weekday"}


@dataclass(frozen=True)
class LogFacts:
    """Counts of the log.

    Attributes:
        events: event -> rows, the most frequent first.
        first: its first day.
        last: its last day.
        empty_days: days in between without rows.
        habits: of its positive events; None: not known.
    """

    events: Mapping[str, int]
    first: dt.date
    last: dt.date
    empty_days: int
    habits: LogHabits | None = None

    @property
    def days(self) -> int:
        """Returns the number of days from the first to the last."""
        return (self.last - self.first).days + 1


@dataclass(frozen=True)
class StarterTable:
    """One table of the configuration: uri, format, layout and column profiles."""

    uri: str
    format: str
    layout: str
    columns: tuple[ColumnProfile, ...]

    def rest(self, *used: str | None) -> list[ColumnProfile]:
        """Returns the columns that have no role and no reserved name."""
        return [column for column in self.columns if column.name not in used and column.name not in _RESERVED]


@dataclass(frozen=True)
class StarterInputs:
    """Everything that the configuration is derived from."""

    name: str
    timezone: str
    user: StarterTable
    item: StarterTable
    log: StarterTable
    roles: Roles
    facts: LogFacts

    @property
    def funnel(self) -> list[str]:
        """Returns the events from the widest to the narrowest: by name if every name is known, else by number of rows."""
        return order_events(list(self.facts.events))

    @property
    def exposure(self) -> list[str]:
        """Returns the events that are exposures."""
        return [event for event in self.funnel if is_exposure(event)]

    @property
    def positive(self) -> list[str]:
        """Returns the events that are positive: all but exposures and those that undo an interaction, such as a cancellation."""
        return [event for event in self.funnel if is_positive(event)] or self.funnel[-1:]

    @property
    def items(self) -> int:
        """Returns the number of rows of the item table."""
        return self.item.columns[0].rows if self.item.columns else 0

    @property
    def settings(self) -> StarterSettings:
        """Returns the settings that fit the habits of the log."""
        count = sum(self.facts.events[event] for event in self.positive)
        habits = self.facts.habits or LogHabits.unknown(count, self.facts.days)
        return choose_settings(habits, self.facts.days, self.items, CODE)

    @property
    def window_days(self) -> int:
        """Returns the days of the window."""
        return int(self.settings.window[0].value)

    @property
    def values(self) -> list[str]:
        """Returns the columns of the log that can be summed."""
        return [column.name for column in self._log_rest() if column.kind is ValueKind.NUMBER]

    @property
    def contexts(self) -> list[str]:
        """Returns the columns of the log that may be known at request time."""
        kinds = (ValueKind.TEXT, ValueKind.BOOLEAN)
        return [column.name for column in self._log_rest() if column.kind in kinds and 1 < column.distinct <= _MANY]

    @property
    def history(self) -> list[str]:
        """Returns the item columns of histories: the two repeating categories with the most values."""
        texts = [
            column for column in self.item.rest(self.roles.item_key) if is_category(column) and column.kind is ValueKind.TEXT
        ]
        repeating = [column for column in texts if 1 < column.distinct <= max(2, column.rows // 2)]
        return [column.name for column in sorted(repeating, key=lambda column: -column.distinct)[:2]]

    def _log_rest(self) -> list[ColumnProfile]:
        roles = self.roles
        return self.log.rest(roles.user_id, roles.item_id, roles.event_time, roles.event)


def is_exposure(event: str) -> bool:
    """Returns whether an event's name says that an item was shown."""
    return bool(_EXPOSURE.match(event))


def is_positive(event: str) -> bool:
    """Returns whether an event's name says neither that an item was shown nor that an interaction was undone."""
    return not is_exposure(event) and not _UNDONE.search(event)


def order_events(events: Sequence[str]) -> list[str]:
    """Returns events from the widest to the narrowest if every name is known, else as given."""
    ranks = {event: next((rank for rank, word in enumerate(_STAGES) if word.search(event)), None) for event in events}
    known = {event: rank for event, rank in ranks.items() if rank is not None}
    return sorted(events, key=lambda event: known[event]) if len(known) == len(events) else list(events)


def is_category(column: ColumnProfile) -> bool:
    """Returns whether a column becomes an id_feature: repeating text, booleans, few distinct integers."""
    if column.kind is ValueKind.INTEGER:
        return column.distinct <= _FEW
    if column.kind is ValueKind.TEXT:
        return column.distinct <= max(_MANY, (column.rows - column.missing) // 2)
    return column.kind is ValueKind.BOOLEAN


def is_number(column: ColumnProfile) -> bool:
    """Returns whether a column becomes a raw_feature."""
    return column.kind is ValueKind.NUMBER or (column.kind is ValueKind.INTEGER and not is_category(column))


def starter_fg(inputs: StarterInputs) -> dict[str, Any]:
    """Returns the feature definitions: profile columns, counts of the user, the item and its columns, hour, history."""
    features: list[dict[str, Any]] = []
    names: set[str] = {"item", CODE}

    def add(side: str, name: str, column: str, kind: str, **more: Any) -> None:
        unique = name if name not in names else f"{side}_{name}"
        names.add(unique)
        features.append({"feature_name": unique, "feature_type": kind, "expression": f"{side}:{column}", **more})

    for column in inputs.user.rest(inputs.roles.user_key):
        _add_column(add, "user", column)
    for days in (days for days in (1, 7, 30) if days == 1 or days <= inputs.window_days):
        for event in inputs.positive:
            count = plan.event_count(event, days)
            add("user", f"user_{count}", count, "raw_feature", default_value="")
    add("user", "user_days_since_last_event", "days_since_last_event", "raw_feature", default_value="")
    for name in ("item", CODE):
        features.append({"feature_name": name, "feature_type": "id_feature", "expression": "item:item_id", "value_dim": 1})
    shared = {}
    for column in inputs.item.rest(inputs.roles.item_key):
        _add_column(add, "item", column)
        if features[-1]["expression"] == f"item:{column.name}":
            shared[column.name] = features[-1]["feature_name"]
    add("context", "request_hour", "hour", "id_feature", value_dim=1)
    for name in inputs.contexts:
        add("context", f"request_{name}", name, "id_feature", value_dim=1)
    inner = [
        {"feature_name": name, "feature_type": "id_feature", "expression": "user:item_ids", "embedding_name": name}
        for name in ("item", CODE)
    ]
    for name in inputs.history:
        inner.append(
            {"feature_name": name, "feature_type": "id_feature", "expression": f"user:{name}", "embedding_name": shared[name]}
        )
    sequence = {"feature_type": "sequence_feature", "sequence_name": "history", "sequence_length": 50, "sequence_delim": ";"}
    return {"features": [*features, {**sequence, "features": inner}]}


def _add_column(add: Any, side: str, column: ColumnProfile) -> None:
    if is_category(column):
        add(side, column.name, column.name, "id_feature", value_dim=1)
    elif is_number(column):
        add(side, column.name, column.name, "raw_feature", default_value="")


def fg_json(fg: Mapping[str, Any]) -> str:
    """Returns the definitions as JSON, one feature per line."""
    lines = ",\n  ".join(json.dumps(feature, ensure_ascii=False) for feature in fg["features"])
    return '{\n "features": [\n  ' + lines + "\n ]\n}\n"


def unused_columns(columns: Sequence[ColumnProfile]) -> list[str]:
    """Returns the columns that do not become features, each with a short description."""
    return [f"{column.name}: {column.summary}" for column in columns if not is_category(column) and not is_number(column)]


def config_yaml(inputs: StarterInputs) -> str:
    """Returns the configuration as a YAML file."""
    facts, roles = inputs.facts, inputs.roles
    lines = [
        "# Written by `dssm-assets init` from a survey of the tables. Every choice is a guess, explained in its comment:",
        "# read the file once, correct it, then run: dssm-assets validate --config THIS_FILE",
        f"name: {inputs.name}",
        "",
        "calendar:",
        f"  start: {facts.first}           # the log's first day",
        f"  end: {facts.last}             # the log's last day; remove this line for a log that grows every day",
        f"  timezone: {inputs.timezone}             # zone of days, hours and weekdays",
        "",
        "tables:",
        *_table_lines("user", inputs.user, {"user_id": roles.user_key}),
        *_table_lines("item", inputs.item, {"item_id": roles.item_key}),
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
        *_lines(inputs.settings.window),
        "",
        "raw_features:",
        "  statistic_days: [1, 7, 30]  # windows of counts, e.g. user:" + f"{_plain(inputs.positive[-1])}_count_7d",
        f"  history_columns: {_list(inputs.history)}   # item columns stored with each item of a user's history",
        "  preference_columns: []      # item columns whose values are counted per user, for lookup_feature",
        "",
        "features:",
        f"  fg_path: {FG_FILE}            # see docs/feature_generation.md, which also lists the statistics of users and items",
        *_unused_column_comments("user", inputs.user.rest(roles.user_key)),
        *_unused_column_comments("item", inputs.item.rest(roles.item_key)),
        "",
        "statistics:",
        *_lines(inputs.settings.statistics),
        "",
        "model:",
        *_lines(inputs.settings.model),
        "",
        "training:",
        *_lines(inputs.settings.training),
        "",
        "evaluation:",
        f"  k: {_cut_offs(inputs)}",
        *_lines(inputs.settings.evaluation),
        "",
        "# storage: {root: 's3://bucket/prefix'}     # default: the folder `tables` in the home folder",
        "# platform: {owners: ['team:recommendation'], trigger: schedule, schedule_at: '03:00'}",
    ]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _table_lines(side: str, source: StarterTable, columns: dict[str, str]) -> list[str]:
    mapped = {ours: theirs for ours, theirs in columns.items() if ours != theirs}
    lines = [
        f"  {side}:                       # {source.columns[0].rows:,} rows" if source.columns else f"  {side}:",
        f"    uri: {_scalar(source.uri)}",
        f"    format: {source.format}",
        f"    layout: {source.layout}",
    ]
    return [*lines, f"    columns: {_map(mapped)}"] if mapped else lines


def _log_lines(inputs: StarterInputs) -> list[str]:
    roles = inputs.roles
    columns = {"user_id": roles.user_id, "item_id": roles.item_id, "event_time": roles.event_time}
    if roles.event is not None:
        columns["event"] = roles.event
    lines = _table_lines("behavior", inputs.log, columns)
    if roles.event is None:
        lines.append(
            f"    constant_event: {CONSTANT_EVENT}          # no column of event names was found: every row gets this event"
        )
    if inputs.values:
        lines.append(f"    value_columns: {_list(inputs.values)}    # numbers to sum per user and item")
    if inputs.contexts:
        lines.append(f"    context_columns: {_list(inputs.contexts)}  # keep only columns that are known at request time")
    if inputs.facts.empty_days:
        lines.append(
            f"    allow_empty_days: true    # {inputs.facts.empty_days} days have no rows: correct, or is data missing?"
        )
    return lines


def _unused_column_comments(side: str, columns: Sequence[ColumnProfile]) -> list[str]:
    return [f"  # not a feature: {side}.{column}" for column in unused_columns(columns)]


def _lines(lines: Sequence[Line]) -> list[str]:
    return [f"  {line.key}: {line.value}" + (f"    # {line.reason}" if line.reason else "") for line in lines]


def _cut_offs(inputs: StarterInputs) -> list[int]:
    return [k for k in (10, 50, 100, 200) if k < inputs.items] or [max(1, inputs.items // 2)]


def _plain(event: str) -> str:
    return event.replace("\n", " ")


def _scalar(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _list(texts: Sequence[str]) -> str:
    return "[" + ", ".join(map(_scalar, texts)) + "]"


def _map(texts: dict[str, str]) -> str:
    return "{" + ", ".join(f"{key}: {_scalar(value)}" for key, value in texts.items()) + "}"
