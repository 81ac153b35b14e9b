"""Libraries that only some features need.

Belongs here: their import, where a definition first asks for one. Does not belong here: what is done with them.
"""

from __future__ import annotations

import importlib
from typing import Any


def library(name: str, needed_by: str) -> Any:
    """Returns the module of that name.

    Raises:
        ValueError: if it is not installed, so that a definition which needs it is refused.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(f"{needed_by} needs the library {name}, which is not installed: pip install {name}") from error
