"""Loads the configuration file: imports its plug-ins, parses it, and fills in its variables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dssm_assets.core.config.pipeline import PipelineConfig, parse_config
from dssm_assets.core.errors import ConfigError, Fault
from dssm_assets.storage.plugins import import_plugins


@dataclass(frozen=True)
class LoadedConfig:
    """A parsed configuration, its feature definitions, and the folders that its relative paths start from."""

    config: PipelineConfig
    fg: Mapping[str, Any]
    home: Path
    path: Path | None
    fg_folder: Path

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """Imports the plug-ins in a process that receives a pickled configuration."""
        ConfigError.raise_if(import_plugins(state["config"].plugins))
        self.__dict__.update(state)

    def read_fg_file(self, name: str) -> bytes:
        """Returns the content of a file named in the feature definitions. The path is relative to the definitions.

        Raises:
            OSError: the file cannot be read, or is outside the definitions' folder and not in features.files_outside. Bundles
                contain such files.
        """
        path, folder = (self.fg_folder / name).resolve(), self.fg_folder.resolve()
        if not path.is_relative_to(folder) and name not in self.config.features.files_outside:
            raise PermissionError(
                f"it is outside {folder}, and every bundle would publish its content: to allow this, list it in features.files_outside"
            )
        return path.read_bytes()

    def check_features(self) -> None:
        """Checks the feature definitions.

        Raises:
            FeatureSpecError: the definitions have faults; all are listed.
        """
        from dssm_assets.core.features.spec import parse_fg

        parse_fg(self.fg, read_file=self.read_fg_file)

    @property
    def root(self) -> str:
        return self.config.storage.root.replace("{home}", str(self.home)).replace("{name}", self.config.name)

    @property
    def scratch(self) -> Path:
        return Path(self.config.duckdb.scratch.replace("{home}", str(self.home)))


class _Loader(yaml.SafeLoader):
    """A safe loader. Its errors name the place of a bad value, and it refuses repeated keys: YAML would silently keep the last."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:  # raised by YAML's constructors
            problem = f"{str(node.value)[:80]!r} is no {node.tag.rpartition(':')[2]}: {error}"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from error

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"):
            if key.value in seen:
                problem = f"the key {key.value!r} is given twice in one mapping"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} is given twice in one mapping")
    return mapping


def load_config(path: Path, home: Path, *, checks_features: bool = True) -> LoadedConfig:
    """Loads the configuration from a YAML file.

    In a source table's uri, `{data}` is replaced by the folder of the file and `{home}` by the home folder.

    Args:
        checks_features: False leaves the feature definitions unchecked (see `LoadedConfig.check_features`), so that a code
            location starts without loading the feature generator.

    Raises:
        ConfigError: the file is missing or not YAML, or has unknown keys, bad values or plug-ins that cannot be imported.
    """
    if not path.is_file():
        remedy = "correct the path in --config or DSSM_CONFIG"
        raise ConfigError(Fault(f"configuration {path}", "a YAML file", "no such file", remedy))
    raw = parse_yaml(path, f"configuration {path}")
    if not isinstance(raw, dict):
        raise ConfigError(Fault(f"configuration {path}", "a mapping", type(raw).__name__, "start with the key `calendar:`"))
    config = _parse(raw, f"configuration {path.name}")
    return complete_config(config, home=home, path=path, checks_features=checks_features)


def parse_yaml(given: Path | str, where: str) -> Any:
    """Parses a YAML text, or a YAML file.

    Raises:
        ConfigError: the file cannot be read, or the text is not YAML or gives a key twice.
    """
    try:
        text = given.read_text(encoding="utf-8") if isinstance(given, Path) else given
        return yaml.load(text, _Loader)  # a safe loader
    except (yaml.YAMLError, OSError, TypeError, ValueError, RecursionError) as error:  # !!set of a text is a ValueError
        got = str(error) if not isinstance(error, RecursionError) else "too many levels"
        raise ConfigError(Fault(where, "valid YAML in UTF-8", got, "correct the syntax")) from error


def complete_config(
    config: PipelineConfig, *, home: Path, path: Path | None = None, checks_features: bool = True
) -> LoadedConfig:
    """Adds the feature definitions to a configuration, and replaces `{data}` and `{home}` in source paths by folders.

    Raises:
        ConfigError: fg.json cannot be read.
        FeatureSpecError: the feature definitions have faults; all are listed.
    """
    data = path.parent if path is not None else home
    fg_file = data / (config.features.fg_path or "fg.json")
    fg = config.features.fg if config.features.fg is not None else _read_fg(fg_file)
    tables = {
        name: table.model_copy(update={"uri": table.uri.replace("{data}", str(data)).replace("{home}", str(home))})
        for name, table in config.tables
        if table is not None
    }
    config = config.model_copy(update={"tables": config.tables.model_copy(update=tables)})
    loaded = LoadedConfig(config, fg, home, path, fg_file.parent)
    if checks_features:
        loaded.check_features()  # before anything runs
    return loaded


def config_to_json(loaded: LoadedConfig) -> dict[str, Any]:
    """Converts a configuration to JSON values, for a process that cannot read the file."""
    paths = {"home": str(loaded.home), "path": None if loaded.path is None else str(loaded.path)}
    config = loaded.config.model_dump(mode="json")
    return {"config": config, "fg": dict(loaded.fg), "fg_folder": str(loaded.fg_folder), **paths}


def config_from_json(body: Mapping[str, Any]) -> LoadedConfig:
    """Restores a configuration from the values of `config_to_json`."""
    path = None if body["path"] is None else Path(body["path"])
    return LoadedConfig(_parse(body["config"]), body["fg"], Path(body["home"]), path, Path(body["fg_folder"]))


def _parse(raw: Mapping[str, Any], where: str = "configuration") -> PipelineConfig:
    named = raw.get("plugins")
    is_valid = isinstance(named, list) and all(isinstance(name, str) for name in named)
    faults = import_plugins(named if is_valid and named else (), where)
    try:
        config = parse_config(raw, where)
    except ConfigError as error:
        raise ConfigError([*faults, *error.faults]) from error
    ConfigError.raise_if(faults)
    return config


def _read_fg(path: Path) -> Mapping[str, Any]:
    try:
        if not path.is_file():  # opening a pipe would wait
            raise FileNotFoundError("no such file")
        parsed = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_unique_keys)
    except (OSError, ValueError, RecursionError) as error:
        where, expected = "configuration, key features.fg_path", f"a JSON file at {path.name}"
        raise ConfigError(
            Fault(where, expected, str(error), "correct the path or file; long vocabularies have a vocab_file")
        ) from error
    if not isinstance(parsed, dict):
        raise ConfigError(Fault(f"fg.json {path.name}", "a mapping", type(parsed).__name__, 'start with {"features": [...]}'))
    return parsed
