"""The base of every section of the configuration, and checks that several keys share."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Annotated, Any, Final, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict
from pydantic_core import PydanticCustomError

from dssm_assets.core.errors import Fault
from dssm_assets.core.names import REGISTRIES

UNREGISTERED: Final = "unregistered"
"""Type of the error of an unknown name."""
_EXPECTED: Final = {"missing": "a value", "extra_forbidden": "no such key"}
_WORDINGS: Final = (
    (r"^Value error, ", ""),
    (r"^Invalid JSON: ", "valid JSON: "),
    (r"^\w+ should match pattern ", "a match of the pattern "),
    (r"^\w+ should (?:be|have) ", ""),
)
"""Pattern in a message of pydantic -> its replacement, after "expected"."""


class Section(BaseModel):
    """Base of every section: frozen; unknown keys and numbers that are not finite are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def describe_expected(fault: Mapping[str, Any]) -> str:
    """Turns an error of pydantic into a phrase that fits behind "expected".

    Example: "List should have at most 3 items after validation, not 4" becomes "at most 3 items after validation, not 4".
    """
    if fault["type"] in _EXPECTED:
        return _EXPECTED[fault["type"]]
    text = str(fault["msg"])
    for pattern, words in _WORDINGS:
        text = re.sub(pattern, words, text)
    return text


def describe_fault(item: Mapping[str, Any], where: str, known: Iterable[str], shown: str | None = None) -> Fault:
    """Turns an error of pydantic into a fault.

    Args:
        known: the keys that exist there.
        shown: replaces the value in the text.
    """
    if item["type"] == "extra_forbidden":
        expected, got = f"one of: {', '.join(sorted(known)) or 'no keys'}", f"unknown key {item['loc'][-1]!r}"
        return Fault(where, expected, got, "remove it or correct its spelling")
    if item["type"] == "missing":
        return Fault(where, "a value", "nothing", "add the key")
    got = f"{shown or repr(item.get('input'))[:200]}: {item['msg'].removeprefix('Value error, ')}"
    return Fault(where, "a valid value", got, "correct the value")


def check_distinct(names: list[str]) -> list[str]:
    """Returns the names unchanged; raises a ValueError if one is repeated or empty."""
    if twice := repeated_names(names):
        raise ValueError(f"each name may be given once, repeated: {twice}")
    if "" in names:
        raise ValueError("a name must not be empty")
    return names


def repeated_names(names: Iterable[str]) -> str:
    return ", ".join(sorted(name for name, count in Counter(names).items() if count > 1))


def check_ascending(values: list[float]) -> list[float]:
    """Returns the numbers unchanged; raises a ValueError unless they are strictly ascending."""
    if sorted(set(values)) != values:
        raise ValueError("numbers must be ascending and distinct")
    return values


Names: TypeAlias = Annotated[list[str], AfterValidator(check_distinct)]
Ascending: Final = AfterValidator(check_ascending)


def registered(what: str, built_in: type[StrEnum]) -> AfterValidator:
    """Returns a validator for built-in names and keys of `REGISTRIES[what]`; its PydanticCustomError lists both."""

    def check(name: str) -> str:
        names = dict.fromkeys([*built_in, *REGISTRIES.get(what, ())])
        if name not in names:
            raise PydanticCustomError(UNREGISTERED, f"a registered {what}: {', '.join(names)}")
        return name

    return AfterValidator(check)
