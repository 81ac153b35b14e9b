"""Converts a whole configuration of EasyRec or TorchEasyRec to config.yaml, fg.json and a report of moved, changed and lost settings."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Final

from dssm_assets.core import columns as col
from dssm_assets.core.config.pipeline import PipelineConfig, parse_config
from dssm_assets.core.errors import ConfigError, Fault
from dssm_assets.core.features.expressions import Kind, Side
from dssm_assets.core.features.fg_files import FG_FILE, ReadFile, fg_json
from dssm_assets.core.features.spec import FgSpec, parse_fg
from dssm_assets.extras.easyrec import import_settings
from dssm_assets.extras.easyrec.field_reader import FieldReader, ImportRecord
from dssm_assets.extras.easyrec.import_features import FeatureGroups, IdFields, ImportedFeatures, import_features, read_groups
from dssm_assets.extras.easyrec.text_format import Message, parse_text_format
from dssm_assets.storage.config_choice import CONFIG_FILE
from dssm_assets.storage.config_file import parse_yaml
from dssm_assets.storage.local_files import write_atomic

REPORT_FILE: Final = "import_report.md"
_MODELS: Final = ("dssm", "dssm_v2", "mind")
_OWN_SECTIONS: Final = ("name", "calendar", "tables", "events", "raw_features", "features", "model", "training")
"""Sections that an import decides or writes, in this order. Others are copied from the base."""


@dataclass(frozen=True)
class ImportedPipeline:
    """The result: the texts of config.yaml, fg.json and the report (Markdown), and the name of the imported system."""

    config_yaml: str
    fg_json: str
    report: str
    config: PipelineConfig
    spec: FgSpec
    record: ImportRecord


def import_files(
    pipeline: Path,
    fg: Path | None,
    folder: Path,
    *,
    base: Path | None = None,
    sequence_columns: Mapping[str, str] | None = None,
    is_replacing: bool = False,
) -> ImportedPipeline:
    """Writes config.yaml, fg.json and import_report.md for a configuration, and copies the files that its features name.

    These files are searched next to the configuration, next to fg.json, then in the folders above.

    Args:
        pipeline: the configuration, in text format.
        base: a config.yaml; its calendar, tables, events and other sections are kept.
        sequence_columns: feature of a sequence -> column of the item table.

    Raises:
        ConfigError: a file cannot be read or exists already, or the configuration has faults. All faults are listed.
        FeatureSpecError: this project refuses a feature.
    """
    existing = [path for name in (CONFIG_FILE, FG_FILE, REPORT_FILE) if (path := folder / name).exists()]
    if existing and not is_replacing:
        raise ConfigError(Fault(str(existing[0]), "no such file", "an existing one", "choose another --out, or pass --force"))
    named: dict[str, bytes] = {}

    def read_named(name: str) -> bytes:
        # Imported paths are relative to the folder where training is started, often a repository's root.
        folder, *above = pipeline.absolute().parents
        found = next((path for one in (folder, (fg or pipeline).parent, *above) if (path := one / name).exists()), None)
        if found is None:
            raise FileNotFoundError(f"it is neither in {folder} nor in the folders above")
        named[name] = found.read_bytes()
        return named[name]

    parsed = None if fg is None else _read_mapping(json.loads, fg)
    sections = None if base is None else _read_mapping(partial(parse_yaml, where=f"file {base}"), base)
    if base is not None and sections is not None:
        parse_config(sections, f"configuration {base.name}")
    found = import_pipeline(
        _read_text(pipeline), pipeline.name, fg=parsed, base=sections, sequence_columns=sequence_columns, read_file=read_named
    )
    if outside := [name for name in named if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts]:
        got, remedy = ", ".join(outside), f"copy it next to {pipeline.name} and name it without a folder"
        raise ConfigError(Fault(f"{pipeline.name}, files of features", "a path within the folder", got, remedy))
    texts = {CONFIG_FILE: found.config_yaml, FG_FILE: found.fg_json, REPORT_FILE: found.report}
    for name, content in {**named, **{name: text.encode() for name, text in texts.items()}}.items():
        write_atomic(folder / name, [content])
    return found


def _read_mapping(parse: Callable[[str], Any], path: Path) -> Mapping[str, Any]:
    """Reads a mapping from a file. `{data}` in it stands for the file's folder."""
    try:
        parsed = parse(_read_text(path).replace("{data}", str(path.parent.absolute())))
        if isinstance(parsed, Mapping):
            return parsed
        got = type(parsed).__name__
    except ValueError as error:
        got = str(error)
    raise ConfigError(Fault(f"file {path}", "a mapping in its format", got, "correct the file"))


def _read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode(errors="replace")
    except OSError as error:
        remedy = "correct the path; long vocabularies have a vocab_file"
        raise ConfigError(Fault(f"file {path}", "a file that can be read", str(error), remedy)) from error


def import_pipeline(
    text: str,
    where: str = "pipeline.config",
    *,
    fg: Mapping[str, Any] | None = None,
    base: Mapping[str, Any] | None = None,
    sequence_columns: Mapping[str, str] | None = None,
    read_file: ReadFile | None = None,
) -> ImportedPipeline:
    """Converts a configuration of DSSM or MIND to this project's keys.

    Args:
        fg: the parsed fg.json of the feature generator, if there is one.
        base: sections of an existing configuration, for everything that an import does not decide: calendar, tables, events, ...
        sequence_columns: feature of a sequence -> column of the item table, if the configuration does not tell.

    Raises:
        ConfigError: the text is no text format, a value has the wrong type, the model is neither DSSM nor MIND, or the result is
            not a valid configuration. All faults are listed.
        FeatureSpecError: this project refuses a feature, for example one that crosses user and item.
    """
    root = parse_text_format(text, where)
    record = ImportRecord(where, _system(root))
    reader = FieldReader(root, "", record)
    model, data, train = (reader.message(name) for name in ("model_config", "data_config", "train_config"))
    kind = model.choice(_MODELS)
    if kind is None:
        given = model.get("model_class", "") or ", ".join(model.names) or "no model"
        remedy = "import a configuration of DSSM or MIND"
        raise ConfigError(Fault(f"{where}, model_config", f"one of {', '.join(_MODELS)}", given[:80], remedy))
    name, inner, is_mind = model.get("model_class", kind), model.message(kind), kind == "mind"
    has_exposure = base is None or bool((base.get("events") or {}).get("exposure"))
    sampler = import_settings.read_sampler(data, record, has_exposure=has_exposure)
    (import_settings.read_mind if is_mind else import_settings.read_dssm)(model, inner, record)
    groups = read_groups(model, _towers(inner, record.system))
    ids = _read_ids(inner, sampler, groups, sequence_columns or {}, record)
    definitions = [*reader.messages("feature_configs"), *reader.message("feature_config").messages("features")]
    features = import_features(definitions, groups, ids, fg, record, needs_history=is_mind)
    import_settings.read_history(model, features.history_length, record)
    if is_mind and not features.history_length:
        got, remedy = "none", "define it, and name it in the group of the history"
        if unknown := features.unknown_sequences:
            got = ", ".join(unknown)
            remedy = f"say which column of an item a sequence has, for example: --sequence-column '{unknown[0]}={ids.item}'"
        expected = "a sequence of the user tower with a known column of the item"
        record.faults.append(Fault(f"{where}, the history of MIND", expected, got, remedy))
    import_settings.read_training(train, data, record)
    reader.tell_rest("no key here does this")
    ConfigError.raise_if(record.faults)
    sections = _sections(base, record, features, ids, next(iter(data.all("label_fields", str)), "click"))
    config = parse_config(sections, f"what {where} becomes")
    spec = parse_fg(features.fg, read_file=read_file)
    _tell_values(spec, record)
    report = _report(record, name, has_base=base is not None)
    return ImportedPipeline(_config_yaml(sections, record), fg_json(features.fg), report, config, spec, record)


def _system(root: Message) -> str:
    inner = [entry.value for entry in root.entries if entry.name in ("model_config", "feature_configs", "feature_config")]
    names = {entry.name for value in inner if isinstance(value, Message) for entry in value.entries}
    is_easyrec = bool(names & {"model_class", "feature_type", "input_names", "features"})
    return import_settings.EASYREC if is_easyrec else import_settings.TORCH


def _read_ids(
    model: FieldReader, sampler: FieldReader, groups: FeatureGroups, sequences: Mapping[str, str], record: ImportRecord
) -> IdFields:
    """Returns the columns of ids, as named by the sampler, the model or the towers, else user_id and item_id.

    If EasyRec's item tower has a single feature, this is the item's id. A fault is recorded if fields name different columns.
    """
    columns = {"user": col.USER_ID, "item": col.ITEM_ID}
    for side, usual in columns.items():
        fields = [(sampler, f"{side}_id_field"), *([(model, "item_id")] if side == "item" else [])]
        fields.append((model.message(f"{side}_tower"), "id"))
        given = {reader.origin(name): text for reader, name in fields if (text := reader.get(name, ""))}
        if not given and side == "item" and record.system == import_settings.EASYREC and len(groups.item) == 1:
            given = {"the only feature of the item tower": groups.item[0]}
        record.ids |= given
        if len(set(given.values())) > 1:
            got = ", ".join(f"{text} ({place})" for place, text in given.items())
            record.faults.append(Fault(f"{record.where}, {side} ids", "one column", got, "name one column"))
        columns[side] = next(iter(given.values()), usual)
    return IdFields(columns["user"], columns["item"], sequences)


def _towers(model: FieldReader, system: str) -> dict[Side, list[str]]:
    if system == import_settings.EASYREC:
        return {Side.USER: ["user", "hist"], Side.ITEM: ["item"]}
    user, item = model.message("user_tower"), model.message("item_tower")
    return {Side.USER: [user.get("input", "user"), user.get("history_input", "")], Side.ITEM: [item.get("input", "item")]}


def _sections(
    base: Mapping[str, Any] | None, record: ImportRecord, features: ImportedFeatures, ids: IdFields, label: str
) -> dict[str, Any]:
    """Returns the configuration as a mapping. Without a base, tables, events and calendar are examples to be replaced."""
    sections = dict(base or _example(ids, label, record))
    sections.pop("statistics", None)
    raw = dict(sections.get("raw_features") or {})
    if features.history_columns:
        raw["history_columns"] = list(dict.fromkeys([*(raw.get("history_columns") or []), *features.history_columns]))
    hashes = {"hash_function": "farm_fingerprint64"} if record.system == import_settings.EASYREC else {}
    if hashes:
        record.tell("Texts are hashed by FarmHash Fingerprint64, as EasyRec does (features.hash_function).")
    exclude = {"exclude": features.exclude} if features.exclude else {}
    sections |= {"raw_features": raw, "features": {"fg_path": FG_FILE, **hashes, **exclude}}
    for section in ("model", "training"):
        settings = record.settings.items()
        sections[section] = {key.partition(".")[2]: given.value for key, given in settings if key.startswith(f"{section}.")}
    return {name: sections[name] for name in (*_OWN_SECTIONS, *sections) if sections.get(name)}


def _example(ids: IdFields, label: str, record: ImportRecord) -> dict[str, Any]:
    """Returns sections to be replaced: their files do not exist, so nothing runs with them."""
    renamed = {col.USER_ID: ids.user, col.ITEM_ID: ids.item}

    def table(name: str, *keys: str) -> dict[str, Any]:
        columns = {key: renamed[key] for key in keys if renamed[key] != key}
        layout = {"layout": "time_column"} if name == "behavior" else {}
        return {"uri": f"{{data}}/{name}.parquet", **layout, **({"columns": columns} if columns else {})}

    events: dict[str, Any] = {"funnel": [label], "positive": [label]}
    if str(record.settings.get("model.sampler", ("",))[0]).startswith("hard"):
        events = {"funnel": ["expr", label], "positive": [label], "exposure": ["expr"]}
    tables = {"user": table("users", col.USER_ID), "item": table("items", col.ITEM_ID)}
    tables["behavior"] = table("behavior", col.USER_ID, col.ITEM_ID)
    return {"calendar": {"start": "2026-01-01"}, "tables": tables, "events": events}


def _tell_values(spec: FgSpec, record: ImportRecord) -> None:
    for feature in (*spec.features, *spec.sequence_features):
        is_number, is_row = feature.kind is Kind.NUMERIC, feature.sequence is None
        is_unbinned = is_number and not getattr(feature.operator, "boundaries", None)
        if is_row and not is_number and feature.is_multi:
            pooled = "Several values of a row are pooled by their weighted mean, not their sum"
            record.tell(f"{pooled}; `value_dim: 1` is faster for one", feature.name)
        if is_row and is_unbinned:
            record.tell("Numbers without boundaries are cut into bins, each with an embedding", feature.name)
        if is_unbinned and not is_row:
            record.tell("Numbers of the history need boundaries; without, feature_config leaves the feature out", feature.name)
        if is_number and feature.is_multi:
            record.tell("Vectors are not read as they are: the embeddings of their numbers' bins are averaged", feature.name)
        if record.system == import_settings.EASYREC and getattr(feature.operator, "vocab_list", None):
            record.tell("Indices of a vocab_list begin at 2; 0 is a missing value and 1 an unknown one", feature.name)


def _config_yaml(sections: Mapping[str, Any], record: ImportRecord) -> str:
    lines = [
        f"# Written by `dssm-assets import-config` from {record.where} ({record.system}). import_report.md names the differences in",
        "# behavior, and every field without counterpart. Then: dssm-assets validate --config THIS_FILE",
    ]
    for section, value in sections.items():
        if not isinstance(value, Mapping):
            lines.append(f"{section}: {_inline(value)}")
            continue
        lines += ["", f"{section}:"]
        for key, inner in value.items():
            setting = record.settings.get(f"{section}.{key}")
            lines.append(f"  {key}: {_inline(inner)}" + (f"    # {setting.origin}" if setting else ""))
    return "\n".join(lines) + "\n"


def _inline(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _report(record: ImportRecord, model: str, *, has_base: bool) -> str:
    lines = [f"# {record.where}: {model} of {record.system}", ""]
    if not has_base:
        lines += [
            "**To be filled in**: `calendar`, `tables` and `events` in config.yaml are examples, because the imported configuration reads "
            "finished samples. `dssm-assets init` writes these sections for your tables; `--base ITS_CONFIG` takes them from there.",
            "",
        ]
    lines += ["## What behaves differently", "", *(f"- {sentence}" for sentence in record.differences), ""]
    lines += ["## What has no counterpart", "", *(_list_lost(record.without_counterpart) or ["Nothing."])]
    if record.ids:
        lines += ["", "Columns of ids: " + ", ".join(f"`{column}` ({place})" for place, column in record.ids.items()) + "."]
    return "\n".join(lines) + "\n"


def _list_lost(lost: Mapping[str, str]) -> list[str]:
    reasons: dict[str, dict[str, list[str]]] = {}
    for place, reason in lost.items():
        path, line, rest = place.partition(" (line ")
        reasons.setdefault(reason, {}).setdefault(path, []).append(f"{line}{rest}")
    return [
        f"- {reason}: " + "; ".join(f"`{path}`{','.join(values)}" for path, values in fields.items())
        for reason, fields in reasons.items()
    ]
