"""Feature definitions for surveyed tables: profile columns, ages, counts, the item, its columns and the history.

Belongs here: from columns to fg.json. Does not belong here: which columns are categories, numbers and times
(`starter_inputs.py`), settings (`starter_settings.py`).
"""

from __future__ import annotations

from typing import Any

from dssm_assets.core.features_raw import plan
from dssm_assets.core.samples.sample_tables import NON_FEATURE_COLUMNS
from dssm_assets.extras.starter.column_roles import ColumnProfile, ValueKind, is_time, list_separator
from dssm_assets.extras.starter.starter_inputs import CODE, StarterInputs, is_category, is_number


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


def unused_columns(inputs: StarterInputs, side: str) -> list[str]:
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
