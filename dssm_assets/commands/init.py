"""`dssm-assets init`: a commented starter configuration for your own three tables, after a look at them.

Belongs here: arguments and printing. Does not belong here: looking and deciding (`steps/starter.py`).
"""

from __future__ import annotations

import argparse
import datetime as dt
import shlex
from pathlib import Path

_ROLES = {
    "user_id": "the log's column of user ids",
    "item_id": "the log's column of item ids",
    "event_time": "the log's column of moments",
    "event": "the log's column of event names",
}


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command."""
    made = commands.add_parser(
        "init",
        help="look at your own three tables and write a commented starter configuration for them",
        epilog="Tables are parquet or csv, files or folders, with folders ds=YYYY-MM-DD or without, at any fsspec URL. Written "
        "are config.yaml and fg.json; both are then held against the tables, as `dssm-assets validate` does.",
    )
    for table, what in (("user", "users"), ("item", "items"), ("behavior", "the behaviour log")):
        made.add_argument(f"--{table}", required=True, metavar="PATH", help=f"the table of {what}")
    made.add_argument("--out", type=Path, default=Path(), help="folder to write to (default: here)")
    made.add_argument("--name", default="dssm", help="the scene's name: small letters, digits and _ (default: dssm)")
    made.add_argument("--timezone", default="UTC", help="in which days are counted, e.g. Europe/Berlin (default: UTC)")
    made.add_argument("--force", action="store_true", help="replace files that are there")
    columns = made.add_argument_group("what a look cannot tell")
    for role, what in _ROLES.items():
        columns.add_argument(f"--{role.replace('_', '-')}", metavar="COLUMN", help=what)
    made.set_defaults(command=_init)


def _init(parsed: argparse.Namespace) -> int:
    from dssm_assets.commands.validate import print_validation
    from dssm_assets.steps.config_checks import validate
    from dssm_assets.steps.starter import Asked, write_starter
    from dssm_assets.storage.config_file import load_config

    said = {role: getattr(parsed, role) for role in _ROLES if getattr(parsed, role) is not None}
    folder = parsed.out.absolute()
    asked = Asked(parsed.user, parsed.item, parsed.behavior, folder, parsed.name, parsed.timezone, said)
    path = write_starter(asked, is_replacing=parsed.force)
    print(f"Written: {path} and fg.json beside it. Read config.yaml once: each choice has its reason beside it.")
    found = validate(load_config(path, folder, checks_features=False), dt.date.today())
    print_validation(found, str(path))
    if not found.faults:
        print(
            f"\nNext:\n  DSSM_CONFIG={shlex.quote(str(path))} DAGSTER_HOME={shlex.quote(str(folder))} dg dev  # in the project's folder"
        )
    return 1 if found.faults else 0
