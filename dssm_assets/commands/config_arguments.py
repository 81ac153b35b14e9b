"""The arguments --config, --home and --scene, and the first line of output: it names the chosen configuration and home."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from dssm_assets.storage.config_choice import ConfigChoice, choose_config

if TYPE_CHECKING:
    from dssm_assets.defs.scene import Scene


def add_config_arguments(parser: argparse.ArgumentParser, *, has_scene: bool = True) -> None:
    """Adds --config and --home. With has_scene, also adds --scene, to choose one of several configurations."""
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
        group.add_argument("--scene", metavar="NAME", help="name of the configuration to use, if there are several")


def announce_config(parsed: argparse.Namespace, *, is_data: bool = False) -> ConfigChoice:
    """Prints the chosen configuration and home as the command's first line. Returns them.

    Args:
        is_data: print the line to stderr, because stdout is data for another program.

    Raises:
        ConfigError: no configuration is named or found.
    """
    choice = choose_config(parsed.config, parsed.home)
    print(choice.describe(), file=sys.stderr if is_data else sys.stdout, flush=True)
    return choice


def load_announced_scene(parsed: argparse.Namespace, *, is_data: bool = False) -> Scene:
    """Calls `announce_config`, then returns the scene chosen by the arguments."""
    choice = announce_config(parsed, is_data=is_data)
    from dssm_assets.definitions import load_scene  # imported after the line is printed, because it takes seconds

    return load_scene(parsed.scene, choice)
