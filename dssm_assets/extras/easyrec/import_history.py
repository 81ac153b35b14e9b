"""Sequences of EasyRec and TorchEasyRec as the one that towers read here, the user's positive events.

Belongs here: which column of an item a sequence has, and what its elements become. Does not belong here: features of a row
(`import_features.py`), poolings (`import_settings.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from dssm_assets.core import columns as col
from dssm_assets.core.features.operators.sequence_feature import SEQUENCE_FEATURE
from dssm_assets.extras.easyrec.feature_groups import (
    SEQUENCE_KINDS,
    FeatureGroups,
    IdFields,
    entry_column,
    entry_name,
    is_of_item,
    named_features,
)
from dssm_assets.extras.easyrec.field_reader import ImportRecord
from dssm_assets.extras.easyrec.reasons import REASONS

HISTORY: Final = "history"
"""Name of the sequence that EasyRec's sequence features become."""
_DEFAULT_LENGTH: Final = 50
"""Elements of a history whose length is not given, as of model.history_length."""
_NOT_OF_ELEMENTS: Final = {"sequence_length", "sequence_delim", "separator", "value_dim"}
_UNREAD: Final = "no tower reads it; it is left out"


def find_columns(
    sequences: list[dict[str, Any]],
    rows: list[dict[str, Any]],
    groups: FeatureGroups,
    ids: IdFields,
    record: ImportRecord,
    *,
    needs_history: bool,
) -> tuple[dict[str, str], list[str]]:
    """Returns feature of a sequence -> the item's column that it has, and the features for which nothing tells one.

    Told by `ids`, a shared embedding, the groups, an input of the item, or else by names, which is recorded as a difference.

    Args:
        sequences: definitions of sequences.
        rows: definitions of features of a row.
        needs_history: the only sequence, if nothing tells its column, has the ids of the user's items.
    """
    by_name = {entry_name(entry): entry for entry in rows}
    by_table = {
        entry["embedding_name"]: entry for entry in rows if entry_name(entry) in groups.item and "embedding_name" in entry
    }
    columns: dict[str, str | None] = {}
    read = ((entry, name, sub) for entry in sequences for name, sub in named_features(entry).items() if name in groups.names)
    for entry, name, sub in read:
        columns[name] = ids.of_sequences.get(name)
        shown = by_name.get(groups.keys.get(name, "")) or by_table.get(sub.get("embedding_name"))
        if columns[name] is not None:
            continue
        if shown is not None:
            columns[name] = entry_column(shown) if is_of_item(shown) else None
        elif "features" not in entry:
            columns[name] = named = _column_in_names(f"{name}_{entry_column(sub)}", rows, groups, ids)
            if named is not None:
                record.tell(
                    "Only names tell which column of an item a sequence has; --sequence-column FEATURE=COLUMN names another",
                    f"{name} is {named}",
                )
        elif sub["feature_type"] in SEQUENCE_KINDS.values():
            columns[name] = entry_column(sub).removeprefix(f"{entry_name(entry)}__")
    if needs_history and list(columns.values()) == [None]:
        columns = dict.fromkeys(columns, col.ITEM_ID)
        record.tell(
            "The only sequence is taken as the ids of the user's items; --sequence-column FEATURE=COLUMN names another column",
            *columns,
        )
    known = {name: col.ITEM_ID if column == ids.item else column for name, column in columns.items() if column is not None}
    return known, [name for name in columns if name not in known]


def _column_in_names(names: str, rows: list[dict[str, Any]], groups: FeatureGroups, ids: IdFields) -> str | None:
    """Returns the item's column that names of a sequence contain, whole or without `_id`: `brand` for `liked_brand_list`.

    The longest counts. None without such a column, or with two of one length.
    """
    by_length: dict[int, set[str]] = {}
    for entry in rows:
        if is_of_item(entry) and entry_name(entry) in groups.item:
            column = ids.item if entry_column(entry) == col.ITEM_ID else entry_column(entry)
            for text in (column, column.removesuffix("_id")):
                if f"_{text}" in f"_{names}":
                    by_length.setdefault(len(text), set()).add(column)
    longest = by_length[max(by_length)] if by_length else set()
    return min(longest) if len(longest) == 1 else None


def make_history(
    sequences: list[dict[str, Any]], columns: Mapping[str, str], groups: FeatureGroups, record: ImportRecord
) -> dict[str, Any] | None:
    """Returns the only sequence that the towers can read, the user's positive events, of those with known item columns."""
    read = [entry for entry in sequences if named_features(entry).keys() & groups.names]
    history = next((entry["sequence_name"] for entry in read if "features" in entry), HISTORY)
    lost = record.without_counterpart
    features: list[dict[str, Any]] = []
    lengths: dict[str, int] = {}
    for entry in sequences:
        name, is_group = entry_name(entry), "features" in entry
        if entry not in read or (is_group and name != history):
            other = f"towers read one history, the user's positive events, and {history} is it; this sequence is left out"
            lost[name] = _UNREAD if entry not in read else other
            continue
        for key in sorted(entry.keys() & {"sequence_delim", "sequence_pk"}) if is_group else ():
            lost[f"sequence {name}, {key}: {entry[key]!r}"] = REASONS[key]
        for own, sub in named_features(entry).items():
            if own not in columns:
                lost[own] = _UNREAD if own not in groups.names else (
                    "nothing tells which column of an item a sequence has (no embedding_name, seq_att_map or name joins it to a feature "
                    "of the item), so it is left out; --sequence-column FEATURE=COLUMN names one"
                )  # fmt: skip
                continue
            for key in sorted(sub.keys() & _NOT_OF_ELEMENTS - {"sequence_length"}):
                lost[f"feature {own}, {key}: {sub[key]!r}"] = "an element of the history is one value of a list"
            inner = {key: value for key, value in sub.items() if key not in _NOT_OF_ELEMENTS}
            inner["feature_type"] = SEQUENCE_KINDS.get(inner["feature_type"], inner["feature_type"])
            inner["expression"] = f"user:{col.ITEM_IDS if columns[own] == col.ITEM_ID else columns[own]}"
            features.append(inner)
            lengths[own] = entry.get("sequence_length") or 0
    if not features:
        return None
    length = max(lengths.values()) or _DEFAULT_LENGTH
    for own, shorter in lengths.items():
        if 0 < shorter < length:
            lost[f"feature {own}, sequence_length: {shorter}"] = "all features of the history have one length, the longest"
    record.tell(
        f"The sequence {history} is not read from a column of the samples: it is computed from the log, the user's positive "
        "events before the sample (model.history), so that it never holds the target."
    )
    return {
        "feature_type": SEQUENCE_FEATURE, "sequence_name": history, "oldest_first": True, "features": features,
        "sequence_length": length,
    }  # fmt: skip
