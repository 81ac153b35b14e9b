"""Chooses the configuration and the home folder, by one rule for all commands and code locations: docs/platform.md has the table.

A name wins over files, an option over a variable. If no configuration is named or found, a command fails, and a code location loads
the packaged demo, with ./.dssm as its home.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dssm_assets.core.errors import ConfigError, Fault

CONFIG_FILE: Final = "config.yaml"
DEFAULT_HOME: Final = ".dssm"
CONFIG_VARIABLE: Final = "DSSM_CONFIG"
HOME_VARIABLES: Final = ("DSSM_HOME", "DAGSTER_HOME")
UI_COMMAND: Final = "dg dev -m dssm_assets.definitions"
"""Starts the UI and the daemon in any folder. The environment names the configuration and the home."""
UI_LOCATION: Final = "dssm_assets.definitions"
"""Name of the code location loaded by this command."""
_NEITHER: Final = "as no configuration is named or found"


@dataclass(frozen=True)
class ConfigChoice:
    """The chosen configuration files (one per scene), the chosen home, and where each was named.

    Attributes:
        instance_home: folder of the Dagster instance that records runs.
        not_used: config.yaml files in the home and in the current folder that a user might expect to be used, but are not.
    """

    paths: tuple[Path, ...]
    named_by: str
    home: Path
    home_named_by: str
    instance_home: Path
    not_used: tuple[Path, ...] = ()

    @property
    def is_packaged(self) -> bool:
        return self.named_by == _NEITHER

    def describe(self) -> str:
        """Returns one line: the configuration and the home, where each was named, and config.yaml files that are not used."""
        files = ", ".join(map(str, self.paths))
        line = f"configuration {files} ({self.named_by}), home {self.home} ({self.home_named_by})"
        return line + "".join(f"; {path} is not used" for path in self.not_used)


def choose_config(config: str | None = None, home: Path | None = None, *, packaged: Path | None = None) -> ConfigChoice:
    """Chooses the configuration and the home by the rule of this module. Files are only looked for, not read.

    Args:
        packaged: file to use if none is named or found. None: this is an error.

    Raises:
        ConfigError: no configuration is named or found, and `packaged` is None.
    """
    folder = Path.cwd()
    homes = [(str(home or ""), "--home"), *((os.environ.get(name, ""), name) for name in HOME_VARIABLES)]
    named_home, home_named_by = next(((folder / text, name) for text, name in homes if text), (None, ""))
    own = None if named_home is None else named_home / CONFIG_FILE
    here, demo = folder / CONFIG_FILE, folder / DEFAULT_HOME / CONFIG_FILE
    named = {"--config": config or "", CONFIG_VARIABLE: os.environ.get(CONFIG_VARIABLE, "")}
    rule = {by: tuple(folder / part for part in text.split(os.pathsep) if part) for by, text in named.items()}
    found = {"in the home": own, "in this folder": here, f"in this folder's {DEFAULT_HOME}": demo}
    rule |= {by: (path,) for by, path in found.items() if path is not None and path.is_file()}
    named_by, paths = next(((by, paths) for by, paths in rule.items() if paths), ("", ()))
    if not paths and packaged is not None:
        paths, named_by = (packaged,), _NEITHER
        named_home, home_named_by = named_home or folder / DEFAULT_HOME, home_named_by or "default"
    elif not paths:
        expected = f"a file named by --config or {CONFIG_VARIABLE}, or {CONFIG_FILE} in the home or in the current folder"
        places = " or ".join(str(path.parent) for path in (own, here, demo) if path is not None)
        remedy = (
            "name the file with --config, or write one: dssm-assets init for your own tables, dssm-assets demo for the demo's"
        )
        raise ConfigError(Fault("configuration", expected, f"no {CONFIG_FILE} in {places}", remedy))
    chosen_home = named_home or paths[0].parent
    return ConfigChoice(
        paths,
        named_by,
        chosen_home,
        home_named_by or "folder of the configuration",
        chosen_home if home is not None else Path(os.environ.get("DAGSTER_HOME") or chosen_home).absolute(),
        tuple(path for path in dict.fromkeys(filter(None, (own, here))) if path.is_file() and path not in paths),
    )
