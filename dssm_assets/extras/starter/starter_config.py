"""Writes a first config.yaml and fg.json from facts about the tables and the files in `templates/`."""

from __future__ import annotations

import datetime as dt
import importlib.resources
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from string import Template
from typing import Any, Final

from dssm_assets.core.features_raw import plan
from dssm_assets.core.samples.sample_tables import NON_FEATURE_COLUMNS
from dssm_assets.extras.starter.column_roles import EVENT_STAGES, ColumnProfile, Roles, ValueKind, is_time, list_separator
from dssm_assets.extras.starter.log_table import LogHabits, to_date
from dssm_assets.extras.starter.starter_settings import Recipe, StarterSettings, choose_settings
from dssm_assets.extras.starter.table_survey import TableSurvey

_LONGEST: Final = [10, 50, 100, 200]
"""Lengths of lists for a corpus that is large enough."""
_ITEMS_PER_PLACE: Final = 8
"""The longest list may have one position per so many items."""
_SHORTER: Final = (1, 2, 5, 10, 20, 50, 100)
CONSTANT_EVENT: Final = "act"
CODE: Final = "item_code"
"""Feature and embedding of the item's closed-form code: the item once more, under another name. The templates name it too."""
MAX_LOOK_AHEAD: Final = 0.01
"""If at least this fraction of ids has a time after its first event, the column holds values from the future."""
_FEW_VALUES: Final = 20
"""Up to so many distinct integers are categories, whatever the column's name."""
_FEW_KNOWN: Final = 0.05
"""User ids hardly ever come back if a smaller fraction of events is by users with an event on an earlier day."""
_FEW_CODES: Final = 200
"""Up to so many distinct integers are categories if they count up from 0 or 1 without gaps."""
_MANY: Final = 1000
"""Up to so many distinct texts are categories even if they rarely repeat; beyond it, free text."""
_RESERVED: Final = {"user_id", "item_id", "ds", "event", "event_time", "event_time_ms", "request_id", "hour", "weekday"}
"""Columns of a table that have a meaning of their own."""
_QUANTITY: Final = re.compile(
    r"(^|_)age|year|count|num|qty|quantity|price|amount|size|length|duration|score|rating|weight|days|minutes|seconds|total|rank",
    re.IGNORECASE,
)
"""Names of numbers with a meaningful order."""
_CODE: Final = re.compile(
    r"code|type|kind|categ|class|group|segment|region|city|zip|country|state|channel|brand|gender|sex|occupation|status|lang|"
    r"genre|_id$",
    re.IGNORECASE,
)
"""Names of integers that stand for something else."""
_EXPOSURE: Final = re.compile(r"^(expr|expos\w*|impression\w*|imp|imps|show\w*|display\w*)$", re.IGNORECASE)
_UNDONE: Final = re.compile(
    r"cancel|refund|return|dislike|unlike|unfav|unfollow|unsubscribe|remove|delete|hide|block|report", re.IGNORECASE
)


@dataclass(frozen=True)
class StarterInputs:
    """The facts behind a first configuration; a missing user or item table is None.

    Attributes:
        path: path of config.yaml.
        events: event -> rows, the most frequent first.
        first, last: days of the log; `empty_days` between them have no rows.
        strays: rows left out because their days are far from all others.
        tail: number of positive events in a thin tail, which the habits leave out.
        habits: habits in the log's positive events.
        log_items: distinct items of all events.
        item_columns: columns of the log that follow from the item.
        example_user: a user with a history on every later day.
        look_ahead: (side, column) -> fraction of ids whose time lies after their first event.
        recipe: the requested recipe.
    """

    path: Path
    name: str
    timezone: str
    user: TableSurvey | None
    item: TableSurvey | None
    log: TableSurvey
    roles: Roles
    events: Mapping[str, int]
    first: dt.date
    last: dt.date
    empty_days: int
    strays: int
    tail: int
    habits: LogHabits
    log_items: int
    item_columns: frozenset[str]
    look_ahead: Mapping[tuple[str, str], float]
    example_user: str
    recipe: Recipe | None = None

    def side(self, side: str) -> tuple[TableSurvey | None, str | None]:
        return (self.user, self.roles.user_key) if side == "user" else (self.item, self.roles.item_key)

    @property
    def funnel(self) -> list[str]:
        return order_events(list(self.events))

    @property
    def exposure(self) -> list[str]:
        return [event for event in self.funnel if _EXPOSURE.match(event)]

    @property
    def positive(self) -> list[str]:
        return positive_events(self.funnel)

    @property
    def items(self) -> int:
        """Returns the number of items: rows of the item table, or distinct ids in the log."""
        return self.log_items if self.item is None else self.item.rows

    @property
    def incomplete_rows(self) -> str:
        """Writes how many rows of the log lack a user, item or time. Empty if no row does."""
        ids = (self.roles.user_id, self.roles.item_id)
        needed = [column for column in self.log.columns if column.name in (*ids, self.roles.event_time)]
        lacking = [f"{column.missing:,} of {column.rows:,} rows have no {column.name}" for column in needed if column.missing]
        named = [column for column in needed if column.name in ids and column.no_ids]
        in_place = [f"rows have {', '.join(sorted(column.no_ids))} in place of {column.name}" for column in named]
        return "; ".join(lacking or in_place)

    @property
    def notes(self) -> list[str]:
        """Returns points to check first, such as roles guessed from the order of columns, or user ids that do not come back."""
        roles, known_frac, notes = self.roles, self.habits.known_frac, []
        if self.log.table.column_names is not None:
            notes.append(
                f"{self.log.table.uri} has no header line: by their order, users are in {roles.user_id}, items in {roles.item_id} and "
                f"times in {roles.event_time}; --user-id, --item-id and --event-time name others"
            )
        for table in (survey.table for survey in (self.user, self.item, self.log) if survey is not None):
            if table.encoding is not None:
                check = "look at a name, and correct the key encoding if it is wrong"
                notes.append(f"{table.uri} is not in UTF-8: read as {table.encoding}; {check}")
        if self.incomplete_rows:
            notes.append(f"{self.incomplete_rows}: they are left out")
        if self.strays:
            notes.append(
                f"{self.strays:,} rows have times ahead of today, or far before all others: they are outside the calendar"
            )
        if self.settings.start > self.first:
            notes.append(
                f"the calendar begins on {self.settings.start}, the log on {self.first}: every day has partitions, however few its events, "
                "and a first hit rate should take minutes. An earlier calendar.start knows more, with a longer window.days"
            )
        if self.tail:
            end = to_date(self.habits.days[-1])
            notes.append(
                f"a thin tail: the last {(self.last - end).days:,} days have {self.tail:,} positive events, the "
                f"{(end - self.first).days + 1:,} days before them {self.habits.day_events.sum():,}; settings and first commands are for "
                f"days until {end}"
            )
        if known_frac < _FEW_KNOWN:
            notes.append(
                f"{known_frac:.1%} of recent events are by ids in {roles.user_id} that have an earlier day: if they are orders or sessions, "
                "name the users with --user-id"
            )
        return notes

    @cached_property
    def settings(self) -> StarterSettings:
        return choose_settings(self.habits, self.first, items=self.items, recipe=self.recipe)

    def attributes(self, side: str) -> list[ColumnProfile]:
        """Returns the columns of the user or item table without a role."""
        survey, key = self.side(side)
        return [] if survey is None else [column for column in survey.columns if column.name not in (key, *_RESERVED)]

    def times(self, side: str) -> list[ColumnProfile]:
        """Returns the user or item columns with times in one format that do not look ahead."""
        survey, _ = self.side(side)
        times = [column for column in self.attributes(side) if is_time(column) and not self.has_look_ahead(side, column)]
        return [column for column in times if survey is not None and column.reads_times_with(survey.table.time_format)]

    def has_look_ahead(self, side: str, column: ColumnProfile) -> bool:
        """Returns whether more than a few ids have a time in the column that lies after their first event."""
        return self.look_ahead.get((side, column.name), 0.0) > MAX_LOOK_AHEAD

    @property
    def values(self) -> list[str]:
        return [column.name for column in rest_of_log(self.log, self.roles) if column.kind is ValueKind.NUMBER]

    @property
    def contexts(self) -> list[str]:
        """Returns the columns of the log that a request may know. Columns that the item determines are left out."""
        return [name for name in find_contexts(rest_of_log(self.log, self.roles)) if name not in self.item_columns]

    @property
    def unused(self) -> list[ColumnProfile]:
        used = {*self.values, *self.contexts}
        return [column for column in rest_of_log(self.log, self.roles) if column.name not in used]

    @property
    def history(self) -> list[str]:
        """Returns the item columns for histories: the two repeating categories with the most values, no lists."""
        texts = [column for column in self.attributes("item") if column.kind is ValueKind.TEXT and is_category(column)]
        repeating = [column for column in texts if 1 < column.distinct <= max(2, column.rows // 2)]
        single = [column for column in repeating if list_separator(column) is None]
        return [column.name for column in sorted(single, key=lambda column: -column.distinct)[:2]]


def rest_of_log(log: TableSurvey, roles: Roles) -> list[ColumnProfile]:
    """Returns the columns of a log that have neither a role nor a reserved name."""
    return [column for column in log.columns if column.name not in {*roles.of_log, *_RESERVED}]


def find_contexts(columns: Sequence[ColumnProfile]) -> list[str]:
    """Returns the columns with few texts or booleans. Times are left out, because a past day does not come again."""
    few = [column for column in columns if column.kind in (ValueKind.TEXT, ValueKind.BOOLEAN) and 1 < column.distinct <= _MANY]
    return [column.name for column in few if not (is_time(column) or column.time_formats)]


def positive_events(funnel: Sequence[str]) -> list[str]:
    """Returns all events except exposures and cancellations; the last event if there is no other."""
    return [event for event in funnel if not _EXPOSURE.match(event) and not _UNDONE.search(event)] or [*funnel[-1:]]


def order_events(events: Sequence[str]) -> list[str]:
    """Returns events from the widest to the narrowest if every name is known, else as given."""
    ranks = {event: next((rank for rank, word in enumerate(EVENT_STAGES) if word.search(event)), -1) for event in events}
    return list(events) if -1 in ranks.values() else sorted(events, key=lambda event: ranks[event])


def is_category(column: ColumnProfile) -> bool:
    """Returns whether a column becomes an id_feature: repeating text, lists, booleans, integers that are codes.

    Integers are codes in three cases: there are very few; they are few and run from 0 or 1 without gaps, such as occupations
    0 to 20; or they have the name of a code and repeat, such as postcodes.
    """
    if is_time(column) or column.time_formats:
        return False
    repeats = column.distinct <= (column.rows - column.missing) // 2
    if column.kind is ValueKind.TEXT:
        return repeats or column.distinct <= _MANY or list_separator(column) is not None
    if column.kind is not ValueKind.INTEGER:
        return column.kind is ValueKind.BOOLEAN or (column.kind is ValueKind.LIST and bool(column.distinct))
    if column.distinct <= _FEW_VALUES or _CODE.search(column.name):
        return column.distinct <= _FEW_VALUES or repeats
    is_dense = column.low in (0.0, 1.0) and column.high == column.low + column.distinct - 1
    return repeats and is_dense and column.distinct <= _FEW_CODES and not _QUANTITY.search(column.name)


def is_number(column: ColumnProfile) -> bool:
    is_numeric = column.kind in (ValueKind.NUMBER, ValueKind.INTEGER)
    return is_numeric and not is_category(column) and not is_time(column)


def config_yaml(inputs: StarterInputs) -> str:
    settings = inputs.settings
    unused = [f"  # not a feature: {side}.{column}" for side in ("user", "item") for column in _unused_columns(inputs, side)]
    values = {
        "recipe": settings.recipe,
        "reason": settings.recipe_reason,
        "evaluation_days": settings.evaluation_days.sentence,
        "notes": "\n".join(f"# Note: {note}." for note in inputs.notes) or None,
        "name": inputs.name,
        "start": settings.start,
        "first": inputs.first,
        "last": inputs.last,
        "timezone": inputs.timezone,
        "user": _entity(inputs, "user"),
        "item": _entity(inputs, "item"),
        "behavior": _log(inputs),
        "counts": "\n".join(f"  # {event}: {count:,} rows" for event, count in inputs.events.items()),
        "funnel": _inline(inputs.funnel),
        "positive": _inline(inputs.positive),
        "exposure": _inline(inputs.exposure or None),
        "counted": inputs.positive[-1].replace("\n", " "),
        "history": _inline(inputs.history),
        "unused": "\n".join(unused) or None,
        "settings": "\n".join(fill_template(settings.recipe, {**settings.values, "k": choose_cut_offs(inputs.items)})),
    }
    text = "\n".join(fill_template("start", values))
    return "".join(f"{line.rstrip()}\n" for line in text.split("\n"))


def fill_template(name: str, values: Mapping[str, object]) -> Iterator[str]:
    """Fills in the lines of a template; lines with the value None are left out."""
    template = importlib.resources.files("dssm_assets.extras.starter").joinpath("templates", f"{name}.yaml")
    for line in map(Template, template.read_text(encoding="utf-8").splitlines()):
        if all(values.get(name) is not None for name in line.get_identifiers()):
            yield line.substitute(values)


def _entity(inputs: StarterInputs, side: str) -> str:
    survey, key = inputs.side(side)
    if survey is None:
        return f"  # no table of {side}s: they are the ids of the log"
    times = [column.name for column in inputs.times(side)]
    return _table(side, survey, {f"{side}_id": key}, time_columns=_inline(times or None))


def _log(inputs: StarterInputs) -> str:
    roles = inputs.roles
    unused = [f"    # not used: {column.name} ({column.summary}); {_how_to_use(inputs, column)}" for column in inputs.unused]
    return _table(
        "behavior",
        inputs.log,
        {"user_id": roles.user_id, "item_id": roles.item_id, "event_time": roles.event_time, "event": roles.event},
        incomplete_rows=inputs.incomplete_rows or None,
        clock_column=_inline(roles.clock),
        constant_event=CONSTANT_EVENT if roles.event is None else None,
        value_columns=_inline(inputs.values or None),
        context_columns=_inline(inputs.contexts or None),
        unused="\n".join(unused) or None,
        empty_days=inputs.empty_days or None,
    )


def _table(side: str, survey: TableSurvey, columns: Mapping[str, str | None], **more: object) -> str:
    table = survey.table
    mapped = [f"{ours}: {_inline(theirs)}" for ours, theirs in columns.items() if theirs not in (ours, None)]
    plain = {
        "side": side,
        "rows": f"{survey.rows:,}",
        "format": table.format,
        "layout": table.layout,
        "encoding": table.encoding,
    }
    texts = {name: _inline(getattr(table, name)) for name in ("uri", "table", "column_names", "time_format", "decimal_mark")}
    return "\n".join(fill_template("table", {**plain, **texts, "columns": ", ".join(mapped) or None, **more}))


def _how_to_use(inputs: StarterInputs, column: ColumnProfile) -> str:
    if column.name in inputs.item_columns:
        return "it follows from the item, so no request knows it: give it in a table of items, with --item"
    if column.kind in (ValueKind.LIST, ValueKind.OTHER):
        return "its values cannot be used"
    return "list it in value_columns (summed), context_columns or keep"


def choose_cut_offs(items: int) -> list[int]:
    """Returns the lengths of lists to score: up to 200, but at most an eighth of the items.

    In a list of 200 out of 300 items most would be found: rates near 1 cannot tell scorers apart.
    """
    most = max(1, items // _ITEMS_PER_PLACE)
    if most >= _LONGEST[-1]:
        return _LONGEST
    return [k for k in _SHORTER if k <= most][-len(_LONGEST) :]


def _inline(value: Any) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False)


def _unused_columns(inputs: StarterInputs, side: str) -> Iterator[str]:
    for column in inputs.attributes(side):
        if is_category(column) or is_number(column) or column in inputs.times(side):
            continue
        reason = column.summary
        if is_time(column) and inputs.has_look_ahead(side, column):
            frac = f"of {inputs.look_ahead[side, column.name]:.0%} of the {side}s it is later than their first event"
            reason = f"look-ahead: {frac}, so it was written afterwards and tells what a day could not know"
        elif len(column.time_formats) > 1:
            reason += ": times, if you know the order of day and month; name it in time_format and time_columns"
        yield f"{column.name}: {reason}"


def starter_fg(inputs: StarterInputs) -> dict[str, Any]:
    """Returns the feature definitions: profile columns, counts of the user, the item and its columns, hour, history."""
    features: list[dict[str, Any]] = []
    names: set[str] = {"item", CODE}.union(*NON_FEATURE_COLUMNS.values())

    def add(side: str, name: str, column: str, **shape: Any) -> None:
        unique = name if name not in names else f"{side}_{name}"
        names.add(unique)
        kind = "raw_feature" if "default_value" in shape else "id_feature"
        features.append({"feature_name": unique, "feature_type": kind, "expression": f"{side}:{column}", **shape})

    def add_columns(side: str) -> None:
        for column in inputs.attributes(side):
            if is_category(column):
                separator = list_separator(column)
                shape: dict[str, Any] = {"value_dim": 1} if separator is None else {"separator": separator}
                add(side, column.name, column.name, **({} if column.kind is ValueKind.LIST else shape))
            elif is_number(column):
                add(side, column.name, column.name, default_value="")
        for column in inputs.times(side):
            age = plan.days_since_time(column.name)
            add(side, age, age, default_value="")

    add_columns("user")
    for days in (1, 7, 30):
        for event in inputs.positive if days <= max(1, inputs.settings.evaluation_days.window) else ():
            count = plan.event_count(event, days)
            add("user", f"user_{count}", count, default_value="")
    add("user", "user_days_since_last_event", "days_since_last_event", default_value="")
    for name in ("item", CODE):
        features.append({"feature_name": name, "feature_type": "id_feature", "expression": "item:item_id", "value_dim": 1})
    add_columns("item")
    shared = {feature["expression"].removeprefix("item:"): feature["feature_name"] for feature in features}
    for name in ("hour", *inputs.contexts):
        add("context", f"request_{name}", name, value_dim=1)
    elements = [
        ("item", "item_ids", "item"),
        (CODE, "item_ids", CODE),
        *((name, name, shared[name]) for name in inputs.history),
    ]
    inner = [
        {"feature_name": name, "feature_type": "id_feature", "expression": f"user:{column}", "embedding_name": table}
        for name, column, table in elements
    ]
    sequence = {"feature_type": "sequence_feature", "sequence_name": "history", "sequence_length": 50, "sequence_delim": ";"}
    return {"features": [*features, {**sequence, "features": inner}]}
