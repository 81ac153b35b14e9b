"""The arguments --config, --home and --scene, and the first line of output, which names the chosen configuration and home."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from dssm_assets.storage.config_choice import ConfigChoice, choose_config

if TYPE_CHECKING:
    from dssm_assets.defs.scene import Scene


def add_config_arguments(parser: argparse.ArgumentParser, *, has_scene: bool = True) -> None:
    """Adds --config and --home, and with has_scene also --scene, which picks one of several configurations."""
    group = parser.add_argument_group("configuration")
    group.add_argument(
        "--config",
        metavar="FILE",
        help="the YAML file, or several separated as in PATH (default: DSSM_CONFIG, else config.yaml in the home, else in the "
        "current folder)",
    )
    group.add_argument(
        "--home",
        type=Path,
        metavar="FOLDER",
        help="where tables, models and runs go (default: DSSM_HOME, else DAGSTER_HOME, else the folder of the configuration)",
    )
    if has_scene:
        group.add_argument("--scene", metavar="NAME", help="which configuration, where several are named")


def announce_config(parsed: argparse.Namespace, *, is_data: bool = False) -> ConfigChoice:
    """Returns the chosen configuration and home; prints them as the command's first line.

    Args:
        is_data: stdout is data for another program, so the line goes to stderr.

    Raises:
        ConfigError: no configuration is named or found.
    """
    choice = choose_config(parsed.config, parsed.home)
    print(choice.describe(), file=sys.stderr if is_data else sys.stdout, flush=True)
    return choice


def load_announced_scene(parsed: argparse.Namespace, *, is_data: bool = False) -> Scene:
    """Calls `announce_config`, then returns the scene that the arguments choose."""
    choice = announce_config(parsed, is_data=is_data)
    from dssm_assets.definitions import load_scene  # takes seconds to import: after the line

    return load_scene(parsed.scene, choice)
