"""`dssm-assets validate`: the configuration held against its data, before any run.

Belongs here: arguments and printing. Does not belong here: the checks (`steps/config_checks.py`).
"""

from __future__ import annotations

import argparse
import datetime as dt
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from dssm_assets.core.errors import Fault
    from dssm_assets.steps.config_checks import Validation

_PATH: Final = re.compile(r"\S*/[^,]*")
"""The path of a file, up to the comma behind it."""


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
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
    from dssm_assets.definitions import load_configured
    from dssm_assets.steps.config_checks import validate
    from dssm_assets.storage.config_file import load_config

    if parsed.config is None:
        scenes = load_configured(checks_features=False)
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
    for number, (fault, *others) in enumerate(_by_place(found.faults), start=1):
        more = f". The same in {len(others)} more files, the last: {others[-1].where}." if others else ""
        print(f"  {number}. {fault}{more}")


def _by_place(faults: Iterable[Fault]) -> list[list[Fault]]:
    """Returns the faults by where they are; those that differ in the file alone, as a mapping's do in every file, together."""
    groups: dict[tuple[str, ...], list[Fault]] = {}
    for fault in sorted(faults, key=lambda fault: fault.where):
        place = _PATH.sub("", fault.where)
        groups.setdefault((place, fault.expected, fault.got, fault.remedy), []).append(fault)
    return list(groups.values())
