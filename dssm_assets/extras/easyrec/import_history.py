"""Which features the towers of an imported configuration read, and its sequences as the one that towers read here.

That is the user's positive events. A definition is an entry of fg.json: of one feature, or of a group of sequences with its features.

Belongs here: groups, which column of an item a sequence has, and what its elements become. Does not belong here: features of a row
(`import_features.py`), poolings (`import_settings.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from dssm_assets.core import columns as col
from dssm_assets.core.features.expressions import Side
from dssm_assets.core.features.operators.sequence_feature import SEQUENCE_FEATURE
from dssm_assets.extras.easyrec.field_reader import FieldReader, ImportRecord
from dssm_assets.extras.easyrec.reasons import REASONS

SEQUENCE_KINDS: Final = {"sequence_id_feature": "id_feature", "sequence_raw_feature": "raw_feature"}
HISTORY: Final = "history"
"""Name of the sequence that EasyRec's sequence features become."""
_DEFAULT_LENGTH: Final = 50
"""Elements of a history whose length is not given, as of model.history_length."""
_NAMED: Final = "--sequence-column FEATURE=COLUMN names another"
_NOT_OF_ELEMENTS: Final = {"sequence_length", "sequence_delim", "separator", "value_dim"}
_UNREAD: Final = "no tower reads it; it is left out"
_UNKNOWN: Final = "nothing tells which column of an item it has, so it is left out; --sequence-column FEATURE=COLUMN names one"


@dataclass
class FeatureGroups:
    """Features of the user tower, those within sequences included, and of the item tower.

    `keys` has feature of a history -> feature of the item that it has the values of, as far as the groups tell.
    """

    user: list[str] = field(default_factory=list)
    item: list[str] = field(default_factory=list)
    keys: dict[str, str] = field(default_factory=dict)

    @property
    def names(self) -> set[str]:
        return {*self.user, *self.item}


@dataclass(frozen=True)
class IdFields:
    """Columns of the imported samples that hold the ids, and item columns of sequences, by name of the sequence's feature."""

    user: str = col.USER_ID
    item: str = col.ITEM_ID
    of_sequences: Mapping[str, str] = field(default_factory=dict)


def read_groups(model: FieldReader, towers: Mapping[Side, Sequence[str]]) -> FeatureGroups:
    """Returns the features of the groups that the towers read, by the names of the groups."""
    groups, attentions = FeatureGroups(), model.messages("seq_att_groups")
    for group in model.messages("feature_groups"):
        name = group.get("group_name", "")
        group.path = f"{group.path} {name}"
        side = next((side for side, names in towers.items() if name in names), None)
        if side is None:
            continue
        into = groups.item if side is Side.ITEM else groups.user
        into += group.all("feature_names", str)
        if group.get("group_type", "DEEP") == "WIDE":
            group.without_counterpart("group_type")
        for inner in group.messages("sequence_groups"):
            into += inner.all("feature_names", str)
            inner.get("group_name", "")
        attentions += group.messages("sequence_features")
    for group in attentions:
        group.get("group_name", "")
        for pair in group.messages("seq_att_map"):
            histories = pair.all("hist_seq", str)
            groups.keys |= dict(zip(histories, pair.all("key", str), strict=False))
            groups.user += histories
    return groups


def entry_column(entry: Mapping[str, Any]) -> str:
    """Returns the column that a definition with one input reads."""
    return str(entry.get("expression")).partition(":")[2]


def is_of_item(entry: Mapping[str, Any]) -> bool:
    """Returns whether a definition with one input reads a column of the item."""
    return str(entry.get("expression")).startswith(f"{Side.ITEM}:")


def entry_name(entry: Mapping[str, Any]) -> str:
    """Returns the name of a feature, or of a group of sequences."""
    return str(entry.get("sequence_name" if "features" in entry else "feature_name"))


def named_features(entry: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns name -> definition of the features of a definition: those of a group are named `sequence__feature`."""
    if "features" not in entry:
        return {entry_name(entry): entry}
    return {f"{entry['sequence_name']}__{sub['feature_name']}": sub for sub in entry["features"]}


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
    If the model needs a history, the only sequence has the ids of the user's items.
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
                record.tell(f"Only names tell which column of an item a sequence has; {_NAMED}", f"{name} is {named}")
        elif sub["feature_type"] in SEQUENCE_KINDS.values():
            columns[name] = entry_column(sub).removeprefix(f"{entry_name(entry)}__")
    if needs_history and list(columns.values()) == [None]:
        columns = dict.fromkeys(columns, col.ITEM_ID)
        record.tell(f"The only sequence is taken as the ids of the user's items; {_NAMED}", *columns)
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
                lost[own] = _UNREAD if own not in groups.names else _UNKNOWN
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
        f"The sequence {history} is computed from the log: the user's positive events before the sample (model.history)."
    )
    return {
        "feature_type": SEQUENCE_FEATURE, "sequence_name": history, "oldest_first": True, "features": features,
        "sequence_length": length,
    }  # fmt: skip
