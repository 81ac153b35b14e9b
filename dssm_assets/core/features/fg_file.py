"""A fg.json on the local disk, and the files that it names beside it.

Belongs here: the one place of the library's core that opens files, so that a fg.json is one call away from a feature
generator. Does not belong here: stores and object storage (`storage/`), which hand in what they read themselves.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from dssm_assets.core.errors import Fault, FeatureSpecError
from dssm_assets.core.features.named_files import ReadFile


def read_fg_file(path: object) -> tuple[Mapping[str, Any], str, ReadFile]:
    """Returns the parsed file, words that name it, and a reader of files by their path relative to it.

    Raises:
        OSError: if it cannot be read.
        FeatureSpecError: if it is no JSON mapping.
    """
    text = str(path)
    folder, _, name = text.rpartition("/")

    def read(relative: str) -> bytes:
        with open(relative if relative.startswith("/") or not folder else f"{folder}/{relative}", "rb") as file:  # noqa: PTH123
            return file.read()

    content = read(text if not folder or text.startswith("/") else name)
    try:
        raw = json.loads(content)
    except ValueError as error:
        raise FeatureSpecError(Fault(f"file {name}", "JSON", str(error), "correct the syntax")) from error
    if not isinstance(raw, Mapping):
        raise FeatureSpecError(Fault(f"file {name}", "a mapping", type(raw).__name__, 'start with {"features": [...]}'))
    return raw, name or text, read
