"""The commands `init` (writes a configuration for your own tables) and `validate` (checks one against its data before a run)."""

from __future__ import annotations

import argparse
import datetime as dt
from functools import partial
from pathlib import Path
from typing import Final

from dssm_assets.commands.command_groups import Commands, Group
from dssm_assets.commands.config_arguments import add_config_arguments, announce_config

RECIPES: Final = ("retail", "video", "news", "sparse")
"""The recipes of `starter_settings.py`, which is not imported here: that would slow down every command."""
_print_line: Final = partial(print, flush=True)
_ROLES: Final = {"user_id": "user ids", "item_id": "item ids", "event_time": "timestamps", "event": "event names"}


def add_command(commands: Commands) -> None:
    parser = commands.add_parser(
        "init",
        group=Group.START,
        help="survey your own tables and write a commented starter configuration for them",
        epilog="Tables are files or folders of parquet, csv or JSON lines, with or without folders ds=YYYY-MM-DD, at any fsspec URL; Delta "
        "tables, by their folders; Iceberg tables, iceberg:CATALOG#shop.clicks; or tables of a database: sqlite:///shop.db#clicks, or "
        "env:SHOP_DB#public.clicks, where the environment variable SHOP_DB holds its URI. A log alone is enough. The command writes "
        "config.yaml, fg.json and dagster.yaml, and checks them against the tables as `dssm-assets validate` does.",
    )
    parser.add_argument("--behavior", required=True, metavar="PATH", help="the behavior log")
    for side in ("user", "item"):
        parser.add_argument(f"--{side}", metavar="PATH", help=f"the table of {side}s (default: none, their ids are in the log)")
    what = f"the starting point: {', '.join(RECIPES)} (default: by the habits of the log)"
    parser.add_argument("--recipe", choices=RECIPES, metavar="NAME", help=what)
    parser.add_argument("--out", type=Path, default=Path(), help="folder to write to (default: here)")
    parser.add_argument("--name", default="dssm", help="the scene's name: lower-case letters, digits and _ (default: dssm)")
    parser.add_argument("--timezone", default="UTC", help="time zone of days, e.g. Europe/Berlin (default: UTC)")
    parser.add_argument("--force", action="store_true", help="replace existing files")
    columns = parser.add_argument_group("columns that the survey cannot identify")
    for role, what in _ROLES.items():
        columns.add_argument(f"--{role.replace('_', '-')}", metavar="COLUMN", help=f"the log's column of {what}")
    columns.add_argument(
        "--time-format",
        metavar="FORMAT",
        help="format of the log's timestamps, by the directives of strptime, e.g. '%%d.%%m.%%Y %%H:%%M' (default: by their values)",
    )
    parser.set_defaults(command=_init)
    checker = commands.add_parser(
        "validate",
        group=Group.START,
        help="check a configuration against its data before any run, and list all faults",
        epilog="Reads the user and item tables of the first and the last day, and the configured columns of the log. Writes nothing. "
        "Exit status: 0 without faults, else 1.",
    )
    add_config_arguments(checker, has_scene=False)
    checker.set_defaults(command=_validate)


def _init(parsed: argparse.Namespace) -> int:
    from dssm_assets.extras.starter.starter_settings import Recipe
    from dssm_assets.extras.starter.write_starter import describe_starter, write_starter
    from dssm_assets.storage.config_choice import CONFIG_FILE
    from dssm_assets.storage.instance_file import write_instance_file

    folder = parsed.out.absolute()
    print(f"configuration {folder / CONFIG_FILE} (to be written), home {folder} (--out)", flush=True)
    inputs = write_starter(
        parsed.behavior,
        folder,
        user=parsed.user,
        item=parsed.item,
        name=parsed.name,
        timezone=parsed.timezone,
        columns={role: given for role in _ROLES if (given := getattr(parsed, role)) is not None},
        recipe=parsed.recipe and Recipe(parsed.recipe),
        time_format=parsed.time_format,
        is_replacing=parsed.force,
        log=_print_line,
    )
    write_instance_file(folder)
    described, is_valid = describe_starter(inputs, folder, dt.date.today(), log=_print_line)
    print(described)
    return 0 if is_valid else 1


def _validate(parsed: argparse.Namespace) -> int:
    choice = announce_config(parsed)
    from dssm_assets.definitions import load_configured
    from dssm_assets.extras.starter.config_checks import describe_validation, validate

    has_faults = False
    for loaded in load_configured(choice, checks_features=False):
        found = validate(loaded, dt.date.today(), _print_line)
        has_faults |= bool(found.faults)
        print(describe_validation(found, str(loaded.path or loaded.config.name)))
    return 1 if has_faults else 0
