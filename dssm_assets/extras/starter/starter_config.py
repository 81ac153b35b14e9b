"""config.yaml and fg.json of a first configuration, from the facts of surveyed tables and the filled-in `templates/`."""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Iterator, Mapping
from string import Template
from typing import Any, Final

from dssm_assets.core.config.pipeline import PipelineConfig
from dssm_assets.core.features_raw import plan
from dssm_assets.core.samples.sample_tables import NON_FEATURE_COLUMNS
from dssm_assets.extras.starter.column_roles import ColumnProfile, ValueKind, is_time, list_separator
from dssm_assets.extras.starter.starter_inputs import CODE, CONSTANT_EVENT, StarterInputs, is_category, is_number
from dssm_assets.extras.starter.starter_settings import Recipe
from dssm_assets.extras.starter.table_survey import TableSurvey

_LONGEST: Final = [10, 50, 100, 200]
"""Lengths of lists of a corpus that is large enough."""
_ITEMS_PER_PLACE: Final = 8
"""Items for each place of the longest list."""
_SHORTER: Final = (1, 2, 5, 10, 20, 50, 100)


def config_yaml(inputs: StarterInputs) -> str:
    """Returns the configuration as a YAML file."""
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
    text = "\n".join(_fill("start", values))
    return "".join(f"{line.rstrip()}\n" for line in text.split("\n"))


def fill_template(recipe: Recipe, values: Mapping[str, object]) -> Iterator[str]:
    """Yields the lines of a recipe's template with their values, without lines whose value is None.

    A key without a comment gets the description that its section of the configuration gives it.
    """
    section = ""
    for line in _fill(recipe, values):
        key, colon, value = line.partition(":")
        if colon and not value:
            section = key
        if colon and value and "#" not in line:
            fields = PipelineConfig.model_fields[section].annotation.model_fields  # type: ignore[union-attr]
            yield f"{line}    # {(fields[key.strip()].description or '').split('. ')[0].rstrip('.')}"
        else:
            yield line


def _fill(name: str, values: Mapping[str, object]) -> Iterator[str]:
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
    return "\n".join(_fill("table", {**plain, **texts, "columns": ", ".join(mapped) or None, **more}))


def _how_to_use(inputs: StarterInputs, column: ColumnProfile) -> str:
    if column.name in inputs.item_columns:
        return "it follows from the item, so no request knows it: give it in a table of items, with --item"
    if column.kind in (ValueKind.LIST, ValueKind.OTHER):
        return "its values cannot be used"
    return "list it in value_columns (summed), context_columns or keep"


def choose_cut_offs(items: int) -> list[int]:
    """Returns the lengths of lists that are scored: up to 200, but no more than an eighth of the items.

    Any list of 200 of 300 items finds most: rates near 1 tell no scorer from another.
    """
    most = max(1, items // _ITEMS_PER_PLACE)
    if most >= _LONGEST[-1]:
        return _LONGEST
    return [k for k in _SHORTER if k <= most][-len(_LONGEST) :]


def _inline(value: Any) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False)


def _unused_columns(inputs: StarterInputs, side: str) -> list[str]:
    """Returns the columns of a side that do not become features, each with the reason or a short description."""
    return [
        f"{column.name}: {_reason(inputs, side, column)}"
        for column in inputs.attributes(side)
        if not (is_category(column) or is_number(column) or column in inputs.times(side))
    ]


def _reason(inputs: StarterInputs, side: str, column: ColumnProfile) -> str:
    if is_time(column) and inputs.has_look_ahead(side, column):
        later = f"look-ahead: of {inputs.look_ahead[side, column.name]:.0%} of the {side}s it is later than their first event"
        return f"{later}, so it was written afterwards and tells what a day could not know"
    if len(column.time_formats) > 1:
        return f"{column.summary}: times, if you know the order of day and month; name it in time_format and time_columns"
    return column.summary


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
