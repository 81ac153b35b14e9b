"""`dssm-assets configuration`: the page of all keys."""

from __future__ import annotations

import argparse

from dssm_assets.commands.command_groups import Commands, Group


def add_command(commands: Commands) -> None:
    parser = commands.add_parser(
        "configuration",
        group=Group.START,
        help="print every configuration key with type, default and meaning (Markdown)",
    )
    parser.set_defaults(command=_configuration)


def _configuration(parsed: argparse.Namespace) -> int:
    from dssm_assets.core.config.reference import configuration_page

    print(configuration_page(), end="")
    return 0
