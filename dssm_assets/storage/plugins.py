"""Imports plug-ins: modules outside the package that register losses, samplers, poolings, baselines, feature operators and checks.

A configuration lists them under `plugins`. An installed package lists them as entry points of the group `dssm_assets.plugins`. They
are imported before names are checked: when a configuration is loaded (`config_file.py`), and in each process of a run.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import cache, partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import Final

from dssm_assets.core.errors import Fault

GROUP: Final = "dssm_assets.plugins"
"""Group of the entry points of plug-ins."""


def import_plugins(modules: Sequence[str], where: str = "configuration") -> list[Fault]:
    """Imports the entry points by name, then the modules in order. Returns a fault for each failure.

    The current folder is searched last, so that a file in it cannot hide an installed package.

    Args:
        modules: value of the key `plugins`.
        where: names the configuration in faults.
    """
    folder = str(Path.cwd())
    if modules and folder not in sys.path:
        sys.path.append(folder)
    faults = list(import_entry_points())
    for number, name in enumerate(modules):
        remedy = f"correct the name, pip install the project that has it, or run this in the folder that holds {name.split('.')[0]}, now {folder}"
        faults += _find_fault(partial(importlib.import_module, name), name, f"{where}, key plugins.{number}", remedy)
    return faults


@cache
def import_entry_points() -> tuple[Fault, ...]:
    faults = []
    for point in sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value)):
        package = "an installed package" if point.dist is None else f"package {point.dist.name}"
        faults += _find_fault(
            point.load, point.value, f"{package}, entry point {point.name} of {GROUP}", "install it again, or uninstall it"
        )
    return tuple(faults)


def _find_fault(load: Callable[[], object], name: str, where: str, remedy: str) -> list[Fault]:
    expected = "a module that can be imported"
    try:
        load()
    except KeyboardInterrupt:  # Ctrl-C
        raise
    except BaseException as error:
        module = name.partition(":")[0].strip()
        if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
            return [Fault(where, expected, f"{name!r}: no module {error.name}", remedy)]
        frame = traceback.extract_tb(error.__traceback__)[-1]
        at = "" if isinstance(error, SyntaxError) else f" ({frame.filename}, line {frame.lineno})"  # its text has the line
        got = f"{name!r}: {type(error).__name__}: {error}{at}"
        return [Fault(where, expected, got, "correct the module, or install the modules it imports")]
    return []
