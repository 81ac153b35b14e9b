"""Contracts of the sample tables and of the Arrow files of train_samples, with the meaning of every column.

`user_row` has two meanings: in sample_fg it is a row of the previous day's user_features_fg, in train_samples a row of
user_rows.arrow. Likewise `item_row` is a row of item_features_fg, or of item_rows.arrow.

The Arrow files contain the descriptions of their columns, so a changed description changes the files' bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

import pyarrow as pa

from dssm_assets.core import columns as col
from dssm_assets.core.errors import Fault, SchemaError
from dssm_assets.core.file_names import TrainSamplesFile
from dssm_assets.core.schema import ColumnSpec, TableSpec, missing_columns
from dssm_assets.core.sources.canonical_tables import BEHAVIOR_TABLE

ITEM_INDEX: Final = "item_index"
"""Row of an item in negative_items and items.arrow."""
USER_INDEX: Final = "user_index"
"""Row of a user in users.arrow."""
HISTORY_START: Final = "history_start"
HISTORY_END: Final = "history_end"
DAY: Final = "day"

BASE_COLUMNS: Final = (
    *BEHAVIOR_TABLE.columns,
    ColumnSpec(col.LABEL, pa.int8(), "1 where the event is one of events.positive, else 0."),
    ColumnSpec(col.HOUR, pa.int32(), "Hour of the day (0-23) in calendar.timezone."),
    ColumnSpec(col.WEEKDAY, pa.int32(), "Day of the week (Monday is 0) in calendar.timezone."),
)
_DATE_COLUMNS = tuple(
    ColumnSpec(name, pa.string(), f"Day as of whose end the {side} features hold; null: {side} unknown by then.", True)
    for name, side in ((col.USER_FEATURE_DATE, "user"), (col.ITEM_FEATURE_DATE, "item"))
)
_FEATURE_ROWS = tuple(
    ColumnSpec(name, pa.int32(), f"Row of {side}_features_fg of the previous day; null: {side} unknown by then.", True)
    for name, side in ((col.USER_ROW, "user"), (col.ITEM_ROW, "item"))
)
_OF_WEIGHTS = {f"*{col.WEIGHTS_SUFFIX}": "Weight of each value of the feature before it; null where its list is."}
ROW_ORDER: Final = BEHAVIOR_TABLE.key
"""The first sort keys of sample tables; the other columns break ties."""

SAMPLE: Final = TableSpec(
    name="sample",
    grain="one row per positive or exposure event of the day (every event where no exposure is configured)",
    key=ROW_ORDER,
    columns=BASE_COLUMNS,
    extra={"*": "Context column: known at request time."},
)
SAMPLE_FG: Final = TableSpec(
    name="sample_fg",
    grain="one row per row of sample, with the rows of its features as of the previous day",
    key=ROW_ORDER,
    columns=BASE_COLUMNS + _DATE_COLUMNS + _FEATURE_ROWS,
    extra={"*": "Encoded context feature, or a context column.", **_OF_WEIGHTS},
    is_hot=True,
)
NON_FEATURE_COLUMNS: Final = {
    "user": (col.USER_ID, col.FEATURE_DATE),
    "item": (col.ITEM_ID, col.FEATURE_DATE, col.WEIGHT, col.COUNT),
    "context": tuple(column.name for column in SAMPLE_FG.columns),
}
"""Side of a feature -> names that a feature of this side must not have, because they are other columns of its tables."""

POSITIVE_SAMPLE: Final = replace(SAMPLE_FG, name="positive_sample", grain="one row per row of sample_fg whose label is 1")
NEGATIVE_ITEMS: Final = TableSpec(
    name="negative_items",
    grain="one row per item of the corpus: the items with features as of the day before the evaluation day",
    key=(col.ITEM_ID,),
    columns=(
        ColumnSpec(col.ITEM_ID, None, "The item. Its row number is its item_index."),
        ColumnSpec(col.WEIGHT, pa.float64(), "(count + 1) ** alpha: how often it is drawn as a negative, unnormalised."),
        ColumnSpec(col.COUNT, pa.int64(), "Positive events on the item in the window."),
    ),
    extra={"*": "Encoded item feature as of the day before the evaluation day.", **_OF_WEIGHTS},
)
TRAINING_WINDOW: Final = TableSpec(
    "training_window",
    "one row per table and day of its window",
    ("table", "day"),
    (
        ColumnSpec("table", pa.string(), "Table that training reads."),
        ColumnSpec("day", pa.string(), "Day of the window."),
        ColumnSpec("rows", pa.int64(), "Rows of that day; null if it was never materialized.", is_nullable=True),
        ColumnSpec("digest", pa.string(), "Digest of that day's content; null if it was never materialized.", is_nullable=True),
    ),
)

_COLUMNS: Final = {
    TrainSamplesFile.SAMPLES: (
        ColumnSpec(ITEM_INDEX, pa.int32(), "The positive item: row of negative_items and items.arrow."),
        ColumnSpec(USER_INDEX, pa.int32(), "The user: row of users.arrow, -1 for a user without any history."),
        ColumnSpec(
            HISTORY_END,
            pa.int64(),
            "End of the history that the sample sees: a row of history.arrow (0 where user_index is -1).",
        ),
        ColumnSpec(col.EVENT_TIME_MS, pa.int64(), "When the positive event happened."),
        ColumnSpec(col.WEIGHT, pa.float32(), "Weight of the sample in the loss."),
        ColumnSpec(DAY, pa.int32(), "Day of the window; 0 is the oldest."),
        ColumnSpec(col.USER_ROW, pa.int32(), "The user's features as of the day before: row of user_rows.arrow, 0 if unknown."),
        ColumnSpec(col.ITEM_ROW, pa.int32(), "The item's features as of the day before: row of item_rows.arrow, 0 if unknown."),
    ),
    TrainSamplesFile.HISTORY: (
        ColumnSpec(ITEM_INDEX, pa.int32(), "The item of the event: row of negative_items, -1 if it is not in the corpus."),
        ColumnSpec(col.EVENT_TIME_MS, pa.int64(), "When the event happened."),
    ),
    TrainSamplesFile.USERS: (
        ColumnSpec(col.USER_ID, None, "The user. Its row number is its user_index."),
        ColumnSpec(HISTORY_START, pa.int64(), "First row of the user in history.arrow."),
        ColumnSpec(HISTORY_END, pa.int64(), "Row after the user's last in history.arrow."),
    ),
    TrainSamplesFile.HARD_NEGATIVES: (
        ColumnSpec(USER_INDEX, pa.int32(), "The user: row of users.arrow."),
        ColumnSpec(
            ITEM_INDEX, pa.int32(), "An item that was shown but that the user never interacted with: row of items.arrow."
        ),
        ColumnSpec(DAY, pa.int32(), "Day of the window on which it was first shown; 0 is the oldest."),
    ),
    TrainSamplesFile.ITEMS: (ColumnSpec(col.WEIGHT, pa.float64(), "Weight of the item as a negative, unnormalised."),),
}
_FEATURE_TEXT = "Embedding index of the feature; 0 means missing."
_WEIGHTS_TEXT = "Weight of each value of the feature before it; a tower reads the mean of the values by these weights."
_WEIGHTS = pa.list_(pa.float32())


def file_schema(
    file: TrainSamplesFile, features: Mapping[str, pa.DataType] | None = None, *, id_type: pa.DataType | None = None
) -> pa.Schema:
    """Returns the schema of an Arrow file of train_samples.

    Args:
        features: name -> int32 (single-valued), list<int32> (multi-valued) or list<float32> (weights of the feature before
            it): context features in samples.arrow, sequence sub-features in history.arrow.
        id_type: type of the user ids in users.arrow.
    """
    fixed, kinds = _COLUMNS.get(file, ()), features or {}
    refuse_collisions(file, {"columns of its own": [spec.name for spec in fixed], "features": list(kinds)})
    texts = {feature: _WEIGHTS_TEXT if kind == _WEIGHTS else _FEATURE_TEXT for feature, kind in kinds.items()}
    described = [*fixed, *(ColumnSpec(feature, kind, texts[feature]) for feature, kind in kinds.items())]
    return pa.schema(
        [pa.field(spec.name, spec.type or id_type, spec.is_nullable, {"description": spec.description}) for spec in described]
    )


def require_types(where: str, schema: pa.Schema, expected: pa.Schema) -> None:
    """Raises a SchemaError with one fault per column that has another type than on the days before."""
    ours, theirs = ({field.name: str(field.type) for field in side} for side in (expected, schema))
    SchemaError.raise_if(
        Fault(
            f"{where}, column {name}",
            f"{ours.get(name, 'no such column')}, as on the days before",
            theirs.get(name, "no such column"),
            "write the days of the window again, with one fg.json",
        )
        for name in dict.fromkeys([*ours, *theirs])
        if ours.get(name) != theirs.get(name)
    )


def require_columns(where: str, present: Iterable[str], required: Iterable[str]) -> None:
    """Raises a SchemaError with one fault per required column that is missing."""
    SchemaError.raise_if(missing_columns(where, present, required, "write it, or give an existing column this name"))


def refuse_collisions(where: str, sources: Mapping[str, Sequence[str]]) -> None:
    """Raises a SchemaError with one fault per column name that occurs twice in the `sources`."""
    origins: dict[str, list[str]] = {}
    for source, columns in sources.items():
        for name in columns:
            origins.setdefault(name, []).append(source)
    SchemaError.raise_if(
        Fault(f"{where}, column {name}", "one source", f"it from {' and from '.join(found)}", "rename the feature in fg.json")
        for name, found in origins.items()
        if len(found) > 1
    )
