"""The text format: values, messages, comments, escapes, faults with their places, and writing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.errors import ConfigError
from dssm_assets.extras.easyrec.text_format import MAX_DEPTH, Entry, Message, Word, parse_text_format, write_text_format


def values(text: str) -> list[object]:
    return [entry.value for entry in parse_text_format(text, "p").entries]


def message(fields: dict[str, Any]) -> Message:
    return Message(
        tuple(
            Entry(name, message(value) if isinstance(value, dict) else value)
            for name, given in fields.items()
            for value in (given if isinstance(given, list) else [given])
        )
    )


def test_scalars_have_their_types() -> None:
    text = "a: 1 b: -2, c: 0x1F; d: 017 e: 1.5e-3 f: .5f g: -inf h: true i: DEEP j: \"x\" k: 'y'"
    found = values(text)
    assert found == [1, -2, 31, 15, 0.0015, 0.5, float("-inf"), "true", "DEEP", "x", "y"]
    assert [type(value) for value in found] == [int, int, int, int, float, float, float, Word, Word, str, str]


def test_strings_are_unescaped_and_joined() -> None:
    assert values(r'a: "\x02\001\n\"" ' + r"'\'é\u00e9'") == ["\x02\x01\n\"'éé"]
    assert values(r'a: "\303\251"') == ["é"]


def test_messages_lists_comments_and_lines() -> None:
    text = "# a comment\nm { x: 1 } # another\nm: < x: [2, 3] >\nn [{y: 1}, {}]\nempty: []\n"
    parsed = parse_text_format(text, "p")
    assert parsed == message({"m": [{"x": 1}, {"x": [2, 3]}], "n": [{"y": 1}, {}]})
    assert [entry.line for entry in parsed.entries] == [2, 3, 4, 4]


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ("a 1", 1, 3),
        ("a: 1\nb { c: @ }", 2, 8),
        ('d: "open\n', 1, 4),
        ("a: 1\n}", 2, 1),
        ("f: [1 2]", 1, 7),
        ("a: 1\nh {\n  ok: 1", 3, 8),
        ("a {" * (MAX_DEPTH + 1), 1, 3 * MAX_DEPTH + 3),
    ],
)
def test_the_first_fault_is_told_with_line_and_column(text: str, line: int, column: int) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_text_format(text, "x.config")
    assert [fault.where for fault in raised.value.faults] == [f"x.config, line {line}, column {column}"]


def test_a_written_message_is_readable() -> None:
    fields = {"b": [1, 2.5], "flag": True, "m": {"s": 'a"\x02\n'}, "e": {}, "w": ["x", Word("Y")], "none": None}
    assert write_text_format(fields) == ('b: [1, 2.5]\nflag: true\nm {\n  s: "a\\"\\002\\n"\n}\ne {}\nw: "x"\nw: Y\n')


NAMES = st.from_regex(r"[a-z_][a-z0-9_]{0,5}", fullmatch=True)
SCALARS = st.one_of(
    st.integers(-(10**9), 10**9), st.floats(allow_nan=False), st.text(max_size=5), st.sampled_from([Word("true"), Word("A")])
)
FIELDS: Any = st.recursive(
    st.dictionaries(NAMES, st.one_of(SCALARS, st.lists(SCALARS, max_size=3)), max_size=3),
    lambda inner: st.dictionaries(NAMES, st.one_of(SCALARS, inner, st.lists(inner, max_size=2)), max_size=3),
    max_leaves=8,
)


@given(FIELDS)
def test_fields_that_are_written_are_read_back(fields: dict[str, Any]) -> None:
    assert parse_text_format(write_text_format(fields), "p") == message(fields)


@given(st.text(alphabet="ab:{}<>[],;\"'\\1-.#\n ", max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse_text_format(text, "p")
    except ConfigError as error:
        assert all(fault.where.startswith("p, line ") for fault in error.faults)
