"""Sequences of EasyRec and TorchEasyRec as the one that towers read here, the user's positive events.

Belongs here: which column of an item a sequence has, and what its elements become. Does not belong here: features of a row
(`import_features.py`), poolings (`import_settings.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from dssm_assets.core import columns as col
from dssm_assets.core.features.expressions import Side
from dssm_assets.core.features.operators.sequence_feature import SEQUENCE_FEATURE
from dssm_assets.extras.easyrec.feature_groups import (
    FIELD_REASONS,
    SEQUENCE_KINDS,
    FeatureGroups,
    IdFields,
    entry_column,
    entry_name,
    is_read,
    sub_names,
)
from dssm_assets.extras.easyrec.field_reader import ImportRecord

HISTORY: Final = "history"
"""Name of the sequence that EasyRec's sequence features become."""

_DEFAULT_LENGTH: Final = 50
"""Elements of a history whose length is not given, as of model.history_length."""
_NOT_OF_ELEMENTS: Final = {"sequence_length", "sequence_delim", "separator", "value_dim"}


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
        entry.get("embedding_name"): entry for entry in rows if entry_name(entry) in groups.item and "embedding_name" in entry
    }
    found: dict[str, str | None] = {}
    for entry in sequences:
        grouped = "features" in entry
        for own, sub in zip(sub_names(entry), entry["features"] if grouped else [entry], strict=True):
            if own not in groups.names:
                continue
            shown = by_name.get(groups.keys.get(own, "")) or by_table.get(sub.get("embedding_name"))
            found[own] = ids.of_sequences.get(own) or _item_column(sub, shown, entry_name(entry), is_grouped=grouped)
            if found[own] is None and shown is None and not grouped:
                found[own] = named = _column_in_names(f"{own}_{entry_column(sub)}", rows, groups, ids)
                if named is not None:
                    record.tell(
                        "Only names tell which column of an item a sequence has; --sequence-column FEATURE=COLUMN names another",
                        f"{own} is {named}",
                    )
    if needs_history and list(found.values()) == [None]:
        found = dict.fromkeys(found, col.ITEM_ID)
        record.tell(
            "The only sequence is taken as the ids of the user's items; --sequence-column FEATURE=COLUMN names another column",
            *found,
        )
    known = {own: col.ITEM_ID if column == ids.item else column for own, column in found.items() if column is not None}
    return known, [own for own in found if own not in known]


def _column_in_names(names: str, rows: list[dict[str, Any]], groups: FeatureGroups, ids: IdFields) -> str | None:
    """Returns the item's column that names of a sequence have in them, whole or without `_id`: `brand` for `liked_brand_list`.

    The longest one counts. None if there is none, or two of one length.
    """
    found: dict[int, set[str]] = {}
    for entry in rows:
        if str(entry.get("expression")).startswith(f"{Side.ITEM}:") and entry_name(entry) in groups.item:
            column = ids.item if entry_column(entry) == col.ITEM_ID else entry_column(entry)
            for text in (column, column.removesuffix("_id")):
                if f"_{text}" in f"_{names}":
                    found.setdefault(len(text), set()).add(column)
    longest = found[max(found)] if found else set()
    return min(longest) if len(longest) == 1 else None


def make_history(
    sequences: list[dict[str, Any]], columns: Mapping[str, str], groups: FeatureGroups, record: ImportRecord
) -> dict[str, Any] | None:
    """Returns the one sequence that the towers can read, the user's positive events, of those whose item columns are known."""
    found: dict[str, Any] | None = None
    lengths: dict[str, int] = {}
    group_name = next(
        (entry["sequence_name"] for entry in sequences if "features" in entry and is_read(entry, groups)), HISTORY
    )
    for entry in sequences:
        name = entry_name(entry)
        if not is_read(entry, groups):
            record.without_counterpart[name] = "a sequence that no tower reads; it is left out"
            continue
        if "features" in entry and entry["sequence_name"] != group_name:
            reason = f"towers read one history, the user's positive events, and {group_name} is it; this sequence is left out"
            record.without_counterpart[name] = reason
            continue
        grouped = "features" in entry
        for key in sorted(entry.keys() & {"sequence_delim", "sequence_pk"}) if grouped else ():
            record.without_counterpart[f"sequence {name}, {key}: {entry[key]!r}"] = FIELD_REASONS[key]
        for own, sub in zip(sub_names(entry), entry["features"] if grouped else [entry], strict=True):
            if own not in groups.names:
                record.without_counterpart[own] = "no tower reads it; it is left out"
                continue
            if own not in columns:
                record.without_counterpart[own] = (
                    "nothing tells which column of an item a sequence has (no embedding_name, seq_att_map or name joins it to a feature "
                    "of the item), so it is left out; --sequence-column FEATURE=COLUMN names one"
                )
                continue
            column = columns[own]
            inner = {key: value for key, value in sub.items() if key not in _NOT_OF_ELEMENTS}
            for key in sorted(sub.keys() & _NOT_OF_ELEMENTS - {"sequence_length"}):
                record.without_counterpart[f"feature {own}, {key}: {sub[key]!r}"] = (
                    "an element of the history is one value of a list"
                )
            inner["feature_type"] = SEQUENCE_KINDS.get(inner["feature_type"], inner["feature_type"])
            inner["expression"] = f"user:{col.ITEM_IDS if column == col.ITEM_ID else column}"
            if found is None:
                found = {"feature_type": SEQUENCE_FEATURE, "sequence_name": group_name, "oldest_first": True, "features": []}
            found["features"].append(inner)
            lengths[own] = entry.get("sequence_length") or 0
    if found is not None:
        found["sequence_length"] = max(lengths.values()) or _DEFAULT_LENGTH
        for own, length in lengths.items():
            if 0 < length < found["sequence_length"]:
                reason = "the parts of the history have one length, the longest"
                record.without_counterpart[f"feature {own}, sequence_length: {length}"] = reason
        record.tell(
            f"The sequence {group_name} is not read from a column of the samples: it is computed from the log, the user's positive "
            "events before the sample (model.history), so that it never holds the target."
        )
    return found


def _item_column(sub: Mapping[str, Any], shown: Mapping[str, Any] | None, sequence: str, *, is_grouped: bool) -> str | None:
    """Returns the item's column whose values a sub-feature has, those of an item's feature if one is known; None if nothing tells."""
    if shown is not None:
        return entry_column(shown) if str(shown.get("expression")).startswith(f"{Side.ITEM}:") else None
    if not is_grouped or sub["feature_type"] not in ("id_feature", "raw_feature"):
        return None
    return entry_column(sub).removeprefix(f"{sequence}__")
