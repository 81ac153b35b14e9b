"""Parses input expressions `side:name`, and finds the side of a feature from its inputs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Final

from pydantic import AfterValidator


class Side(StrEnum):
    """The tower that reads a feature. Context features are known only at request time and feed the user tower."""

    USER = "user"
    ITEM = "item"
    CONTEXT = "context"


SEQUENCE: Final = "sequence"
"""Sub-features of a sequence may write this in place of a side."""


class Kind(StrEnum):
    """Whether the values of a feature are numbers or hashed categories."""

    NUMERIC = "numeric"
    CATEGORICAL = "categorical"


class Source(StrEnum):
    """Origin of an input, written before the colon of an expression."""

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
        return self.source in (Source.USER, Source.ITEM, Source.CONTEXT)

    def __str__(self) -> str:
        return f"{self.source}:{self.name}"


@lru_cache(maxsize=4096)
def parse_expression(text: str) -> Expression:
    """Parses `side:name`. The name of a const is its text and may contain colons.

    Raises:
        ValueError: the colon or the name is missing, or the side is unknown.
    """
    side, colon, name = text.partition(":")
    if not colon or not name:
        raise ValueError("an expression is written side:name")
    if side not in {source.value for source in Source}:
        raise ValueError(f"unknown side {side!r}; a side is one of {', '.join(Source)}")
    return Expression(Source(side), name)


ExpressionText = Annotated[str, AfterValidator(lambda text: str(parse_expression(text)))]
"""A text that `parse_expression` accepts, stored as written."""


def side_of(sources: Iterable[Source]) -> Side:
    """Returns the side of a feature with these inputs: item if any input is of the item side, else user if any is, else context."""
    found = set(sources)
    if Source.ITEM in found:
        return Side.ITEM
    return Side.USER if Source.USER in found else Side.CONTEXT
