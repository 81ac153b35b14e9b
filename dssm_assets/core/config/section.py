"""The base of every section of the configuration, and the keys that once had another name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from pydantic import BaseModel, ConfigDict
from pydantic_core import PydanticCustomError

UNREGISTERED: Final = "unregistered"
"""Type of the error that `check_registered` raises."""


class Section(BaseModel):
    """Base of every section: frozen; unknown keys and numbers that are not finite are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def check_distinct(names: list[str]) -> list[str]:
    """Returns a list of names, as a validator of a key does.

    Raises:
        ValueError: naming those that are repeated, or if one is empty.
    """
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"each name may be given once, repeated: {', '.join(twice)}")
    if "" in names:
        raise ValueError("a name must not be empty")
    return names


def check_registered(what: str, given: str, registry: Iterable[str]) -> str:
    """Returns a name that chooses an entry of a registry, as a validator of a key does.

    Raises:
        PydanticCustomError: the registry has no such name; it lists those that it has.
    """
    names = list(registry)
    if given not in names:
        raise PydanticCustomError(UNREGISTERED, f"a registered {what}: {', '.join(names)}")
    return given
