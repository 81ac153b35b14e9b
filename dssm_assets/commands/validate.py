"""`dssm-assets validate`: the configuration held against its data, before any run.

Belongs here: arguments and printing. Does not belong here: the checks (`steps/validation.py`).
"""

from __future__ import annotations

import argparse
import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dssm_assets.steps.validation import Validation


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command."""
    made = commands.add_parser(
        "validate",
        help="check a configuration against its data before any run, listing every fault",
        epilog="Read are the user and item tables of the first and the last day, and the log's configured columns. Nothing is "
        "written. Exit status: 0 without faults, else 1.",
    )
    made.add_argument("--config", type=Path, help="the YAML file (default: what DSSM_CONFIG names)")
    made.add_argument("--home", type=Path, help="the home folder, for `{home}` (default: the file's folder)")
    made.set_defaults(command=_validate)


def _validate(parsed: argparse.Namespace) -> int:
    from dssm_assets.definitions import configured_scenes
    from dssm_assets.steps.validation import validate
    from dssm_assets.storage.config_file import load_config

    if parsed.config is None:
        scenes = configured_scenes(checks_features=False)
    else:
        path = parsed.config.absolute()
        scenes = [load_config(path, (parsed.home or path.parent).absolute(), checks_features=False)]
    has_faults = False
    for loaded in scenes:
        found = validate(loaded, dt.date.today())
        has_faults |= bool(found.faults)
        print_validation(found, str(loaded.path or loaded.config.name))
    return 1 if has_faults else 0


def print_validation(found: Validation, name: str) -> None:
    """Prints the faults of a configuration, numbered, or that there are none, and what was seen."""
    for what, figure in found.figures.items():
        print(f"  {what}: {figure}")
    if not found.faults:
        print(f"{name} fits its data.")
        return
    count = len(found.faults)
    print(f"{name}: {count} fault{'s' if count > 1 else ''}")
    for number, fault in enumerate(sorted(found.faults, key=lambda fault: fault.where), start=1):
        print(f"  {number}. {fault}")
