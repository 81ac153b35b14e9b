"""`dssm-assets configuration`: prints the reference of all configuration keys."""

from __future__ import annotations

import argparse


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "configuration", help="print every configuration key with type, default and meaning (Markdown)"
    )
    command.set_defaults(command=_configuration)


def _configuration(parsed: argparse.Namespace) -> int:
    from dssm_assets.core.config.reference import configuration_page

    print(configuration_page(), end="")
    return 0
