"""`dssm-assets validate`: checks the configuration against its data, before any run."""

from __future__ import annotations

import argparse
import datetime as dt
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from dssm_assets.commands.config_arguments import add_config_arguments, announce_config

if TYPE_CHECKING:
    from dssm_assets.core.errors import Fault
    from dssm_assets.steps.config_checks import Validation

_PATH: Final = re.compile(r"\S*/[^,]*")
"""The path of a file, up to the next comma."""


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "validate",
        help="check a configuration against its data before any run, and list all faults",
        epilog="Reads the user and item tables of the first and the last day, and the configured columns of the log. Writes nothing. "
        "Exit status: 0 without faults, else 1.",
    )
    add_config_arguments(parser, has_scene=False)
    parser.set_defaults(command=_validate)


def _validate(parsed: argparse.Namespace) -> int:
    choice = announce_config(parsed)
    from dssm_assets.definitions import load_configured
    from dssm_assets.steps.config_checks import validate

    has_faults = False
    for loaded in load_configured(choice, checks_features=False):
        found = validate(loaded, dt.date.today())
        has_faults |= bool(found.faults)
        print_validation(found, str(loaded.path or loaded.config.name))
    return 1 if has_faults else 0


def print_validation(found: Validation, name: str) -> None:
    """Prints the figures of a validation, then its faults, numbered, or that there are none."""
    for what, figure in found.figures.items():
        print(f"  {what}: {figure}")
    if not found.faults:
        print(f"{name} matches its data.")
        return
    count = len(found.faults)
    print(f"{name}: {count} fault{'s' if count > 1 else ''}")
    for number, (fault, *others) in enumerate(_group_by_location(found.faults), start=1):
        more = f". The same in {len(others)} more files, the last one: {others[-1].where}." if others else ""
        print(f"  {number}. {fault}{more}")


def _group_by_location(faults: Iterable[Fault]) -> list[list[Fault]]:
    """Returns the faults sorted by location; those that differ only in the file are grouped."""
    groups: dict[tuple[str, ...], list[Fault]] = {}
    for fault in sorted(faults, key=lambda fault: fault.where):
        location = _PATH.sub("", fault.where)
        groups.setdefault((location, fault.expected, fault.got, fault.remedy), []).append(fault)
    return list(groups.values())
