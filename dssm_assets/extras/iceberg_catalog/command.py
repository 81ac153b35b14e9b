"""The command `dssm-assets catalog`: registers the stored tables in the Iceberg catalog."""

from __future__ import annotations

import argparse

from dssm_assets.commands.command_groups import Commands, Group
from dssm_assets.commands.config_arguments import add_config_arguments, load_announced_scene


def add_command(commands: Commands) -> None:
    parser = commands.add_parser(
        "catalog",
        group=Group.EXCHANGE,
        help="register stored tables in an Iceberg catalog, where other engines read them",
        epilog="It prints which stored assets it leaves out, and why. Runs and cleanups also register the days that they change. No file is copied.",
    )
    add_config_arguments(parser)
    parser.set_defaults(command=_sync)


def _sync(parsed: argparse.Namespace) -> int:
    from dssm_assets.core.errors import ConfigError, Fault, SchemaError
    from dssm_assets.extras.iceberg_catalog.hooks import find_moved, list_chosen
    from dssm_assets.steps.workspace import open_workspace

    workspace = open_workspace(load_announced_scene(parsed).loaded, print)
    chosen = list_chosen(workspace)
    if not chosen:
        raise ConfigError(Fault("key storage.iceberg", "tables to publish", "nothing", "add `iceberg: {}` to storage"))
    ConfigError.raise_if(find_moved(workspace))
    from dssm_assets.extras.iceberg_catalog.published_tables import PublishedTables

    published, faults = PublishedTables(workspace), list[Fault]()
    for asset in chosen:
        try:
            published.sync(asset)
        except SchemaError as error:  # Iceberg cannot hold this table; the others are still registered
            faults += error.faults
    for reason, assets in published.find_left_out(chosen).items():
        print(f"left out, {reason}: {', '.join(assets)}")
    SchemaError.raise_if(faults)
    return 0
