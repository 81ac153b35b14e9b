"""Writes the files of a component for `dg scaffold defs dssm_assets.DssmRecall`."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

from dagster.components.component_scaffolding import scaffold_component

from dssm_assets.core.errors import ConfigError, Fault
from dssm_assets.extras.starter.write_starter import describe_starter, write_starter
from dssm_assets.storage.config_choice import CONFIG_FILE, DEFAULT_HOME


def write_component(request: Any) -> str:
    """Writes defs.yaml, config.yaml and fg.json for a ScaffoldRequest; returns the description that `dssm-assets init` would print."""
    tables, folder = request.params, request.target_path
    if tables.behavior is None:
        remedy = f"dg scaffold defs dssm_assets.DssmRecall {folder.name} --behavior LOG [--user TABLE] [--item TABLE]"
        expected = "the behavior log: a file, a folder, a URL or a table of a database"
        raise ConfigError(Fault("option --behavior", expected, "none", remedy))
    name = folder.name.lower().replace("-", "_")
    inputs = write_starter(
        tables.behavior,
        folder,
        user=tables.user,
        item=tables.item,
        name=name,
        timezone=tables.timezone,
        time_format=tables.time_format,
    )
    scaffold_component(request, {"config": CONFIG_FILE})
    project = (request.project_root or Path()).absolute()
    described, _ = describe_starter(inputs, project / DEFAULT_HOME / name, dt.date.today(), project)
    return described
