"""Reads and writes protocol buffers' text format without a schema. Entries have their line numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from google.protobuf.text_encoding import CEscape
from google.protobuf.text_format import ParseError, Tokenizer

from dssm_assets.core.errors import ConfigError, Fault

MAX_DEPTH: Final = 100
"""Most levels of nested messages, as in protocol buffers' own parsers."""
_CLOSING: Final = {"{": "}", "<": ">"}


class Word(str):
    """An unquoted value that is not a number: a boolean, or a name of an enum."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Entry:
    """One value of a field, and its line (from 1). A repeated field has several entries. Equality ignores lines."""

    name: str
    value: Value
    line: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Message:
    entries: tuple[Entry, ...] = ()


Value = str | Word | int | float | Message


def parse_text_format(text: str, where: str) -> Message:
    """Parses a text to a message.

    Fields are `name: value`, `name { ... }`, `name < ... >` or `name: [a, b]`. Adjacent strings are joined. `#` begins a comment.

    Raises:
        ConfigError: the text has a fault. The error has the line and column of the first fault.
    """
    try:
        return _parse_fields(Tokenizer(text.split("\n")), "", 0)
    except ParseError as error:
        place = f"{where}, line {error.GetLine()}, column {error.GetColumn()}"
        got = str(error).partition(" : ")[2][:200]
        raise ConfigError(Fault(place, "protocol buffers' text format", got, "correct the text")) from error


def _parse_fields(tokens: Any, end: str, depth: int) -> Message:
    """Parses the fields up to the closing sign `end`; "" means the end of the text."""
    entries = []
    while not tokens.LookingAt(end):
        line = tokens.ParseError("").GetLine()
        name = tokens.ConsumeIdentifier()
        if not tokens.TryConsume(":") and tokens.token not in ("[", *_CLOSING):
            raise tokens.ParseError(f"expected a ':' or a '{{' after {name}")
        if tokens.TryConsume("["):
            values = []
            while not tokens.LookingAt("]"):
                values.append(_parse_value(tokens, depth))
                if not tokens.LookingAt("]"):
                    tokens.Consume(",")
            tokens.Consume("]")
        else:
            values = [_parse_value(tokens, depth)]
        if not tokens.TryConsume(","):
            tokens.TryConsume(";")
        entries += [Entry(name, value, line) for value in values]
    return Message(tuple(entries))


def _parse_value(tokens: Any, depth: int) -> Value:
    text = tokens.token
    if text in _CLOSING:
        if depth == MAX_DEPTH:
            raise tokens.ParseError(f"more than {MAX_DEPTH} nested messages")
        tokens.Consume(text)
        inner = _parse_fields(tokens, _CLOSING[text], depth + 1)
        tokens.Consume(_CLOSING[text])
        return inner
    if text.startswith(("'", '"')):
        return str(tokens.ConsumeString())
    for consume in (tokens.ConsumeInteger, tokens.ConsumeFloat):
        try:
            number: int | float = consume()
            return number
        except ParseError:
            continue
    return Word(tokens.ConsumeIdentifier())


def write_text_format(fields: Mapping[str, Any], indent: str = "") -> str:
    """Writes nested fields as text in the form that `parse_text_format` reads.

    A list becomes a line per value, or a single line if it has numbers. A mapping becomes a message. None writes nothing.
    """
    lines = []
    for name, given in fields.items():
        values = [value for value in (given if isinstance(given, list | tuple) else [given]) if value is not None]
        if len(values) > 1 and all(isinstance(value, int | float) for value in values):
            lines.append(f"{indent}{name}: [{', '.join(map(_as_text, values))}]\n")
            continue
        for value in values:
            if isinstance(value, Mapping):
                inner = write_text_format(value, indent + "  ")
                lines.append(f"{indent}{name} {{\n{inner}{indent}}}\n" if inner else f"{indent}{name} {{}}\n")
            else:
                lines.append(f"{indent}{name}: {_as_text(value)}\n")
    return "".join(lines)


def _as_text(value: Any) -> str:
    if isinstance(value, str) and not isinstance(value, Word):
        return f'"{CEscape(value, as_utf8=True)}"'
    return str(value).lower() if isinstance(value, bool) else str(value)
