"""A fg.json and the files that it names, as they travel together: the files renamed by content, the definitions with them.

Belongs here: finding the named files and renaming them. Does not belong here: what the files mean (`core/features`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

from dssm_assets.core.features.fg_files import ReadFile
from dssm_assets.core.features.spec import parse_fg

FOLDER: Final = "fg_files"
_NAMES_A_FILE: Final = "_file"
"""Ends the keys whose value is the name of a file."""


def packed_fg(raw: Mapping[str, Any], read_file: ReadFile) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Returns the definitions with every file named by its path beside them, and path -> content of those files.

    Whatever path a file had (also an absolute one, or one above the fg.json), it becomes `fg_files/<digest>-<name>`.

    Raises:
        FeatureSpecError: the definitions are wrong, or a file cannot be read.
    """
    contents: dict[str, bytes] = {}

    def recorded(name: str) -> bytes:
        contents[name] = read_file(name)
        return contents[name]

    parse_fg(raw, read_file=recorded)
    paths = {name: _path(name, content) for name, content in contents.items()}
    return _renamed(dict(raw), paths), {paths[name]: content for name, content in contents.items()}


def _path(name: str, content: bytes) -> str:
    return f"{FOLDER}/{hashlib.sha256(content).hexdigest()[:12]}-{name.rpartition('/')[2]}"


def _renamed(value: Any, paths: Mapping[str, str]) -> Any:
    if isinstance(value, Mapping):
        return {
            key: paths[inner]
            if str(key).endswith(_NAMES_A_FILE) and isinstance(inner, str) and inner in paths
            else _renamed(inner, paths)
            for key, inner in value.items()
        }
    return [_renamed(inner, paths) for inner in value] if isinstance(value, list) else value
