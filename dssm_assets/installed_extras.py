"""Finds the installed extras: rows of the table below with a folder in `dssm_assets/extras`.

The spine uses extras only through this module, so deleting an extra's folder removes its feature and nothing else. An extra may
import the spine, but no other extra. Import contracts prove both.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from dssm_assets import extras
from dssm_assets.core.errors import ConfigError, Fault

if TYPE_CHECKING:
    from dssm_assets.storage.config_file import LoadedConfig


@dataclass(frozen=True)
class Extra:
    """The parts of an extra: names of modules in its folder, imported when needed. Each has one function or constant:

    Attributes:
        command: `add_command(commands)` adds a command to `dssm-assets`.
        rows: `ROWS` are further rows of the asset table.
        definitions: `build(scene)` returns further assets, jobs and sensors, outside of the asset table.
        forms: `settings_form(row, scene)` returns the form of an asset in the Launchpad.
        runs: `open_run(context, scene, row)` replaces the regular run if the run's settings ask for it.
        run_start: `on_run_start(workspace)` is called once in each run.
        attributes: `asset_attributes(scene)` returns further arguments for the assets of the asset table.
        cleaned: `on_cleaned(workspace, before, removes)` is called by a cleanup, after it removed old partitions and before it removes
            files older than the unix time `before`. Returns the paths of files that must stay. Its errors do not stop the cleanup.
        unreached: `list_unreached(workspace)` returns stores with rows of users that this extra can no longer reach. The receipt of a
            request to forget users lists them.
        served: `on_served(loaded, log)` is called when the served bundle may have changed: after a delta or a rollback.
        materialized: `on_materialized(context, run, workspace, results)` is called when an asset's partitions are stored, before
            Dagster records them. `run` is the `AssetRun`.
    """

    command: str = ""
    rows: str = ""
    definitions: str = ""
    forms: str = ""
    runs: str = ""
    run_start: str = ""
    attributes: str = ""
    served: str = ""
    materialized: str = ""
    cleaned: str = ""
    unreached: str = ""


EXTRAS: Final[Mapping[str, Extra]] = {
    "als": Extra(),
    "bundle_delta": Extra(definitions="definitions"),
    "databases": Extra(),
    "easyrec": Extra(command="command"),
    "experiments": Extra(command="command", rows="forms", forms="forms", runs="runs"),
    "explore": Extra(command="command", materialized="running"),
    "external_vectors": Extra(command="command"),
    "feature_importance": Extra(rows="rows"),
    "freshness": Extra(definitions="checks"),
    "iceberg_catalog": Extra(command="command", run_start="hooks", materialized="hooks", cleaned="hooks", unreached="hooks"),
    "lakehouses": Extra(),
    "mlflow_runs": Extra(run_start="hooks", materialized="hooks"),
    "retention": Extra(command="command", definitions="definitions", run_start="forget"),
    "sampler_tables": Extra(command="command"),
    "several_processes": Extra(command="command"),
    "shown": Extra(rows="rows", definitions="definitions", cleaned="log_folder", unreached="log_folder"),
    "signatures": Extra(),
    "spark": Extra(),
    "starter": Extra(command="command"),
    "stored_tables": Extra(attributes="io_manager"),
    "traces": Extra(),
    "vector_stores": Extra(rows="rows", served="publish", cleaned="publish", unreached="publish"),
}
"""Folder -> parts of the extra."""


@cache
def find_extras() -> dict[str, Extra]:
    """Returns name -> extra for the installed extras."""
    folders = {module.name for module in pkgutil.iter_modules(extras.__path__)}
    return {name: extra for name, extra in EXTRAS.items() if name in folders}


def load_all(kind: str) -> list[ModuleType]:
    """Imports one kind of module, an attribute of `Extra`, from every installed extra with such a module."""
    modules = ((name, getattr(extra, kind)) for name, extra in find_extras().items())
    return [_load(name, module) for name, module in modules if module]


def tell_served(loaded: LoadedConfig, log: Callable[[str], None]) -> None:
    """Tells the extras that the served bundle may have changed."""
    for extra in load_all("served"):
        extra.on_served(loaded, log)


def load_extra(name: str, module: str) -> Any:
    """Imports a module of an extra that a user asked for. Raises a ConfigError if the extra is not installed."""
    if name not in find_extras():
        remedy = "install dssm-assets with this extra, or do not use its feature"
        raise ConfigError(Fault("dssm_assets/extras", f"the extra {name}", f"only {', '.join(find_extras())}", remedy))
    return _load(name, module)


def _load(extra: str, module: str) -> ModuleType:
    return importlib.import_module(f"{extras.__name__}.{extra}.{module}")
