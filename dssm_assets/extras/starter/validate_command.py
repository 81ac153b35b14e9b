"""`dssm-assets validate`: checks the configuration against its data, before any run."""

from __future__ import annotations

import argparse
import datetime as dt

from dssm_assets.commands.config_arguments import add_config_arguments, announce_config


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
    from dssm_assets.extras.starter.config_checks import validate
    from dssm_assets.extras.starter.config_report import describe_validation

    has_faults = False
    for loaded in load_configured(choice, checks_features=False):
        found = validate(loaded, dt.date.today())
        has_faults |= bool(found.faults)
        print(describe_validation(found, str(loaded.path or loaded.config.name)))
    return 1 if has_faults else 0
