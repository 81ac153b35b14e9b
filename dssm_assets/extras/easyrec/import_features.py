"""Features of EasyRec and TorchEasyRec as fg.json: definitions, sides, shared embeddings, the history.

Belongs here: which definition a feature becomes and which of its fields have no counterpart. Does not belong here: sequences
(`import_history.py`), model, negatives and training (`import_settings.py`), the grammar of fg.json (`core/features`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from dssm_assets.core import columns as col
from dssm_assets.core.errors import ConfigError, Fault
from dssm_assets.core.features.expressions import Side
from dssm_assets.core.features.operators.base import VOCABULARY_KEYS
from dssm_assets.core.features.operators.registry import OPERATORS
from dssm_assets.core.features.operators.sequence_feature import SEQUENCE_FEATURE
from dssm_assets.core.samples.sample_tables import NON_FEATURE_COLUMNS
from dssm_assets.extras.easyrec.feature_groups import FeatureGroups, IdFields, entry_name, is_sequence, sub_names
from dssm_assets.extras.easyrec.field_reader import FieldReader, ImportRecord
from dssm_assets.extras.easyrec.import_history import HISTORY, find_columns, make_history
from dssm_assets.extras.easyrec.text_format import Message, Word

_LISTS: Final = ("vocab_list", "boundaries", "variables", "sequence_fields")
_UNSET_IF_ZERO: Final = ("embedding_dim", "hash_bucket_size", "num_buckets")
_INPUTS: Final = ("expression", "map", "key", "nested_map", "pkey", "skey", "query", "title", "variables")
_TABLE_KEYS: Final = ("embedding_name", "embedding_dim", "boundaries", *VOCABULARY_KEYS, "default_bucketize_value")
"""Keys of the model's configuration that complete a definition of the feature generator."""
_EASYREC_KINDS: Final = {"IdFeature": "id_feature", "TagFeature": "id_feature", "RawFeature": "raw_feature"}
_NORMALIZERS: Final = {"tf.math.log1p": "ln(1 + x)", "tf.log1p": "ln(1 + x)", "tf.math.log": "ln(x)", "tf.math.sqrt": "sqrt(x)"}


@dataclass
class ImportedFeatures:
    """The result.

    Attributes:
        fg: fg.json.
        history_columns: item columns that the history needs.
        history_length: elements of the history, 0 without one.
        unknown_sequences: sequences that towers read and that are left out, because nothing tells which column of an item they have.
    """

    fg: dict[str, Any]
    exclude: list[str]
    history_columns: list[str]
    history_length: int
    unknown_sequences: list[str]

    @property
    def item_columns(self) -> list[str]:
        """The columns of an item that features of a row read."""
        texts = [str(entry.get("expression")) for entry in self.fg["features"]]
        return list(dict.fromkeys(text.removeprefix(f"{Side.ITEM}:") for text in texts if text.startswith(f"{Side.ITEM}:")))


def import_features(
    definitions: Sequence[FieldReader],
    groups: FeatureGroups,
    ids: IdFields,
    fg: Mapping[str, Any] | None,
    record: ImportRecord,
    *,
    needs_history: bool,
) -> ImportedFeatures:
    """Returns fg.json and what follows from the features.

    Args:
        ids: columns of ids; their inputs become user_id and item_id.
        fg: the feature generator's fg.json, whose definitions go before those of feature_configs.
        record: gets origins, differences and fields without counterpart.
        needs_history: the model has no use without a history, so the only sequence is taken as one.
    """
    entries: list[dict[str, Any]] = []
    for reader in definitions:
        found = _easyrec_entries(reader, groups) if record.system == "EasyRec" else _torch_entries(reader, groups)
        for entry in found:
            record.features[entry_name(entry)] = f"feature_configs, line {reader.line}"
        entries += found
    if fg is not None:
        entries = _with_definitions(entries, fg, record)
    entries = [_with_ids(entry, ids) for entry in entries]
    _rename_reserved(entries, groups, record)
    rows = [entry for entry in entries if not is_sequence(entry)]
    sequences = [entry for entry in entries if is_sequence(entry)]
    columns, unknown = find_columns(sequences, rows, groups, ids, record, needs_history=needs_history)
    sequence = make_history(sequences, columns, groups, record)
    features = [*rows, *([sequence] if sequence else [])]
    renamed = {f"{HISTORY}__{inner['feature_name']}" for inner in (sequence or {}).get("features", [])}
    known = {entry_name(entry) for entry in rows} | {
        name for entry in entries if is_sequence(entry) for name in sub_names(entry)
    }
    for name in sorted(groups.names - known - renamed - set(record.without_counterpart)):
        where = f"{record.where}, feature_groups, feature {name}"
        record.faults.append(
            Fault(where, "a feature of feature_configs or fg.json", "an unknown name", "define it, or remove it")
        )
    for entry in rows:
        _tell_side(entry, groups, record)
    exclude = [entry_name(entry) for entry in rows if entry_name(entry) not in groups.names and not entry.get("stub_type")]
    raw: dict[str, Any] = {"features": features}
    if fg is not None and "multi_val_sep" in fg:
        raw["multi_val_sep"] = fg["multi_val_sep"]
    if fg is not None and fg.get("reserves"):
        record.without_counterpart[f"fg.json, reserves: {fg['reserves']}"] = "samples keep the columns that they need"
    read = {inner["expression"].removeprefix("user:"): None for inner in (sequence or {}).get("features", [])}
    history_columns = [column for column in read if column != col.ITEM_IDS]
    return ImportedFeatures(raw, exclude, history_columns, sequence["sequence_length"] if sequence else 0, unknown)


def _torch_entries(reader: FieldReader, groups: FeatureGroups) -> list[dict[str, Any]]:
    """Returns the definition of a feature of TorchEasyRec, none if it has no counterpart."""
    kind = reader.only_message()
    inner = reader.message(kind) if kind else reader
    name = inner.text("sequence_name") if kind == SEQUENCE_FEATURE else inner.text("feature_name")
    reader.path = inner.path = f"feature {name}"
    if kind == SEQUENCE_FEATURE:
        subs = [entry for sub in inner.messages("features") for entry in _torch_entries(sub, groups)]
        length = {"sequence_length": size} if (size := inner.integer("sequence_length", 0)) else {}
        return [{"feature_type": kind, "sequence_name": name, **length, "features": subs}] if subs else []
    operator = kind if kind in OPERATORS else None
    if operator is None:
        reader.without_counterpart(kind, "there is no such feature type; the feature is left out")
        reader.record.without_counterpart[name] = f"{kind} has no counterpart; the feature is left out"
        return []
    return [_torch_entry(inner, operator, name, groups)]


def _torch_entry(reader: FieldReader, kind: str, name: str, groups: FeatureGroups) -> dict[str, Any]:
    entry: dict[str, Any] = {"feature_name": name, "feature_type": kind}
    known = OPERATORS[kind].model_fields
    lists = (*_LISTS, "expression") if kind in ("combo_feature", "bool_mask_feature") else _LISTS
    for key in reader.names:
        if key == "vocab_dict":
            entry[key] = {pair.text("key"): pair.integer("value", 0) for pair in reader.messages(key)}
        elif key == "text_normalizer":
            inner = reader.message(key)
            given = {"norm_options": inner.texts("norm_options"), "stop_char_file": inner.text("stop_char_file")}
            entry[key] = {option: value for option, value in given.items() if value}
        elif key == "boundaries":
            entry[key] = reader.numbers(key)
        elif key == "sequence_length":
            entry[key] = reader.integer(key, 0)
        elif key in lists:
            entry[key] = reader.texts(key)
        elif key in known and key != "group":
            entry[key] = _plain(reader.value(key))
    if kind in ("id_feature", "raw_feature", "tokenize_feature") and "expression" not in entry:
        entry["expression"] = f"{Side.ITEM if name in groups.item else Side.USER}:{name}"
    return {key: value for key, value in entry.items() if not (key in _UNSET_IF_ZERO and value == 0)}


def _plain(value: Any) -> Any:
    if isinstance(value, Word):
        return {"true": True, "false": False}.get(str(value), str(value))
    return "" if isinstance(value, Message) else value


def _easyrec_entries(reader: FieldReader, groups: FeatureGroups) -> list[dict[str, Any]]:
    """Returns the definitions of a feature of EasyRec: one, and one for each of its shared_names; none without counterpart."""
    inputs, kind = reader.texts("input_names"), reader.text("feature_type", "IdFeature")
    name = reader.text("feature_name", inputs[0] if inputs else "")
    reader.path = f"feature {name}"
    if not inputs or not name:
        place = f"{reader.record.where}, line {reader.line}, feature_configs"
        reader.record.faults.append(Fault(place, "input_names", "none", "name the columns that the feature reads"))
        return []
    shared = reader.texts("shared_names")
    entries = []
    for own, names in [(name, inputs), *((other, [other]) for other in shared)]:
        side = Side.ITEM if own in groups.item else Side.USER
        entry = _easyrec_entry(reader, kind, own, [f"{side}:{text}" for text in names])
        if entry is None:
            reader.record.without_counterpart[own] = f"{kind} has no counterpart; the feature is left out"
            continue
        if shared and "embedding_name" not in entry:
            entry["embedding_name"] = name
        entries.append(entry)
    return entries


def _easyrec_entry(reader: FieldReader, kind: str, name: str, inputs: list[str]) -> dict[str, Any] | None:
    entry: dict[str, Any] = {"feature_name": name, "feature_type": _EASYREC_KINDS.get(kind, "")}
    record = reader.record
    if kind == "SequenceFeature":
        is_raw = reader.text("sub_feature_type") == "RawFeature"
        entry["feature_type"] = "sequence_raw_feature" if is_raw else "sequence_id_feature"
        length = reader.integer("max_seq_len", reader.integer("sequence_length", 0))
        entry |= {"sequence_length": length} if length > 1 else {}
        entry["expression"] = inputs[0]
    elif kind in _EASYREC_KINDS:
        entry["expression"] = inputs[0]
        _read_values(reader, kind, entry)
    elif kind == "ComboFeature":
        entry |= {"feature_type": "combo_feature", "expression": inputs}
        if reader.text("combo_join_sep") != "_":
            record.tell("Combinations are texts joined by `_`, so their hash buckets differ from those of crossed columns.")
    elif kind == "LookupFeature" and len(inputs) == 2:
        entry |= {"feature_type": "lookup_feature", "map": inputs[0], "key": inputs[1], "need_discrete": True}
        entry["separator"] = reader.text("separator", "|")
    elif kind == "ExprFeature":
        entry |= {"feature_type": "expr_feature", "expression": reader.text("expression"), "variables": inputs}
    else:
        return None
    is_number = entry["feature_type"] in ("raw_feature", "sequence_raw_feature", "expr_feature")
    keys = ("hash_bucket_size", "num_buckets") if not is_number else ()
    found: dict[str, Any] = {"embedding_name": reader.text("embedding_name")}
    found |= {key: reader.integer(key, 0) for key in ("embedding_dim", *keys)}
    found |= {"boundaries": reader.numbers("boundaries")} if is_number else {"vocab_list": reader.texts("vocab_list")}
    entry |= {key: value for key, value in found.items() if value}
    reader.without_counterpart("vocab_file", "its values have no bucket for others; the vocabulary is counted over the window")
    return entry


def _read_values(reader: FieldReader, kind: str, entry: dict[str, Any]) -> None:
    """Reads how the values of a row are written: one, several, with weights, normalised."""
    if kind == "TagFeature":
        entry["separator"] = reader.text("separator", "|")
        if reader.has("kv_separator"):
            entry["weighted"] = True
            if (given := reader.text("kv_separator")) != ":":
                reader.without_counterpart("kv_separator", f"weights are written id:weight, so {given!r} must become ':'")
    elif kind == "IdFeature":
        entry["value_dim"] = 1
    else:
        low, high = reader.number("min_val", 0.0), reader.number("max_val", 0.0)
        if high > low:
            entry["normalizer"] = f"method=minmax,min={low!r},max={high!r}"
        if reader.text("normalizer_fn") in _NORMALIZERS:
            entry["normalizer"] = f"method=expression,expr={_NORMALIZERS[reader.text('normalizer_fn')]}"
        else:
            reader.without_counterpart("normalizer_fn", "write it as `normalizer` of the feature in fg.json")
        if (width := reader.integer("raw_input_dim", 1)) > 1:
            entry |= {"value_dim": width, "separator": reader.text("separator", "|")}


def _with_definitions(entries: list[dict[str, Any]], fg: Mapping[str, Any], record: ImportRecord) -> list[dict[str, Any]]:
    """Returns the definitions of fg.json with the tables of the model's configuration; what fg.json lacks is kept."""
    given = _checked_definitions(fg)
    tables = {entry_name(entry): entry for entry in entries if "features" not in entry}
    tables |= {f"{e['sequence_name']}__{sub['feature_name']}": sub for e in entries if "features" in e for sub in e["features"]}
    used: set[str] = set()

    def complete(entry: dict[str, Any], name: str) -> dict[str, Any]:
        used.add(name)
        own = {key: value for key, value in tables.get(name, {}).items() if key in _TABLE_KEYS}
        differing = [key for key, value in own.items() if key in entry and entry[key] != value]
        if differing:
            record.tell(f"{', '.join(differing)} of {record.where} instead of fg.json's", name)
        if any(key in own for key in (*VOCABULARY_KEYS, "boundaries")):
            entry = {key: value for key, value in entry.items() if key not in (*VOCABULARY_KEYS, "boundaries")}
        record.features.setdefault(name, "fg.json")
        return {**entry, **own}

    found = []
    for entry in given:
        if isinstance(entry.get("features"), list):
            name = str(entry.get("sequence_name"))
            subs = [complete(dict(sub), f"{name}__{sub.get('feature_name')}") for sub in entry["features"]]
            used.add(name)
            found.append({"feature_type": SEQUENCE_FEATURE, **entry, "features": subs})
        else:
            found.append(complete(dict(entry), str(entry.get("feature_name"))))
    return [*found, *(entry for entry in entries if entry_name(entry) not in used)]


def _checked_definitions(fg: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the definitions of fg.json, each of which has a name.

    Raises:
        ConfigError: naming every one that is not a mapping with a name.
    """
    given = fg.get("features")
    if not isinstance(given, list):
        raise ConfigError(Fault("fg.json, key features", "a list of features", repr(given)[:80], "write a list of features"))
    named: list[tuple[str, Any, str]] = []
    for number, entry in enumerate(given, 1):
        inner = entry.get("features") if isinstance(entry, dict) else None
        named.append((f"number {number}", entry, "feature_name" if inner is None else "sequence_name"))
        if isinstance(inner, list):
            named += [(f"number {number}, feature {place}", sub, "feature_name") for place, sub in enumerate(inner, 1)]
        elif inner is not None:
            named.append((f"number {number}, key features", inner, "a list"))
    ConfigError.raise_if(
        Fault(f"fg.json, {place}", f"a mapping with {key}", repr(entry)[:80], "name it")
        for place, entry, key in named
        if not isinstance(entry, dict) or not isinstance(entry.get(key), str)
    )
    return given


def _with_ids(entry: dict[str, Any], ids: IdFields) -> dict[str, Any]:
    """Returns a definition whose inputs are named user_id and item_id where they are the ids."""
    renamed = {f"user:{ids.user}": f"user:{col.USER_ID}", f"item:{ids.item}": f"item:{col.ITEM_ID}"}
    own = _with_inputs(entry, renamed)
    return own if "features" not in entry else {**own, "features": [_with_ids(sub, ids) for sub in entry["features"]]}


def _with_inputs(entry: Mapping[str, Any], renamed: Mapping[str, str]) -> dict[str, Any]:
    """Returns a definition with other names of its inputs."""

    def rename(value: Any) -> Any:
        return [rename(part) for part in value] if isinstance(value, list) else renamed.get(str(value), value)

    return {key: rename(value) if key in _INPUTS else value for key, value in entry.items()}


def _rename_reserved(entries: list[dict[str, Any]], groups: FeatureGroups, record: ImportRecord) -> None:
    """Renames features, in place, whose names are those of columns of the samples, and `feature:` inputs that read them."""
    reserved = {name for names in NON_FEATURE_COLUMNS.values() for name in names}
    used = {entry_name(entry) for entry in entries}
    renamed: dict[str, str] = {}
    for entry in entries:
        if "features" not in entry and (old := entry_name(entry)) in reserved:
            new = f"{old}_feature"
            while new in used:
                new += "_"
            entry["feature_name"] = renamed[old] = new
    inputs = {f"feature:{old}": f"feature:{new}" for old, new in renamed.items()}
    for entry in entries:
        entry.update(_with_inputs(entry, inputs))
    groups.user, groups.item = ([renamed.get(name, name) for name in names] for names in (groups.user, groups.item))
    groups.keys = {history: renamed.get(key, key) for history, key in groups.keys.items()}
    record.features = {renamed.get(name, name): origin for name, origin in record.features.items()}
    if renamed:
        names = [f"{old} is {new}" for old, new in renamed.items()]
        record.tell("Features whose names are those of columns of the samples have others", *names)


def _tell_side(entry: Mapping[str, Any], groups: FeatureGroups, record: ImportRecord) -> None:
    """Tells of a feature whose group is another tower's than its inputs."""
    texts = str(
        [entry.get(key) for key in ("expression", "map", "key", "variables", "query", "title", "nested_map", "pkey", "skey")]
    )
    is_item, name = f"{Side.ITEM}:" in texts, entry_name(entry)
    if name in (groups.user if is_item else groups.item):
        record.tell(f"The {'item' if is_item else 'user'} tower reads a feature by its inputs, not that of its group", name)
