"""Protocol buffers' text format without a schema: parsed into entries that know their place, and written."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Final, NamedTuple

from dssm_assets.core.errors import ConfigError, Fault

MAX_DEPTH: Final = 100
"""Messages within one another; protocol buffers' own parsers have this limit."""


class Word(str):
    """A value without quotes that is not a number: a boolean or the name of an enum's value."""

    __slots__ = ()


@dataclass(frozen=True)
class Entry:
    """One value of a field; a repeated field has several entries. Places count from 1; two entries with equal values are equal."""

    name: str
    value: Value
    line: int = field(default=0, compare=False)
    column: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Message:
    """The entries of a message in their order."""

    entries: tuple[Entry, ...] = ()


Value = str | Word | int | float | Message


def message(fields: Mapping[str, Any]) -> Message:
    """Returns the message of nested fields: a list makes an entry per value, a mapping a message, None no entry, a boolean a word."""
    entries = []
    for name, given in fields.items():
        for value in given if isinstance(given, list | tuple) else [given]:
            if value is not None:
                entries.append(Entry(name, _to_value(value)))
    return Message(tuple(entries))


def _to_value(value: Any) -> Any:
    if isinstance(value, Mapping):
        return message(value)
    return Word(str(value).lower()) if isinstance(value, bool) else value


class _Token(NamedTuple):
    kind: str
    text: str
    line: int
    column: int


_TOKEN: Final = re.compile(
    r"""(?P<space>[ \t\r\f\v]+|\#[^\n]*)|(?P<newline>\n)
    |(?P<string>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')
    |(?P<number>-?(?:0[xX][0-9a-fA-F]+|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?[fF]?|(?:inf|infinity|nan)\b))
    |(?P<word>[A-Za-z_]\w*)
    |(?P<sign>[{}<>\[\]:,;])
    |(?P<other>.)""",
    re.VERBOSE,
)
_CLOSING: Final = {"{": "}", "<": ">"}
_ESCAPE: Final = re.compile(
    rb"\\(?:([abfnrtv\\'\"?])|([0-7]{1,3})|[xX]([0-9a-fA-F]{1,2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.?))"
)
_PLAIN: Final = dict(zip(b"abfnrtv\\'\"?", b"\a\b\f\n\r\t\v\\'\"?", strict=True))


class _NotExpectedError(Exception):
    """A token that the grammar does not allow where it is; parsing goes on at the next line or closing sign."""

    def __init__(self, token: _Token, expected: str) -> None:
        self.token, self.expected = token, expected


def parse_text_format(text: str, where: str) -> Message:
    """Returns the message that a text describes.

    Fields are `name: value`, `name { ... }`, `name < ... >` or `name: [a, b]`; strings are quoted either way, with C's escapes, and
    adjacent ones are joined; `#` begins a comment; `,` and `;` may separate fields.

    Raises:
        ConfigError: naming every fault with line and column. After a fault, parsing goes on at the next line or closing sign.
    """
    parser = _Parser(text, where)
    parsed = parser.parse_fields(None, 0)
    ConfigError.raise_if(parser.faults)
    return parsed


class _Parser:
    def __init__(self, text: str, where: str) -> None:
        self.faults: list[Fault] = []
        self._where, self._tokens, self._next = where, _tokenize(text), 0

    def parse_fields(self, opening: _Token | None, depth: int) -> Message:
        """Returns the fields up to the sign that closes the message, or up to the end of the text if nothing opened it."""
        entries: list[Entry] = []
        while True:
            token = self._tokens[self._next]
            if token.kind == "end":
                if opening is not None:
                    self._add_fault(opening, f"a {_CLOSING[opening.text]!r} that closes it", "the end of the text")
                return Message(tuple(entries))
            if opening is not None and token.text == _CLOSING[opening.text] and token.kind == "sign":
                self._next += 1
                return Message(tuple(entries))
            try:
                entries += self._parse_field(depth)
            except _NotExpectedError as error:
                self._add_fault(error.token, error.expected, error.token.text or "the end of the text")
                self._skip_rest(error.token)

    def _parse_field(self, depth: int) -> list[Entry]:
        name = self._take("a field name", "word")
        has_colon = self._take_sign(":")
        if self._take_sign("["):
            values = []
            while not self._take_sign("]"):
                values.append(self._parse_value(depth))
                if not self._take_sign(",") and self._tokens[self._next].text != "]":
                    raise _NotExpectedError(self._tokens[self._next], "a ',' or a ']'")
        else:
            if not has_colon and self._tokens[self._next].text not in _CLOSING:
                raise _NotExpectedError(self._tokens[self._next], f"a ':' or a '{{' after {name.text}")
            values = [self._parse_value(depth)]
        if not self._take_sign(","):
            self._take_sign(";")
        return [Entry(name.text, value, name.line, name.column) for value in values]

    def _parse_value(self, depth: int) -> Value:
        token = self._take("a value", "string", "number", "word", "sign")
        if token.kind == "sign":
            if token.text not in _CLOSING:
                raise _NotExpectedError(token, "a value")
            if depth == MAX_DEPTH:
                raise _NotExpectedError(token, f"at most {MAX_DEPTH} messages within one another")
            return self.parse_fields(token, depth + 1)
        if token.kind == "number":
            return _number(token)
        if token.kind == "word":
            return Word(token.text)
        parts = [token]
        while self._tokens[self._next].kind == "string":
            parts.append(self._tokens[self._next])
            self._next += 1
        try:
            return b"".join(_ESCAPE.sub(_unescape, part.text[1:-1].encode()) for part in parts).decode()
        except ValueError as error:
            raise _NotExpectedError(token, f"a text in UTF-8 with C's escapes ({error})") from error

    def _take(self, expected: str, *kinds: str) -> _Token:
        token = self._tokens[self._next]
        if token.kind not in kinds:
            raise _NotExpectedError(token, expected)
        self._next += 1
        return token

    def _take_sign(self, sign: str) -> bool:
        is_next = self._tokens[self._next].kind == "sign" and self._tokens[self._next].text == sign
        self._next += is_next
        return is_next

    def _skip_rest(self, token: _Token) -> None:
        self._next += self._tokens[self._next] is token and token.kind != "end"
        while (found := self._tokens[self._next]).kind != "end" and found.line <= token.line and found.text not in ("}", ">"):
            self._next += 1

    def _add_fault(self, token: _Token, expected: str, got: str) -> None:
        place = f"{self._where}, line {token.line}, column {token.column}"
        self.faults.append(Fault(place, expected, got[:80], "correct the text"))


def _tokenize(text: str) -> list[_Token]:
    tokens, line, start = [], 1, 0
    for match in _TOKEN.finditer(text):
        kind = str(match.lastgroup)
        if kind == "newline":
            line, start = line + 1, match.end()
        elif kind != "space":
            tokens.append(_Token(kind, match.group(), line, match.start() - start + 1))
    return [*tokens, _Token("end", "", line, len(text) - start + 1)]


def _number(token: _Token) -> int | float:
    text = token.text.lower()
    digits = text.removeprefix("-")
    try:
        if digits.startswith("0x"):
            return int(text, 16)
        if len(digits) > 1 and digits.isdecimal() and digits[0] == "0":
            return int(text, 8)
        return int(text) if digits.isdecimal() else float(text if digits.startswith("inf") else text.removesuffix("f"))
    except ValueError as error:  # 089, or more digits than Python reads
        raise _NotExpectedError(token, "a number") from error


def _unescape(match: re.Match[bytes]) -> bytes:
    plain, octal, hexadecimal, short, long, other = match.groups()
    if plain:
        return bytes([_PLAIN[plain[0]]])
    if octal:
        return bytes([int(octal, 8) & 0xFF])
    if hexadecimal:
        return bytes([int(hexadecimal, 16)])
    if other is not None:
        raise ValueError(f"unknown escape \\{other.decode(errors='replace')}")
    return chr(int(short or long, 16)).encode()


def write_text_format(written: Message, indent: str = "") -> str:
    """Returns the text of a message, which `parse_text_format` reads back: a line per entry, repeated numbers in one list."""
    lines = []
    for (name, is_number), group in groupby(written.entries, lambda entry: (entry.name, isinstance(entry.value, int | float))):
        values = [entry.value for entry in group]
        if is_number and len(values) > 1:
            lines.append(f"{indent}{name}: [{', '.join(map(_as_text, values))}]")
            continue
        for value in values:
            if isinstance(value, Message):
                inner = write_text_format(value, indent + "  ")
                lines.append(f"{indent}{name} {{\n{inner}{indent}}}" if inner else f"{indent}{name} {{}}")
            else:
                lines.append(f"{indent}{name}: {_as_text(value)}")
    return "".join(line + "\n" for line in lines)


def _as_text(value: Value) -> str:
    if isinstance(value, Word):
        return str(value)
    if isinstance(value, str):
        escaped = "".join(_SPELLED.get(c, c if c.isprintable() else "".join(f"\\{b:03o}" for b in c.encode())) for c in value)
        return f'"{escaped}"'
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else str(value)
    return str(value)


_SPELLED: Final = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}
