"""`dssm-assets init`: writes a commented starter configuration for your own three tables.

Belongs here: arguments and printing. Does not belong here: surveying the tables and choosing (`steps/starter.py`).
"""

from __future__ import annotations

import argparse
import datetime as dt
import shlex
from pathlib import Path

_ROLES = {
    "user_id": "the log's column of user ids",
    "item_id": "the log's column of item ids",
    "event_time": "the log's column of timestamps",
    "event": "the log's column of event names",
}


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "init",
        help="survey your own three tables and write a commented starter configuration for them",
        epilog="Tables are parquet or csv files or folders, with or without folders ds=YYYY-MM-DD, at any fsspec URL. The command "
        "writes config.yaml and fg.json, and checks them against the tables as `dssm-assets validate` does.",
    )
    for table, what in (("user", "users"), ("item", "items"), ("behavior", "the behaviour log")):
        parser.add_argument(f"--{table}", required=True, metavar="PATH", help=f"the table of {what}")
    parser.add_argument("--out", type=Path, default=Path(), help="folder to write to (default: here)")
    parser.add_argument("--name", default="dssm", help="the scene's name: lower-case letters, digits and _ (default: dssm)")
    parser.add_argument("--timezone", default="UTC", help="time zone of days, e.g. Europe/Berlin (default: UTC)")
    parser.add_argument("--force", action="store_true", help="replace existing files")
    columns = parser.add_argument_group("columns that the survey cannot identify")
    for role, what in _ROLES.items():
        columns.add_argument(f"--{role.replace('_', '-')}", metavar="COLUMN", help=what)
    parser.set_defaults(command=_init)


def _init(parsed: argparse.Namespace) -> int:
    from dssm_assets.commands.validate import print_validation
    from dssm_assets.steps.config_checks import validate
    from dssm_assets.steps.starter import StarterRequest, write_starter
    from dssm_assets.storage.config_file import load_config

    given = {role: getattr(parsed, role) for role in _ROLES if getattr(parsed, role) is not None}
    folder = parsed.out.absolute()
    request = StarterRequest(parsed.user, parsed.item, parsed.behavior, folder, parsed.name, parsed.timezone, given)
    path = write_starter(request, is_replacing=parsed.force)
    print(f"Wrote {path} and fg.json next to it. Read config.yaml once: a comment explains each choice.")
    found = validate(load_config(path, folder, checks_features=False), dt.date.today())
    print_validation(found, str(path))
    if not found.faults:
        print(
            f"\nNext:\n  DSSM_CONFIG={shlex.quote(str(path))} DAGSTER_HOME={shlex.quote(str(folder))} dg dev  # in the project's folder"
        )
    return 1 if found.faults else 0
