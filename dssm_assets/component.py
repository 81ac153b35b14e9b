"""The Dagster component `dssm_assets.DssmRecall`: puts the asset graph of one configuration into another project's defs folder."""

from dataclasses import replace
from pathlib import Path
from typing import Final

import click
import dagster as dg
from pydantic import BaseModel, Field

from dssm_assets.core.errors import ConfigError, DssmError, Fault
from dssm_assets.definitions import scene_definitions
from dssm_assets.defs.asset_factory import Observer
from dssm_assets.defs.scene import Scene
from dssm_assets.installed_extras import load_extra
from dssm_assets.storage.config_choice import CONFIG_FILE, DEFAULT_HOME
from dssm_assets.storage.config_file import load_config

_SOURCE_TABLES: Final = ("user", "item", "behavior")
_NAME: Final = r"^[a-z][a-z0-9_]*$"
_EXECUTOR: Final = "dg.Definitions(executor=dg.in_process_executor)"
"""Recommended executor of a project. With Dagster's default executor, each step is a new process and imports everything again."""


class StarterTables(BaseModel):
    """The options of `dg scaffold defs dssm_assets.DssmRecall`. `dssm-assets init` has the same options."""

    behavior: str | None = Field(
        None,
        description="The behavior log: parquet, csv or JSON lines, a file or a folder, at a path or URL, or a table of a database.",
    )
    user: str | None = Field(None, description="The table of users (default: none, their ids are in the log).")
    item: str | None = Field(None, description="The table of items (default: none, their ids are in the log).")
    timezone: str = Field("UTC", description="Time zone of days, e.g. Europe/Berlin.")
    time_format: str | None = Field(
        None,
        description="Format of the log's times in text, such as %d.%m.%Y %H:%M (default: ISO 8601, or found by the values).",
    )


class RecallScaffolder(dg.Scaffolder[StarterTables]):
    """Writes defs.yaml, and the config.yaml and fg.json of `dssm-assets init`."""

    @classmethod
    def get_scaffold_params(cls) -> type[StarterTables]:
        return StarterTables

    def scaffold(self, request: dg.ScaffoldRequest[StarterTables]) -> None:
        """Writes the files into the component's folder, names the scene after it, and prints the output of `dssm-assets init`.

        Raises:
            ClickException: no log is named, or the tables cannot be understood; dg prints it without a traceback.
        """
        try:
            described = load_extra("starter", "scaffolded_component").write_component(request)
        except DssmError as error:
            if not any(request.target_path.iterdir()):
                request.target_path.rmdir()  # dg has made the folder, and would refuse to write into it the next time
            raise click.ClickException(str(error)) from error
        click.echo(
            f"{described}\n  # The project's definitions, for what is launched without a job in one process: {_EXECUTOR}"
        )


@dg.scaffold_with(RecallScaffolder)
class DssmRecall(dg.Component, dg.Model, dg.Resolvable):
    """Two-tower (DSSM) vector recall: assets from a behavior log to hit_rate@k and a serving bundle, with checks, jobs and sensors.

    Every name starts with the prefix, so a project may have several instances: asset `shop/total_hit_rate`, group
    `shop_evaluation`, job `shop_daily_chain`. A run of these jobs is one process. Other runs use the project's executor.

    To scaffold it: dg scaffold defs dssm_assets.DssmRecall NAME --behavior LOG. Optional: --user TABLE, --item TABLE, --timezone
    ZONE, --time-format FORMAT. Each table is a file, a folder, a URL or a table of a database.
    """

    config: str = Field(CONFIG_FILE, description="The configuration file, relative to the folder of defs.yaml.")
    key_prefix: str | None = Field(
        None,
        pattern=_NAME,
        description="Prefix of the names of assets, groups, jobs, schedules, sensors and pools, in place of the key `name` of the "
        "configuration.",
    )
    home: str | None = Field(
        None,
        description=f"Folder of tables, models and bundles, relative to the project (default: {DEFAULT_HOME}/<key_prefix>). The key "
        "`storage.root` of the configuration may lead elsewhere, for example to S3.",
    )
    source_assets: dict[str, str] = Field(
        default_factory=dict,
        description="Assets of yours that make the source tables: user, item or behavior -> asset key, e.g. "
        "{behavior: warehouse/clicks}. The tables are read where the configuration says; this adds the dependency.",
    )

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Returns the asset graph of the configuration, without an executor.

        Raises:
            ConfigError: the configuration is missing or wrong, or source_assets names no source table.
        """
        ConfigError.raise_if(
            Fault("defs.yaml, attribute source_assets", f"keys among {', '.join(_SOURCE_TABLES)}", table, "correct the key")
            for table in self.source_assets
            if table not in _SOURCE_TABLES
        )
        return scene_definitions(self.load_scene(context.path, context.project_root), Observer())

    def load_scene(self, folder: Path, project: Path) -> Scene:
        """Returns the scene for an instance in a project's folder."""
        path = (folder if folder.is_dir() else folder.parent) / self.config
        prefix = self.key_prefix or load_config(path, path.parent, checks_features=False).config.name
        loaded = load_config(path, project / (self.home or f"{DEFAULT_HOME}/{prefix}"), checks_features=False)
        # The prefix replaces `{name}` in storage.root, so that several instances of a configuration are stored separately.
        named = replace(loaded, config=loaded.config.model_copy(update={"name": prefix}))
        upstream = {f"{table}_table": dg.AssetKey.from_user_string(key) for table, key in self.source_assets.items()}
        return Scene(named, prefix, source_assets=upstream)
