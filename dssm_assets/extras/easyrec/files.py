"""Configurations of EasyRec and TorchEasyRec as files: imported into a folder, and written for a day."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from dssm_assets.core.columns import FEATURE, FEATURE_INFO, MESSAGE
from dssm_assets.core.config.pipeline import parse_config
from dssm_assets.core.errors import ConfigError, Fault
from dssm_assets.core.features.fg_files import FG_FILE
from dssm_assets.core.statistics.feature_rules import FeatureInfo
from dssm_assets.extras.easyrec.export_pipeline import ExportSource, export_pipeline
from dssm_assets.extras.easyrec.import_pipeline import ImportedPipeline, import_pipeline
from dssm_assets.steps.feature_config import towers_of
from dssm_assets.steps.workspace import Workspace
from dssm_assets.storage.config_choice import CONFIG_FILE
from dssm_assets.storage.local_files import write_atomic

REPORT_FILE = "import_report.md"


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

    Args:
        pipeline: the configuration, in text format.
        base: config.yaml whose calendar, tables, events and other sections are kept.
        sequence_columns: feature of a sequence -> the column of an item that it has.

    Raises:
        ConfigError: a file cannot be read or exists already, or the configuration has faults; names all of them.
        FeatureSpecError: features that this project refuses.
    """
    existing = [path for name in (CONFIG_FILE, FG_FILE, REPORT_FILE) if (path := folder / name).exists()]
    if existing and not is_replacing:
        raise ConfigError(Fault(str(existing[0]), "no such file", "an existing one", "choose another --out, or pass --force"))
    named: dict[str, bytes] = {}

    def read_named(name: str) -> bytes:
        places = [parent / name for parent in (pipeline.parent, *([] if fg is None else [fg.parent]), Path())]
        named[name] = next((path for path in places if path.is_file()), places[0]).read_bytes()
        return named[name]

    parsed = None if fg is None else _read_mapping(json.loads, fg)
    sections = None if base is None else _read_mapping(yaml.safe_load, base)
    if base is not None and sections is not None:
        parse_config(sections, f"configuration {base.name}")
    found = import_pipeline(
        _read_text(pipeline),
        pipeline.name,
        fg=parsed,
        base=sections,
        sequence_columns=sequence_columns,
        read_file=read_named,
    )
    if outside := [name for name in named if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts]:
        got, remedy = ", ".join(outside), f"copy it next to {pipeline.name} and name it without a folder"
        raise ConfigError(Fault(f"{pipeline.name}, files of features", "a path within the folder", got, remedy))
    texts = {CONFIG_FILE: found.config_yaml, FG_FILE: found.fg_json, REPORT_FILE: found.report}
    for name, content in {**named, **{name: text.encode() for name, text in texts.items()}}.items():
        write_atomic(folder / name, [content])
    return found


def _read_mapping(parse: Callable[[str], Any], path: Path) -> Mapping[str, Any]:
    """Returns the mapping of a file, where `{data}` is its own folder."""
    try:
        parsed = parse(_read_text(path).replace("{data}", str(path.parent.absolute())))
        if isinstance(parsed, Mapping):
            return parsed
        got = type(parsed).__name__
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        got = str(error)
    raise ConfigError(Fault(f"file {path}", "a mapping in its format", got, "correct the file"))


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise ConfigError(Fault(f"file {path}", "a file that can be read", str(error), "correct the path")) from error


def export_text(workspace: Workspace, ds: str, system: str) -> str:
    """Returns the training run of a day as a configuration of a system; comments at its end name what it cannot express.

    Raises:
        PartitionMissingError: feature_config or training_config of the day is missing.
    """
    settings = towers_of(workspace, ds)
    rows = workspace.tables.read(workspace.need("feature_config", ds)).to_pylist()
    config = workspace.config
    source = ExportSource(
        workspace.fg_spec,
        infos={row[FEATURE]: FeatureInfo.from_json(row[FEATURE_INFO]) for row in rows if row[FEATURE_INFO] is not None},
        dropped={row[FEATURE]: row[MESSAGE] for row in rows if row[FEATURE_INFO] is None},
        model=settings.model,
        training=settings.training,
        plan=settings.plan,
        hash_function=config.features.hash_function,
    )
    text, notes = export_pipeline(source, system)
    head = f"# {system}: the training run of {config.name} for {ds}. Fill in the paths."
    return f"{head}\n{text}" + "".join(f"# not expressed: {' '.join(note.split())}\n" for note in notes)
