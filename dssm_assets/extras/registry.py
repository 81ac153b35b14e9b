"""The extras of this installation: every folder of `dssm_assets/extras` that has a module `extra.py`, and what it adds.

Entry points ask for extras here; nothing else imports them. An extra may import the spine, and no other extra.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from functools import cache
from typing import Any

from dssm_assets import extras


@dataclass(frozen=True)
class Extra:
    """What an extra adds, by names of modules, which are imported when they are needed.

    Attributes:
        commands: modules with `add_command(commands)`, which adds a command to `dssm-assets`.
    """

    commands: tuple[str, ...] = ()


@cache
def find_extras() -> dict[str, Extra]:
    """Returns name -> extra, sorted by name."""
    names = sorted(module.name for module in pkgutil.iter_modules(extras.__path__) if module.ispkg)
    return {name: importlib.import_module(f"{extras.__name__}.{name}.extra").EXTRA for name in names}


def load_commands() -> list[Any]:
    """Returns the modules of the extras' commands, by name of the extra."""
    return [importlib.import_module(command) for extra in find_extras().values() for command in extra.commands]
