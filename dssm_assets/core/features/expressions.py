"""Input expressions `side:name`, the sides of a feature and the two kinds of value.

Belongs here: the grammar of one expression and the side that a set of inputs puts a feature on. Does not belong
here: the grammar of whole features (`operators/`) and checks between features (`spec_checks.py`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Final

from pydantic import AfterValidator


class Side(StrEnum):
    """The tower a feature belongs to. Context features are known at request time and feed the user tower."""

    USER = "user"
    ITEM = "item"
    CONTEXT = "context"


SEQUENCE: Final = "sequence"
"""Given in place of a side: the sub-features of sequences."""


class Kind(StrEnum):
    """What a feature's values are: numbers, or categories that are hashed."""

    NUMERIC = "numeric"
    CATEGORICAL = "categorical"


class Source(StrEnum):
    """What stands before the colon of an expression."""

    USER = "user"
    ITEM = "item"
    CONTEXT = "context"
    FEATURE = "feature"
    CONST = "const"


@dataclass(frozen=True)
class Expression:
    """One input: a column of a side, another feature, or a constant."""

    source: Source
    name: str

    @property
    def is_column(self) -> bool:
        """Tells whether the input is a column of the table, rather than a feature or a constant."""
        return self.source in (Source.USER, Source.ITEM, Source.CONTEXT)

    def __str__(self) -> str:
        return f"{self.source}:{self.name}"


@lru_cache(maxsize=4096)
def parse_expression(text: str) -> Expression:
    """Returns the input that `side:name` names; the name of a const is its text and may hold colons.

    Raises:
        ValueError: if there is no colon, the side is unknown or the name is empty.
    """
    side, colon, name = text.partition(":")
    if not colon or not name:
        raise ValueError("an expression is written side:name")
    if side not in {source.value for source in Source}:
        raise ValueError(f"unknown side {side!r}; a side is one of {', '.join(Source)}")
    return Expression(Source(side), name)


def _checked(text: str) -> str:
    parse_expression(text)
    return text


ExpressionText = Annotated[str, AfterValidator(_checked)]
"""Text that `parse_expression` accepts, kept as written."""


def side_of(sources: Iterable[Source]) -> Side:
    """Returns the side of a feature with these inputs: item before user before context."""
    found = set(sources)
    if Source.ITEM in found:
        return Side.ITEM
    return Side.USER if Source.USER in found else Side.CONTEXT
