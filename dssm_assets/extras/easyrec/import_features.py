"""Converts features of EasyRec and TorchEasyRec to fg.json: definitions, sides, shared embeddings, and the history of the towers.

The history is the user's positive events. A definition is an entry of fg.json: one feature, or one group of sequences.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from dssm_assets.core import columns as col
from dssm_assets.core.errors import ConfigError, Fault
from dssm_assets.core.features.expressions import Side
from dssm_assets.core.features.operators.base import VOCABULARY_KEYS
from dssm_assets.core.features.operators.registry import OPERATORS
from dssm_assets.core.features.operators.sequence_feature import SEQUENCE_FEATURE
from dssm_assets.core.samples.sample_tables import NON_FEATURE_COLUMNS
from dssm_assets.extras.easyrec.field_reader import REASONS, FieldReader, ImportRecord
from dssm_assets.extras.easyrec.text_format import Message, Word

_LISTS: Final = ("vocab_list", "variables", "sequence_fields", "boundaries")
_UNSET_IF_ZERO: Final = ("embedding_dim", "hash_bucket_size", "num_buckets")
_INPUTS: Final = ("expression", "map", "key", "nested_map", "pkey", "skey", "query", "title", "variables")
_BUCKET_KEYS: Final = (*VOCABULARY_KEYS, "boundaries")
_TABLE_KEYS: Final = ("embedding_name", "embedding_dim", *_BUCKET_KEYS, "default_bucketize_value")
"""Keys of the model's configuration that complete a definition in fg.json."""
_EASYREC_KINDS: Final = {
    "IdFeature": "id_feature",
    "TagFeature": "id_feature",
    "RawFeature": "raw_feature",
    "ComboFeature": "combo_feature",
    "LookupFeature": "lookup_feature",
    "ExprFeature": "expr_feature",
    "SequenceFeature": "sequence_id_feature",  # or sequence_raw_feature
}
_NORMALIZERS: Final = {"tf.math.log1p": "ln(1 + x)", "tf.log1p": "ln(1 + x)", "tf.math.log": "ln(x)", "tf.math.sqrt": "sqrt(x)"}
_SEQUENCE_KINDS: Final = {"sequence_id_feature": "id_feature", "sequence_raw_feature": "raw_feature"}
_HISTORY: Final = "history"
"""EasyRec's sequence features become a sequence of this name."""
_DEFAULT_LENGTH: Final = 50
"""Length of a history if none is given, the default of model.history_length."""
_NAMED: Final = "--sequence-column FEATURE=COLUMN names another"
_NOT_OF_ELEMENTS: Final = {"sequence_length", "sequence_delim", "separator", "value_dim"}
_UNREAD: Final = "no tower reads it; it is left out"
_UNKNOWN: Final = "nothing tells which column of an item it has, so it is left out; --sequence-column FEATURE=COLUMN names one"


@dataclass
class FeatureGroups:
    """Features of the user tower, including sequences, and features of the item tower.

    `keys`: feature of a history -> item feature with the same values, if the groups show it.
    """

    user: list[str] = field(default_factory=list)
    item: list[str] = field(default_factory=list)
    keys: dict[str, str] = field(default_factory=dict)

    @property
    def names(self) -> set[str]:
        return {*self.user, *self.item}


@dataclass(frozen=True)
class IdFields:
    """Columns of ids in the imported samples, and each sequence feature's item column."""

    user: str = col.USER_ID
    item: str = col.ITEM_ID
    of_sequences: Mapping[str, str] = field(default_factory=dict)


def read_groups(model: FieldReader, towers: Mapping[Side, Sequence[str]]) -> FeatureGroups:
    """Returns the features of the groups that the towers read. `towers`: side -> names of its groups."""
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


@dataclass
class ImportedFeatures:
    """fg.json, features that no tower reads, item columns, length of the history (0: no history), sequences with unknown columns."""

    fg: dict[str, Any]
    exclude: list[str]
    history_columns: list[str]
    history_length: int
    unknown_sequences: list[str]


def import_features(
    definitions: Sequence[FieldReader],
    groups: FeatureGroups,
    ids: IdFields,
    fg: Mapping[str, Any] | None,
    record: ImportRecord,
    *,
    needs_history: bool,
) -> ImportedFeatures:
    """Converts the features to fg.json. Also returns the consequences for the configuration.

    Args:
        fg: the feature generator's fg.json; its definitions win over feature_configs.
        needs_history: whether the model needs a history, so that the only sequence is taken as the history.
    """
    entries: list[dict[str, Any]] = []
    for reader in definitions:
        entries += _easyrec_entries(reader, groups) if record.system == "EasyRec" else _torch_entries(reader, groups)
    if fg is not None:
        entries = _with_definitions(entries, fg, record)
        if fg.get("reserves"):
            record.without_counterpart[f"fg.json, reserves: {fg['reserves']}"] = "samples keep the columns that they need"
    entries = _rename(entries, groups, ids, record)
    sequences = [entry for entry in entries if "features" in entry or entry.get("feature_type") in _SEQUENCE_KINDS]
    rows = [entry for entry in entries if entry not in sequences]
    columns, unknown = _find_columns(sequences, rows, groups, ids, record, needs_history=needs_history)
    history = _make_history(sequences, columns, groups, record)
    inner = history["features"] if history else []
    known = {name for entry in entries for name in _named_features(entry)}
    known |= {f"{_HISTORY}__{sub['feature_name']}" for sub in inner}
    for name in sorted(groups.names - known - set(record.without_counterpart)):
        where, expected = f"{record.where}, feature_groups, feature {name}", "a feature of feature_configs or fg.json"
        record.faults.append(Fault(where, expected, "an unknown name", "define it, or remove it"))
    for entry in rows:
        side = Side.ITEM if f"{Side.ITEM}:" in str([entry.get(key) for key in _INPUTS]) else Side.USER
        if _entry_name(entry) in (groups.user if side is Side.ITEM else groups.item):
            record.tell(f"The {side} tower reads a feature by the side of its inputs, not by its group", _entry_name(entry))
    exclude = [_entry_name(entry) for entry in rows if _entry_name(entry) not in groups.names and not entry.get("stub_type")]
    raw: dict[str, Any] = {"features": [*rows, *([history] if history else [])]}
    if fg is not None and "multi_val_sep" in fg:
        raw["multi_val_sep"] = fg["multi_val_sep"]
    history_columns = list(dict.fromkeys(_entry_column(sub) for sub in inner if _entry_column(sub) != col.ITEM_IDS))
    return ImportedFeatures(raw, exclude, history_columns, history["sequence_length"] if history else 0, unknown)


def _torch_entries(reader: FieldReader, groups: FeatureGroups) -> list[dict[str, Any]]:
    kind, inner = reader.only_message()
    name = inner.get("sequence_name" if kind == SEQUENCE_FEATURE else "feature_name", "")
    reader.path = inner.path = f"feature {name}"
    if kind == SEQUENCE_FEATURE:
        subs = [entry for sub in inner.messages("features") for entry in _torch_entries(sub, groups)]
        length = {"sequence_length": size} if (size := inner.get("sequence_length", 0)) else {}
        return [{"feature_type": kind, "sequence_name": name, **length, "features": subs}] if subs else []
    if kind not in OPERATORS:
        reader.without_counterpart(kind, "there is no such feature type; the feature is left out")
        reader.record.without_counterpart[name] = f"{kind} has no counterpart; the feature is left out"
        return []
    entry: dict[str, Any] = {"feature_name": name, "feature_type": kind}
    lists = (*_LISTS, "expression") if kind in ("combo_feature", "bool_mask_feature") else _LISTS
    for key in inner.names:
        if key == "vocab_dict":
            entry[key] = {pair.get("key", ""): pair.get("value", 0) for pair in inner.messages(key)}
        elif key == "text_normalizer":
            options = inner.message(key)
            given = {"norm_options": options.all("norm_options", str), "stop_char_file": options.get("stop_char_file", "")}
            entry[key] = {option: value for option, value in given.items() if value}
        elif key == "sequence_length":
            entry[key] = inner.get(key, 0)
        elif key in lists:
            entry[key] = inner.all(key, float if key == "boundaries" else str)
        elif key in OPERATORS[kind].model_fields and key != "group":
            value = inner.values(key)[-1]
            entry[key] = {"true": True, "false": False}.get(value, str(value)) if isinstance(value, Word) else value
            entry[key] = "" if isinstance(value, Message) else entry[key]
    if kind in ("id_feature", "raw_feature", "tokenize_feature") and "expression" not in entry:
        entry["expression"] = f"{Side.ITEM if name in groups.item else Side.USER}:{name}"
    return [{key: value for key, value in entry.items() if not (key in _UNSET_IF_ZERO and value == 0)}]


def _easyrec_entries(reader: FieldReader, groups: FeatureGroups) -> list[dict[str, Any]]:
    inputs, kind = reader.all("input_names", str), reader.get("feature_type", "IdFeature")
    name = reader.get("feature_name", inputs[0] if inputs else "")
    reader.path = f"feature {name}"
    if not inputs or not name:
        where = f"{reader.record.where}, line {reader.line}, feature_configs"
        reader.record.faults.append(Fault(where, "input_names", "none", "name the columns that the feature reads"))
        return []
    shared = reader.all("shared_names", str)
    if kind not in _EASYREC_KINDS or (kind == "LookupFeature" and len(inputs) != 2):
        reason = f"{kind} has no counterpart; the feature is left out"
        reader.record.without_counterpart |= dict.fromkeys([name, *shared], reason)
        return []
    entries = []
    for own, names in [(name, inputs), *((other, [other]) for other in shared)]:
        side = Side.ITEM if own in groups.item else Side.USER
        named = {"embedding_name": name, "feature_name": own} if shared else {"feature_name": own}
        entries.append(named | _easyrec_entry(reader, kind, [f"{side}:{text}" for text in names]))
    return entries


def _easyrec_entry(reader: FieldReader, kind: str, inputs: list[str]) -> dict[str, Any]:
    entry: dict[str, Any] = {"feature_type": _EASYREC_KINDS[kind], "expression": inputs[0]}
    if kind == "SequenceFeature":
        is_number = reader.get("sub_feature_type", "") == "RawFeature"
        entry["feature_type"] = "sequence_raw_feature" if is_number else "sequence_id_feature"
        length = reader.get("max_seq_len", reader.get("sequence_length", 0))
        entry |= {"sequence_length": length} if length > 1 else {}
    elif kind == "ComboFeature":
        entry["expression"] = inputs
        if reader.get("combo_join_sep", "") != "_":
            reader.record.tell("Combinations are texts joined by `_`, so their hash buckets differ.")
    elif kind == "LookupFeature":
        del entry["expression"]
        entry |= {"map": inputs[0], "key": inputs[1], "need_discrete": True, "separator": reader.get("separator", "|")}
    elif kind == "ExprFeature":
        entry |= {"expression": reader.get("expression", ""), "variables": inputs}
    elif kind == "IdFeature":
        entry["value_dim"] = 1
    elif kind == "TagFeature":
        entry["separator"] = reader.get("separator", "|")
        if (given := reader.get("kv_separator", "")) or "kv_separator" in reader.names:
            entry["weighted"] = True
            if given != ":":
                reader.without_counterpart("kv_separator", f"weights are written id:weight, so {given!r} must become ':'")
    else:
        entry |= _read_numbers(reader)
    table: dict[str, Any] = {
        "embedding_name": reader.get("embedding_name", ""),
        "embedding_dim": reader.get("embedding_dim", 0),
    }
    if entry["feature_type"] in ("raw_feature", "sequence_raw_feature", "expr_feature"):
        table["boundaries"] = reader.all("boundaries", float)
    else:
        table |= {key: reader.get(key, 0) for key in ("hash_bucket_size", "num_buckets")}
        table["vocab_list"] = reader.all("vocab_list", str)
    reader.without_counterpart("vocab_file", "its values have no bucket for others; the vocabulary is counted over the window")
    return entry | {key: value for key, value in table.items() if value}


def _read_numbers(reader: FieldReader) -> dict[str, Any]:
    entry: dict[str, Any] = {}
    low, high = reader.get("min_val", 0.0), reader.get("max_val", 0.0)
    if high > low:
        entry["normalizer"] = f"method=minmax,min={low!r},max={high!r}"
    if (function := reader.get("normalizer_fn", "")) in _NORMALIZERS:
        entry["normalizer"] = f"method=expression,expr={_NORMALIZERS[function]}"
    else:
        reader.without_counterpart("normalizer_fn", "write it as `normalizer` of the feature in fg.json")
    if (width := reader.get("raw_input_dim", 1)) > 1:
        entry |= {"value_dim": width, "separator": reader.get("separator", "|")}
    return entry


def _with_definitions(entries: list[dict[str, Any]], fg: Mapping[str, Any], record: ImportRecord) -> list[dict[str, Any]]:
    """Returns the definitions of fg.json, completed by the model's configuration; then the entries that fg.json lacks."""
    given = fg.get("features")
    if not isinstance(given, list):
        raise ConfigError(Fault("fg.json, key features", "a list of features", repr(given)[:80], "write a list of features"))
    expected = "a mapping with feature_name, or with sequence_name and features"
    ConfigError.raise_if(
        Fault(f"fg.json, number {number}", expected, repr(entry)[:80], "name it")
        for number, entry in enumerate(given, 1)
        if not _has_names(entry)
    )
    tables = {name: sub for entry in entries for name, sub in _named_features(entry).items()}
    used: set[str] = set()

    def complete(entry: dict[str, Any], name: str) -> dict[str, Any]:
        used.add(name)
        own = {key: value for key, value in tables.get(name, {}).items() if key in _TABLE_KEYS}
        if differing := [key for key, value in own.items() if entry.get(key, value) != value]:
            record.tell(f"{', '.join(differing)} of {record.where} instead of fg.json's", name)
        if own.keys() & set(_BUCKET_KEYS):
            entry = {key: value for key, value in entry.items() if key not in _BUCKET_KEYS}
        return {**entry, **own}

    completed: list[dict[str, Any]] = []
    for entry in given:
        subs = [complete(sub, name) for name, sub in _named_features(entry).items()]
        used.add(_entry_name(entry))
        completed += [{"feature_type": SEQUENCE_FEATURE, **entry, "features": subs}] if "features" in entry else subs
    return [*completed, *(entry for entry in entries if _entry_name(entry) not in used)]


def _has_names(entry: Any) -> bool:
    if not isinstance(entry, dict):
        return False
    inner = entry.get("features", [])
    is_named = isinstance(entry.get("sequence_name" if "features" in entry else "feature_name"), str)
    return is_named and isinstance(inner, list) and all(_has_names(sub) and "features" not in sub for sub in inner)


def _rename(entries: list[dict[str, Any]], groups: FeatureGroups, ids: IdFields, record: ImportRecord) -> list[dict[str, Any]]:
    reserved = set[str]().union(*NON_FEATURE_COLUMNS.values())
    used = {_entry_name(entry) for entry in entries}
    renamed: dict[str, str] = {}
    for entry in entries:
        if "features" not in entry and (name := _entry_name(entry)) in reserved:
            renamed[name] = f"{name}_feature"
            while renamed[name] in used:
                renamed[name] += "_"
    inputs = {f"user:{ids.user}": f"user:{col.USER_ID}", f"item:{ids.item}": f"item:{col.ITEM_ID}"}
    inputs |= {f"feature:{old}": f"feature:{new}" for old, new in renamed.items()}

    def rename(value: Any) -> Any:
        if isinstance(value, list):
            return [rename(inner) for inner in value]
        if isinstance(value, dict):
            return {key: rename(inner) if key in (*_INPUTS, "features") else inner for key, inner in value.items()}
        return inputs.get(str(value), value)

    entries = rename(entries)
    for entry in entries:
        if _entry_name(entry) in renamed and "features" not in entry:
            entry["feature_name"] = renamed[_entry_name(entry)]
    groups.user, groups.item = ([renamed.get(name, name) for name in names] for names in (groups.user, groups.item))
    groups.keys = {history: renamed.get(key, key) for history, key in groups.keys.items()}
    if renamed:
        names = [f"{old} is {new}" for old, new in renamed.items()]
        record.tell("Features named like columns of the samples have other names", *names)
    return entries


def _entry_column(entry: Mapping[str, Any]) -> str:
    return str(entry.get("expression")).partition(":")[2]


def _is_of_item(entry: Mapping[str, Any]) -> bool:
    return str(entry.get("expression")).startswith(f"{Side.ITEM}:")


def _entry_name(entry: Mapping[str, Any]) -> str:
    return str(entry.get("sequence_name" if "features" in entry else "feature_name"))


def _named_features(entry: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns name -> definition for the features of an entry. In a group they are named `sequence__feature`."""
    if "features" not in entry:
        return {_entry_name(entry): entry}
    return {f"{entry['sequence_name']}__{sub['feature_name']}": sub for sub in entry["features"]}


def _find_columns(
    sequences: list[dict[str, Any]],
    rows: list[dict[str, Any]],
    groups: FeatureGroups,
    ids: IdFields,
    record: ImportRecord,
    *,
    needs_history: bool,
) -> tuple[dict[str, str], list[str]]:
    """Returns feature of a sequence -> item column, and the features without a known item column.

    The column is found by `ids`, a shared embedding, the groups, an input of the item, or else by names; the last is recorded as
    a difference. If the model needs a history, the only sequence is taken as the ids of the user's items.
    """
    by_name = {_entry_name(entry): entry for entry in rows}
    of_items = (entry for name, entry in by_name.items() if name in groups.item)
    by_table = {entry["embedding_name"]: entry for entry in of_items if "embedding_name" in entry}
    columns: dict[str, str | None] = {}
    read = ((entry, name, sub) for entry in sequences for name, sub in _named_features(entry).items() if name in groups.names)
    for entry, name, sub in read:
        columns[name] = ids.of_sequences.get(name)
        shown = by_name.get(groups.keys.get(name, "")) or by_table.get(sub.get("embedding_name"))
        if columns[name] is not None:
            continue
        if shown is not None:
            columns[name] = _entry_column(shown) if _is_of_item(shown) else None
        elif "features" not in entry:
            columns[name] = named = _column_in_names(f"{name}_{_entry_column(sub)}", rows, groups, ids)
            if named is not None:
                record.tell(f"Only names tell which column of an item a sequence has; {_NAMED}", f"{name} is {named}")
        elif sub["feature_type"] in _SEQUENCE_KINDS.values():
            columns[name] = _entry_column(sub).removeprefix(f"{_entry_name(entry)}__")
    if needs_history and list(columns.values()) == [None]:
        columns = dict.fromkeys(columns, col.ITEM_ID)
        record.tell(f"The only sequence is taken as the ids of the user's items; {_NAMED}", *columns)
    known = {name: col.ITEM_ID if column == ids.item else column for name, column in columns.items() if column is not None}
    return known, [name for name in columns if name not in known]


def _column_in_names(names: str, rows: list[dict[str, Any]], groups: FeatureGroups, ids: IdFields) -> str | None:
    """Returns the longest item column contained in the names of a sequence, with or without `_id`: `brand` in `liked_brand_list`.

    None if no column, or two equally long columns, are contained.
    """
    by_length: dict[int, set[str]] = {}
    for entry in rows:
        if _is_of_item(entry) and _entry_name(entry) in groups.item:
            column = ids.item if _entry_column(entry) == col.ITEM_ID else _entry_column(entry)
            for text in (column, column.removesuffix("_id")):
                if f"_{text}" in f"_{names}":
                    by_length.setdefault(len(text), set()).add(column)
    longest = by_length[max(by_length)] if by_length else set()
    return min(longest) if len(longest) == 1 else None


def _make_history(
    sequences: list[dict[str, Any]], columns: Mapping[str, str], groups: FeatureGroups, record: ImportRecord
) -> dict[str, Any] | None:
    read = [entry for entry in sequences if _named_features(entry).keys() & groups.names]
    history = next((entry["sequence_name"] for entry in read if "features" in entry), _HISTORY)
    lost = record.without_counterpart
    features: list[dict[str, Any]] = []
    lengths: dict[str, int] = {}
    for entry in sequences:
        name, is_group = _entry_name(entry), "features" in entry
        if entry not in read or (is_group and name != history):
            other = f"towers read one history, the user's positive events, and {history} is it; this sequence is left out"
            lost[name] = _UNREAD if entry not in read else other
            continue
        for key in sorted(entry.keys() & {"sequence_delim", "sequence_pk"}) if is_group else ():
            lost[f"sequence {name}, {key}: {entry[key]!r}"] = REASONS[key]
        for own, sub in _named_features(entry).items():
            if own not in columns:
                lost[own] = _UNREAD if own not in groups.names else _UNKNOWN
                continue
            for key in sorted(sub.keys() & _NOT_OF_ELEMENTS - {"sequence_length"}):
                lost[f"feature {own}, {key}: {sub[key]!r}"] = "an element of the history is one value of a list"
            inner = {key: value for key, value in sub.items() if key not in _NOT_OF_ELEMENTS}
            inner["feature_type"] = _SEQUENCE_KINDS.get(inner["feature_type"], inner["feature_type"])
            inner["expression"] = f"user:{col.ITEM_IDS if columns[own] == col.ITEM_ID else columns[own]}"
            features.append(inner)
            lengths[own] = entry.get("sequence_length") or 0
    if not features:
        return None
    length = max(lengths.values()) or _DEFAULT_LENGTH
    for own, shorter in lengths.items():
        if 0 < shorter < length:
            lost[f"feature {own}, sequence_length: {shorter}"] = "all features of the history have one length, the longest"
    record.tell(f"The sequence {history} has the user's positive events of the log before the sample (model.history).")
    return {
        "feature_type": SEQUENCE_FEATURE, "sequence_name": history, "oldest_first": True, "features": features,
        "sequence_length": length,
    }  # fmt: skip
