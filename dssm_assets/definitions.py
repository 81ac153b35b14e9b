"""The table of contents of the code location: `build_definitions(...)`, and `defs`, built from the environment.

    DSSM_CONFIG   the YAML file (default: config.yaml in the home folder, else the packaged demo)
    DSSM_HOME     where tables and models go (default: DAGSTER_HOME, else ./.dssm)

Belongs here: putting assets, jobs and the executor together. Does not belong here: any of their parts.
"""

import os
from pathlib import Path

import dagster as dg

from dssm_assets.defs.asset_factory import Observer, build_asset
from dssm_assets.defs.asset_table import all_rows
from dssm_assets.defs.jobs import jobs_for
from dssm_assets.defs.partitions import daily_partitions
from dssm_assets.steps.workspace import Workspace, open_workspace
from dssm_assets.storage.config_file import LoadedConfig, load_config

PACKAGED_CONFIG = Path(__file__).parent / "datasets" / "complete_journey.yaml"


def build_definitions(config: LoadedConfig | Path | None = None, observer: Observer | None = None) -> dg.Definitions:
    """Returns the whole asset graph of one configuration.

    Args:
        config: a loaded configuration, the path of a YAML file (its folder is the home), or None for what the
            environment names.
        observer: told of progress.

    Raises:
        ConfigError: the file is missing or wrong.
    """
    if isinstance(config, Path):
        loaded = load_config(config.absolute(), config.absolute().parent)
    else:
        loaded = configured() if config is None else config
    rows = all_rows()
    daily = daily_partitions(loaded.config.calendar)

    def workspace(log) -> Workspace:  # type: ignore[no-untyped-def]
        return open_workspace(loaded, log=log)

    return dg.Definitions(
        assets=[build_asset(row, daily, workspace, observer or Observer()) for row in rows],
        jobs=jobs_for(rows),
        executor=dg.in_process_executor,
    )


def configured() -> LoadedConfig:
    """Returns the configuration that the environment names."""
    home = Path(os.environ.get("DSSM_HOME") or os.environ.get("DAGSTER_HOME") or ".dssm").absolute()
    default = home / "config.yaml"
    path = Path(os.environ.get("DSSM_CONFIG") or (default if default.is_file() else PACKAGED_CONFIG))
    return load_config(path.absolute(), home)


defs = build_definitions()
