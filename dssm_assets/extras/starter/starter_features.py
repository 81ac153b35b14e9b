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

    def add(side: str, name: str, column: str, kind: str, **more: Any) -> None:
        unique = name if name not in names else f"{side}_{name}"
        names.add(unique)
        features.append({"feature_name": unique, "feature_type": kind, "expression": f"{side}:{column}", **more})

    _add_attributes(add, inputs, "user")
    window = inputs.settings.evaluation_days.window
    for days in (days for days in (1, 7, 30) if days == 1 or days <= window):
        for event in inputs.positive:
            count = plan.event_count(event, days)
            add("user", f"user_{count}", count, "raw_feature", default_value="")
    add("user", "user_days_since_last_event", "days_since_last_event", "raw_feature", default_value="")
    for name in ("item", CODE):
        features.append({"feature_name": name, "feature_type": "id_feature", "expression": "item:item_id", "value_dim": 1})
    _add_attributes(add, inputs, "item")
    shared = {feature["expression"].removeprefix("item:"): feature["feature_name"] for feature in features}
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


def _add_attributes(add: Any, inputs: StarterInputs, side: str) -> None:
    for column in inputs.attributes(side):
        if is_category(column):
            separator = list_separator(column)
            shape: dict[str, Any] = {"value_dim": 1} if separator is None else {"separator": separator}
            if column.kind is ValueKind.LIST:
                shape = {}
            add(side, column.name, column.name, "id_feature", **shape)
        elif is_number(column):
            add(side, column.name, column.name, "raw_feature", default_value="")
    for column in inputs.times(side):
        age = plan.days_since_time(column.name)
        add(side, age, age, "raw_feature", default_value="")


def unused_columns(inputs: StarterInputs, side: str) -> list[str]:
    """Returns the columns of a side that do not become features, each with the reason or a short description."""
    return [
        f"{column.name}: {_reason(inputs, side, column)}"
        for column in inputs.attributes(side)
        if not (is_category(column) or is_number(column) or column in inputs.times(side))
    ]


def _reason(inputs: StarterInputs, side: str, column: ColumnProfile) -> str:
    if is_time(column) and inputs.has_look_ahead(side, column):
        fraction = inputs.look_ahead[side, column.name]
        return (
            f"look-ahead: of {fraction:.0%} of the {side}s it is later than their first event, so it was written afterwards "
            "and tells what a day could not know"
        )
    if len(column.time_formats) > 1:
        return f"{column.summary}: times, if you know the order of day and month; name it in time_format and time_columns"
    return column.summary
