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
            if isinstance(value, Mapping):
                entries.append(Entry(name, message(value)))
            elif value is not None:
                entries.append(Entry(name, Word(str(value).lower()) if isinstance(value, bool) else value))
    return Message(tuple(entries))


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
_SPELLED: Final = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def parse_text_format(text: str, where: str) -> Message:
    """Returns the message that a text describes.

    Fields are `name: value`, `name { ... }`, `name < ... >` or `name: [a, b]`; strings are quoted either way, with C's escapes, and
    adjacent ones are joined; `#` begins a comment; `,` and `;` may separate fields.

    Raises:
        ConfigError: naming the first fault with line and column.
    """
    return _Parser(text, where).parse_fields(None, 0)


class _Parser:
    def __init__(self, text: str, where: str) -> None:
        self._where, self._tokens, self._next = where, _tokenize(text), 0

    @property
    def _token(self) -> _Token:
        return self._tokens[self._next]

    def parse_fields(self, opening: _Token | None, depth: int) -> Message:
        """Returns the fields up to the sign that closes the message, or up to the end of the text if nothing opened it."""
        entries: list[Entry] = []
        while opening is None or not self._take_sign(_CLOSING[opening.text]):
            if self._token.kind == "end":
                if opening is None:
                    break
                raise self._error(opening, f"a {_CLOSING[opening.text]!r} that closes it", "the end of the text")
            name = self._take("a field name", "word")
            has_colon = self._take_sign(":")
            values = []
            if self._take_sign("["):
                while not self._take_sign("]"):
                    values.append(self._parse_value(depth))
                    if not self._take_sign(",") and self._token.text != "]":
                        raise self._error(self._token, "a ',' or a ']'")
            elif has_colon or self._token.text in _CLOSING:
                values.append(self._parse_value(depth))
            else:
                raise self._error(self._token, f"a ':' or a '{{' after {name.text}")
            if not self._take_sign(","):
                self._take_sign(";")
            entries += [Entry(name.text, value, name.line, name.column) for value in values]
        return Message(tuple(entries))

    def _parse_value(self, depth: int) -> Value:
        token = self._take("a value", "string", "number", "word", "sign")
        try:
            if token.kind == "number":
                return _number(token.text.lower())
            if token.kind == "word":
                return Word(token.text)
            if token.kind == "string":
                texts = [token.text]
                while self._token.kind == "string":
                    texts.append(self._take("a text", "string").text)
                return b"".join(_ESCAPE.sub(_unescape, text[1:-1].encode()) for text in texts).decode()
        except ValueError as error:  # 089, or more digits than Python reads; bytes that are no text
            raise self._error(token, f"a {'number' if token.kind == 'number' else 'text in UTF-8'} ({error})") from error
        if token.text not in _CLOSING:
            raise self._error(token, "a value")
        if depth == MAX_DEPTH:
            raise self._error(token, f"at most {MAX_DEPTH} messages within one another")
        return self.parse_fields(token, depth + 1)

    def _take(self, expected: str, *kinds: str) -> _Token:
        token = self._token
        if token.kind not in kinds:
            raise self._error(token, expected)
        self._next += 1
        return token

    def _take_sign(self, sign: str) -> bool:
        is_next = self._token.kind == "sign" and self._token.text == sign
        self._next += is_next
        return is_next

    def _error(self, token: _Token, expected: str, got: str = "") -> ConfigError:
        where = f"{self._where}, line {token.line}, column {token.column}"
        return ConfigError(Fault(where, expected, got or token.text[:80] or "the end of the text", "correct the text"))


def _tokenize(text: str) -> list[_Token]:
    tokens, line, start = [], 1, 0
    for match in _TOKEN.finditer(text):
        kind = str(match.lastgroup)
        if kind == "newline":
            line, start = line + 1, match.end()
        elif kind != "space":
            tokens.append(_Token(kind, match.group(), line, match.start() - start + 1))
    return [*tokens, _Token("end", "", line, len(text) - start + 1)]


def _number(text: str) -> int | float:
    digits = text.removeprefix("-")
    if digits.startswith("0x"):
        return int(text, 16)
    if len(digits) > 1 and digits.isdecimal() and digits[0] == "0":
        return int(text, 8)
    return int(text) if digits.isdecimal() else float(text if digits.startswith("inf") else text.removesuffix("f"))


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
    if isinstance(value, str) and not isinstance(value, Word):
        escaped = "".join(_SPELLED.get(c, c if c.isprintable() else "".join(f"\\{b:03o}" for b in c.encode())) for c in value)
        return f'"{escaped}"'
    return repr(value) if isinstance(value, float) and math.isfinite(value) else str(value)
