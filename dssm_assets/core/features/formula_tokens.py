"""The tokens of a formula, and the one way to say what is wrong with its text.

Belongs here: what a number, a name and an operator look like. Does not belong here: their order (`formula_parser.py`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple, NoReturn

MAX_LENGTH: Final = 10_000
"""Characters of a formula."""

CONSTANTS: Final[Mapping[str, float]] = MappingProxyType({"_pi": math.pi, "_e": math.e})

_NAME: Final = r"[A-Za-z_][A-Za-z0-9_]*"
# Bytes 0-9, not \d: digits of other scripts are no numbers here.
_TOKEN: Final = re.compile(
    rf"(?P<number>(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)|(?P<name>{_NAME})"
    r"|(?P<symbol>\|\||&&|[<>=!]=|[-+*/^<>=!?:(),&|])"
)
_SPACE: Final = re.compile(r"[ \t\r\n]+")
_SHOWN: Final = 30


class Token(NamedTuple):
    """A piece of a formula: its kind ("number", "name", "symbol" or "end"), its text, and where it starts (from 0)."""

    kind: str
    text: str
    place: int


def tokens_of(text: str) -> list[Token]:
    """Returns the tokens of a formula, the last one of kind "end".

    Raises:
        ValueError: if the text is too long or holds a character that no formula has.
    """
    if len(text) > MAX_LENGTH:
        raise ValueError(f"a formula has at most {MAX_LENGTH} characters, got {len(text)}")
    tokens = []
    place = 0
    while place < len(text):
        if space := _SPACE.match(text, place):
            place = space.end()
            continue
        match = _TOKEN.match(text, place)
        if match is None:
            refuse(text, place, "a number, a name or an operator", repr(text[place]))
        tokens.append(Token(str(match.lastgroup), match.group(), place))
        place = match.end()
    return [*tokens, Token("end", "", len(text))]


def check_variable_name(name: str) -> None:
    """Checks that a formula can write the name of a variable.

    Raises:
        ValueError: if it cannot.
    """
    if not re.fullmatch(_NAME, name):
        raise ValueError(f"the name of a variable is made of letters a-z, digits and _ and starts with no digit, got {name!r}")
    if name in CONSTANTS:
        raise ValueError(f"a variable cannot have the name of the constant {name}")


def refuse(text: str, place: int, expected: str, got: str) -> NoReturn:
    """Raises the ValueError that says what was expected at a place (from 0) of a formula, and what stands there."""
    start = max(place - _SHOWN, 0)
    shown = ("..." if start else "") + text[start : place + _SHOWN] + ("..." if len(text) > place + _SHOWN else "")
    raise ValueError(f"formula {shown!r}, position {place + 1}: expected {expected}, got {got}")
