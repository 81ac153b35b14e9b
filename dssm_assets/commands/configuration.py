"""`dssm-assets configuration` prints the page of all configuration keys, docs/configuration.md."""

from __future__ import annotations

import argparse
from pathlib import Path

from dssm_assets.commands.command_groups import Commands, Group


def add_command(commands: Commands) -> None:
    parser = commands.add_parser(
        "configuration",
        group=Group.START,
        help="print every configuration key with type, default and meaning (Markdown)",
    )
    parser.set_defaults(command=_configuration)


def _configuration(parsed: argparse.Namespace) -> int:
    print(Path(__file__).with_suffix(".md").read_text(encoding="utf-8"), end="")
    return 0
