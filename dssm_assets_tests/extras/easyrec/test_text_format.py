"""The text format: values, messages, comments, escapes, faults with their places, and writing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.errors import ConfigError
from dssm_assets.extras.easyrec.text_format import (
    MAX_DEPTH,
    Entry,
    Message,
    Word,
    message,
    parse_text_format,
    write_text_format,
)


def values(text: str) -> list[object]:
    return [entry.value for entry in parse_text_format(text, "p").entries]


def test_scalars_have_their_types() -> None:
    text = "a: 1 b: -2, c: 0x1F; d: 017 e: 1.5e-3 f: .5f g: -inf h: true i: DEEP j: \"x\" k: 'y'"
    found = values(text)
    assert found == [1, -2, 31, 15, 0.0015, 0.5, float("-inf"), "true", "DEEP", "x", "y"]
    assert [type(value) for value in found] == [int, int, int, int, float, float, float, Word, Word, str, str]


def test_strings_are_unescaped_and_joined() -> None:
    assert values(r'a: "\x02\001\n\"" ' + r"'\'é\u00e9'") == ["\x02\x01\n\"'éé"]
    assert values(r'a: "\303\251"') == ["é"]


def test_messages_lists_comments_and_places() -> None:
    text = "# a comment\nm { x: 1 } # another\nm: < x: [2, 3] >\nn [{y: 1}, {}]\nempty: []\n"
    parsed = parse_text_format(text, "p")
    assert parsed == message({"m": [{"x": 1}, {"x": [2, 3]}], "n": [{"y": 1}, {}]})
    assert [(entry.line, entry.column) for entry in parsed.entries] == [(2, 1), (3, 1), (4, 1), (4, 1)]


@pytest.mark.parametrize(
    ("text", "line", "column", "got"),
    [
        ("a 1", 1, 3, "1"),
        ("a: 1\nb { c: @ }", 2, 8, "@"),
        ('d: "open\n', 1, 4, '"'),
        ("e: 089", 1, 4, "089"),
        ("a: 1\n}", 2, 1, "}"),
        ("f: [1 2]", 1, 7, "2"),
        ('g: "\\q"', 1, 4, '"\\q"'),
        ("a: 1\nh {\n  ok: 1\n", 2, 3, "the end of the text"),
    ],
)
def test_the_first_fault_is_told_with_line_and_column(text: str, line: int, column: int, got: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_text_format(text, "x.config")
    (fault,) = raised.value.faults
    assert (fault.where, fault.got) == (f"x.config, line {line}, column {column}", got)


def test_depth_is_limited() -> None:
    depth = MAX_DEPTH
    assert parse_text_format("a {" * depth + "}" * depth, "p").entries
    with pytest.raises(ConfigError, match="at most 100 messages within one another"):
        parse_text_format("a {" * 5000 + "}" * 5000, "p")


def test_a_written_message_is_readable() -> None:
    fields = {"b": [1, 2.5], "flag": True, "m": {"s": 'a"\x02\n'}, "e": {}, "w": ["x", Word("Y")], "none": None}
    written = message(fields)
    assert write_text_format(written) == ('b: [1, 2.5]\nflag: true\nm {\n  s: "a\\"\\002\\n"\n}\ne {}\nw: "x"\nw: Y\n')


NAMES = st.from_regex(r"[a-z_][a-z0-9_]{0,5}", fullmatch=True)
SCALARS = st.one_of(
    st.integers(-(10**9), 10**9), st.floats(allow_nan=False), st.text(max_size=5), st.sampled_from([Word("true"), Word("A")])
)
MESSAGES = st.recursive(
    st.builds(Message, st.lists(st.builds(Entry, NAMES, SCALARS), max_size=3).map(tuple)),
    lambda inner: st.builds(Message, st.lists(st.builds(Entry, NAMES, st.one_of(SCALARS, inner)), max_size=3).map(tuple)),
    max_leaves=8,
)


@given(MESSAGES)
def test_what_is_written_is_read_back(written: Message) -> None:
    read = parse_text_format(write_text_format(written), "p")
    assert read == written
    assert write_text_format(read) == write_text_format(written)


@given(st.text(alphabet="ab:{}<>[],;\"'\\1-.#\n ", max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse_text_format(text, "p")
    except ConfigError as error:
        assert all(fault.where.startswith("p, line ") for fault in error.faults)
