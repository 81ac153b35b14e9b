"""Groups the commands in `dssm-assets --help` by purpose."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from enum import StrEnum
from typing import Any, Final

_NAME_WIDTH: Final = 18


class Group(StrEnum):
    START = "start: see it run, set up your own tables"
    RUN = "run: make tables, train, try other settings"
    LOOK = "look: hit rates and comparisons"
    SERVE = "serve: publish a bundle and answer from it"
    EXCHANGE = "bring in and hand out: other systems"
    LOOK_AFTER = "look after: remove what is old, forget people"


class Commands:
    """Adds commands to a parser. The help lists them by group, in the order of adding."""

    def __init__(self, top: argparse.ArgumentParser) -> None:
        self._top, self._parsers = top, top.add_subparsers(required=True, metavar="command")
        self._lines: dict[Group, list[str]] = {group: [] for group in Group}

    def add_parser(self, name: str, *, group: Group, help: str, **more: Any) -> argparse.ArgumentParser:
        """Returns the parser for a new command. `more`: further arguments of argparse's `add_parser`."""
        width = min(shutil.get_terminal_size().columns, 120)
        indent = " " * (_NAME_WIDTH + 2)
        self._lines[group].append(textwrap.fill(f"  {name:<{_NAME_WIDTH}}{help}", width, subsequent_indent=indent))
        listed = ("\n".join([group.value, *lines]) for group, lines in self._lines.items() if lines)
        self._top.epilog = "\n\n".join(listed)
        return self._parsers.add_parser(name, description=help, **more)
