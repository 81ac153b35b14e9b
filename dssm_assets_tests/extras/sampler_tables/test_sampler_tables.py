"""The samplers' tables as text: the format by hand, round trips, and every kind of fault with its line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dssm_assets.core.errors import SchemaError
from dssm_assets.core.samples.negatives import select_exposures
from dssm_assets.extras.sampler_tables.sampler_tables import (
    EDGE_KEYS,
    HARD_EDGE_SPEC,
    POSITIVE_EDGE_SPEC,
    USER_SPEC,
    TsvSpec,
    count_keys,
    drop_positives,
    item_spec,
    items_as_text,
    read_tsv,
    write_tsv,
)

ITEMS = item_spec(["brand", "price"])
ITEM_TEXT = b"id:int64\tweight:float\tattrs:string\n7\t1.5\tacme:10\n-8\t0.1\t:\n"
EDGE_TEXT = b"userid:int64\titemid:int64\tweight:float\n1\t7\t1.0\n"


def test_item_table_by_hand() -> None:
    table = pa.table({"item_id": [7, -8], "weight": [1.5, 0.1], "brand": ["acme", ""], "price": ["10", ""]})
    assert write_tsv(table, ITEMS) == ITEM_TEXT
    assert read_tsv(ITEM_TEXT, ITEMS).equals(table)
    turned = item_spec(["price", "brand"], "\x02")
    assert write_tsv(table, turned).splitlines()[1] == b"7\t1.5\t10\x02acme"
    assert read_tsv(write_tsv(table, turned), turned).column_names == ["item_id", "weight", "price", "brand"]
    assert write_tsv(table, item_spec([])).splitlines()[1:] == [b"7\t1.5\t", b"-8\t0.1\t"]
    assert read_tsv(b"id:int64\tweight:float\tattrs:string\n7\t2\t\n", item_spec([])).to_pylist() == [
        {"item_id": 7, "weight": 2.0}
    ]


def test_user_and_edge_tables_by_hand() -> None:
    users = pa.table({"user_id": ["u 1", "ü"], "weight": pa.array([1.0, 0.1], pa.float32())})
    text = "id:string\tweight:float\nu 1\t1\nü\t0.1\n".encode()
    assert write_tsv(users, USER_SPEC).replace(b"1.0\n", b"1\n") == text
    assert read_tsv(text, USER_SPEC).cast(users.schema).equals(users)
    edges = pa.table({"user_id": [1], "item_id": [7], "weight": [1.0]})
    for form in (POSITIVE_EDGE_SPEC, HARD_EDGE_SPEC):
        assert read_tsv(EDGE_TEXT, form).equals(edges)
        assert read_tsv(write_tsv(edges, form), form).equals(edges)
    mixed = read_tsv(b"userid:string\titemid:int64\tweight:float\n1\t7\t1\n", HARD_EDGE_SPEC)
    assert mixed.to_pylist() == [{"user_id": "1", "item_id": 7, "weight": 1.0}]


def test_windows_line_breaks_and_tables_without_rows() -> None:
    assert read_tsv(EDGE_TEXT.replace(b"\n", b"\r\n"), HARD_EDGE_SPEC).equals(read_tsv(EDGE_TEXT, HARD_EDGE_SPEC))
    assert read_tsv(EDGE_TEXT.rstrip(), HARD_EDGE_SPEC).equals(read_tsv(EDGE_TEXT, HARD_EDGE_SPEC))
    header = EDGE_TEXT.splitlines()[0]
    for text in (header, header + b"\n"):
        empty = read_tsv(text, HARD_EDGE_SPEC)
        assert (empty.num_rows, [str(kind) for kind in empty.schema.types]) == (0, ["int64", "int64", "double"])
    assert write_tsv(empty, HARD_EDGE_SPEC) == header + b"\n"
    assert read_tsv(ITEM_TEXT.split(b"7")[0], ITEMS).num_rows == 0


WEIGHT = st.floats(0, allow_nan=False, allow_infinity=False)
TEXT = st.text(st.characters(exclude_characters="\t\n\r:", exclude_categories=["Cs"]), max_size=6)
NUMBER = st.integers(-(1 << 63), (1 << 63) - 1)


@settings(deadline=None)
@given(
    rows=st.lists(st.tuples(NUMBER, NUMBER, TEXT, TEXT, WEIGHT), max_size=8),
    is_text=st.booleans(),
    is_short=st.booleans(),
)
def test_a_written_table_reads_back_equal(rows: list[Any], is_text: bool, is_short: bool) -> None:
    users, items, first, second, weights = zip(*rows, strict=True) if rows else ((), (), (), (), ())
    kind = pa.float32() if is_short else pa.float64()
    if is_short:
        weights = tuple(min(weight, 3e38) for weight in weights)
    table = pa.table(
        {
            "item_id": pa.array(first, pa.string()) if is_text else pa.array(items, pa.int64()),
            "weight": pa.array(weights, pa.float64()).cast(kind),
            "user_id": pa.array(users, pa.int64()),
            "brand": pa.array(first, pa.string()),
            "price": pa.array(second, pa.string()),
        }
    )
    for form in (ITEMS, item_spec(["brand"]), item_spec([]), USER_SPEC, POSITIVE_EDGE_SPEC, HARD_EDGE_SPEC):
        chosen = table.select(form.columns)
        assert read_tsv(write_tsv(chosen, form), form).cast(chosen.schema).equals(chosen)


def _edges(*lines: str) -> bytes:
    return "\n".join(["userid:int64\titemid:int64\tweight:float", *lines]).encode()


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("1\t2", "Row #3: Expected 3 columns, got 2"),
        ("x\t2\t1", "column #0: Row #3: .* invalid value 'x'"),
        ("1\t9223372036854775808\t1", "column #1: Row #3: .* invalid value '9223372036854775808'"),
        ("", "Row #3: .* invalid value ''"),
        ("1\t2\tnan", "column weight, line 3: expected a finite number of at least 0, got nan"),
        ("1\t2\t1\t3", "Row #3: Expected 3 columns, got 4"),
    ],
)
def test_reading_names_the_first_line_that_does_not_fit(line: str, fault: str) -> None:
    with pytest.raises(SchemaError, match=fault):
        read_tsv(_edges("1\t2\t1", line, "1\t2\t1"), HARD_EDGE_SPEC)


@pytest.mark.parametrize(
    ("weight", "value"), [("1", 1.0), ("1.", 1.0), (".5", 0.5), ("1e3", 1000.0), ("2E-1", 0.2), ("0", 0.0), ("-0", 0.0)]
)
def test_accepted_weights(weight: str, value: float) -> None:
    assert read_tsv(_edges(f"1\t2\t{weight}"), HARD_EDGE_SPEC)["weight"].to_pylist() == [value]


@pytest.mark.parametrize(("text", "value"), [("007", 7), ("-0", 0), ("-9223372036854775808", -(1 << 63))])
def test_accepted_integer_ids(text: str, value: int) -> None:
    assert read_tsv(_edges(f"{text}\t2\t1"), HARD_EDGE_SPEC)["user_id"].to_pylist() == [value]


@pytest.mark.parametrize("text", ["", "inf", "1e999", "0x1", "1_0", "-1"])
def test_refused_weights(text: str) -> None:
    with pytest.raises(SchemaError, match=r"Row #2|weight, line 2"):
        read_tsv(_edges(f"1\t2\t{text}"), HARD_EDGE_SPEC)


@pytest.mark.parametrize("text", ["", "1.0", "+1", "-9223372036854775809", "--1", "\u0661"])
def test_refused_integer_ids(text: str) -> None:
    with pytest.raises(SchemaError, match="Row #2"):
        read_tsv(_edges(f"{text}\t2\t1"), HARD_EDGE_SPEC)


@pytest.mark.parametrize(
    ("data", "form", "text"),
    [
        (b"", USER_SPEC, "user table, line 1: expected 'id:int64"),
        (b"id\tweight\n1\t1\n", USER_SPEC, "user table, line 1"),
        (EDGE_TEXT, USER_SPEC, "user table, line 1"),
        (ITEM_TEXT, POSITIVE_EDGE_SPEC, "positive edge table, line 1"),
        (b"id:float\tweight:float\n", USER_SPEC, "user table, line 1"),
        (
            b"id:int64\tweight:float\n1\t1\n\xff\t1\n",
            USER_SPEC,
            "Row #3: .* invalid value",
        ),
        (ITEM_TEXT + b"9\t1\tacme\n", ITEMS, "item table, column attrs, line 4: expected 2 fields between ':', got 'acme'"),
        (ITEM_TEXT, item_spec([]), "attrs, line 2: expected 0 fields"),
    ],
)
def test_reading_refuses_texts_of_another_format(data: bytes, form: TsvSpec, text: str) -> None:
    with pytest.raises(SchemaError, match=text):
        read_tsv(data, form)


@pytest.mark.parametrize(
    ("column", "values", "text"),
    [
        ("item_id", pa.array([1, None]), "no null ids"),
        ("item_id", pa.array([1.0, 2.0]), "column item_id"),
        ("item_id", pa.array(["a\tb", "c"]), r"column item_id, line 2: expected text without tab or line break, got 'a\\tb'"),
        ("brand", pa.array(["x", "a:b"]), "column brand, line 3: expected text without tab, line break or delimiter"),
        ("brand", pa.array(["a\rb", "a\nb"]), "column brand, line 2"),
    ],
)
def test_writing_refuses_what_would_not_read_back_equal(column: str, values: pa.Array, text: str) -> None:
    table = read_tsv(ITEM_TEXT, ITEMS)
    with pytest.raises(SchemaError, match=text):
        write_tsv(table.set_column(table.column_names.index(column), column, values), ITEMS)


@pytest.mark.parametrize("delimiter", ["", "\t", "\n", "::"])
def test_item_spec_refuses_an_ambiguous_delimiter(delimiter: str) -> None:
    with pytest.raises(SchemaError, match="attr_delimiter: expected one character"):
        item_spec(["a"], delimiter)


@pytest.mark.parametrize("names", [["a", "a"], ["item_id"], ["weight"]])
def test_item_spec_refuses_repeated_names(names: list[str]) -> None:
    with pytest.raises(SchemaError, match="attrs: expected columns with different names"):
        item_spec(names)


def test_items_as_text_keeps_the_order_of_features() -> None:
    negatives = pa.table(
        {
            "item_id": [7, 8],
            "weight": [2.0, 1.0],
            "count": [3, 0],
            "brand": pa.array([5, None], pa.int32()),
            "tags": pa.array([[1, 2], None], pa.list_(pa.int64())),
            "tags__weights": pa.array([[0.5, 1.0], None], pa.list_(pa.float32())),
            "colour": pa.array(["red", None]).dictionary_encode(),
        }
    )
    table, fields = items_as_text(negatives)
    assert fields == ["brand", "tags", "tags__weights", "colour"]
    assert table.to_pylist() == [
        {"item_id": 7, "weight": 2.0, "brand": "5", "tags": "1\x1d2", "tags__weights": "0.5\x1d1", "colour": "red"},
        {"item_id": 8, "weight": 1.0, "brand": "", "tags": "", "tags__weights": "", "colour": ""},
    ]


@pytest.mark.parametrize("kind", [pa.list_, pa.large_list])
def test_items_as_text_writes_a_missing_list_element_as_empty_text(kind: Callable[[pa.DataType], pa.DataType]) -> None:
    tags = pa.array([["a", None, "c"], None, [], [None]], kind(pa.string()))
    rows, _ = items_as_text(pa.table({"item_id": [1, 2, 3, 4], "weight": [1.0] * 4, "count": [1] * 4, "tags": tags}))
    assert rows.column("tags").to_pylist() == ["a\x1d\x1dc", "", "", ""]


def test_count_keys_sums_over_days() -> None:
    days = [
        pa.table({"user_id": ["b", "a"], "item_id": [1, 2]}),
        pa.table({"user_id": pa.array([], pa.string()), "item_id": pa.array([], pa.int64())}),
        pa.table({"user_id": ["b", "b"], "item_id": [1, 2]}),
    ]
    users = count_keys((day.select(["user_id"]) for day in days), ["user_id"])
    assert users.to_pylist() == [{"user_id": "a", "weight": 1.0}, {"user_id": "b", "weight": 3.0}]
    edges = count_keys(iter(days), EDGE_KEYS)
    assert [tuple(row.values()) for row in edges.to_pylist()] == [("a", 2, 1.0), ("b", 1, 2.0), ("b", 2, 1.0)]


def test_hard_edges_are_exposures_without_positives() -> None:
    day = pa.table(
        {
            "user_id": [1, 1, 1, 2, 2],
            "item_id": [5, 6, 6, 5, 6],
            "event": ["expr", "expr", "buy", "click", "expr"],
            "label": [0, 0, 1, 0, 0],
        }
    )
    shown = count_keys([select_exposures(day, ["expr"])], EDGE_KEYS)
    positives = count_keys([day.slice(2, 1)], EDGE_KEYS)
    # User 1 was shown 5 and 6 and bought 6, user 2 was shown 6 and clicked on 5.
    assert [tuple(row.values()) for row in drop_positives(shown, positives).to_pylist()] == [(1, 5, 1.0), (2, 6, 1.0)]
